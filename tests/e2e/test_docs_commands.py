"""Every command of the tutorial runs, in its order, in the workspace that the tutorial makes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from workspace import Workspace

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = DOCS / "tutorial.md"
QUICK = 'runner = "host"\nprocesses = 1\nruns = 5\nseconds = 0.0\nwarmup_seconds = 0.0'


def commands() -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.splitlines() if line.strip()]


def test_the_tutorials_commands_run_in_their_order(tmp_path: Path) -> None:
    listed = commands()
    assert listed[0] == ["quantbuild", "init", "demo"]
    assert len(listed) > 5
    Workspace(tmp_path).quantbuild("init", "demo")
    demo = Workspace(tmp_path / "demo")
    demo.manifest = demo.root / "manifests" / "digits.toml"
    demo.edit('runner = "host"', QUICK)
    explained = ""
    for program, *arguments in listed[1:]:
        if program == "quantbuild" and arguments[0] == "explain":  # step 4 has the reader change the manifest first
            demo.edit('# io = "int8"', 'io = "int8"')
            explained = demo.quantbuild(*arguments)
        elif program == "quantbuild":
            demo.quantbuild(*arguments)
        else:
            demo.doit(*arguments)
    assert "option changed: options.io: float32 → int8" in explained
    # Only that variant and what depends on it ran again, as the tutorial says.
    changed = {"quantize:digits/int8", "evaluate:digits/int8", "benchmark:digits/int8@host", "check", "dist", "report"}
    assert demo.steps("executed") == changed
    assert accuracy_of_the_app(demo.root) > 0.9


def accuracy_of_the_app(demo: Path) -> float:
    """Feed the int8 file as how-to.md says, from its contract alone; return how often it is right."""
    (program,) = re.findall(r"```python\n(import json\n.*?)```", (DOCS / "how-to.md").read_text(), re.DOTALL)
    judge = """
data = np.load("data/digits.npz")
right = [answer(x).argmax() == y for x, y in zip(data["x_test"], data["y_test"])]
assert given["dtype"] == "int8" and len(right) == 600
print(np.mean(right))
"""
    done = subprocess.run([sys.executable, "-c", program + judge], cwd=demo, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def test_the_limit_of_the_tutorial_fails_with_exit_code_1(tmp_path: Path) -> None:
    Workspace(tmp_path).quantbuild("init", "demo")
    demo = Workspace(tmp_path / "demo")
    demo.manifest = demo.root / "manifests" / "digits.toml"
    demo.edit("max_size_ratio = 0.35", "max_size_ratio = 0.1")
    assert "gate failed: digits/int8: " in demo.doit("check", code=1)
