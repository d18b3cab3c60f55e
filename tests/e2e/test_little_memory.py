"""Heavy steps run side by side where the memory suffices for them, and one after the other where it does not.

The heavy steps are a scheme of this test's own: for a TensorFlow worker, but it only waits, and notes when.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from workspace import MANIFEST, Workspace, write_light

# So many steps are worth a second TensorFlow worker.
VARIANTS = 12
SCHEME = """
import pathlib, shutil, time
import msgspec

TOOLS = ()
WORKER = "tensorflow"

class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: int
    worker: str = "tensorflow"

def worker(options):
    return options["worker"]

def needs(options):
    return frozenset()

def quantize(job, options):
    with open("moments", "a", buffering=1) as moments:
        moments.write(f"{time.monotonic()} 1\\n")
        time.sleep(0.3)
        shutil.copyfile(job.inputs["model"], job.outputs["model"])
        moments.write(f"{time.monotonic()} -1\\n")
    return {}
"""
WAITS = re.compile(r"memory: (quantize|convert|evaluate):\S+ needs about [\d.]+ [MG]B more, [\d.]+ \w+ is free beside")
# The scheme, and a machine of this test's own: what decides sees two processors, and memory for two TensorFlow workers.
HOOK = """
import quantbuild.machine, quantbuild.schemes, quantbuild.system_memory
quantbuild.schemes.__path__.append({folder!r})
quantbuild.machine.processors = lambda: 2
quantbuild.system_memory.free_bytes = lambda: 8 * 10**9
"""


@pytest.fixture
def heavy(tmp_path: Path) -> Workspace:
    """A workspace of twelve variants that a TensorFlow worker makes."""
    manifest = MANIFEST.partition("[model.m.variant")[0].replace('ship = "a"', 'ship = "v0"')
    manifest += "".join(f'[model.m.variant.v{n}]\nscheme = "heavy"\nnumber = {n}\n' for n in range(VARIANTS))
    workspace = write_light(tmp_path / "heavy", manifest)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "heavy.py").write_text(SCHEME)
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK.format(folder=str(tmp_path / "hook")))
    workspace.environment["PYTHONPATH"] = str(tmp_path / "hook")
    return workspace


def most_at_once(workspace: Workspace, steps: int = VARIANTS) -> int:
    """Return how many heavy steps ran at the same time, of so many in all, and begin anew."""
    path = workspace.root / "moments"
    moments = [line.split() for line in path.read_text().splitlines()]
    path.unlink()
    assert len(moments) == 2 * steps
    running, most = 0, 0
    for _, change in sorted((float(when), int(change)) for when, change in moments):
        running += change
        most = max(most, running)
    return most


def test_heavy_steps_wait_for_each_other_where_the_memory_does_not_suffice(heavy: Workspace) -> None:
    heavy.environment["QUANTBUILD_MEMORY"] = "1MB"
    output = heavy.doit("quantize")
    assert most_at_once(heavy) == 1
    assert len(WAITS.findall(output)) == 1, output
    assert output.count("memory: ") == 1


def test_heavy_steps_run_side_by_side_where_it_does(heavy: Workspace) -> None:
    output = heavy.doit("quantize")
    assert most_at_once(heavy) > 1
    assert "memory: " not in output


def test_what_a_step_took_last_time_counts_the_next_time(heavy: Workspace) -> None:
    heavy.environment["QUANTBUILD_MEMORY"] = "1GB"  # less than what is expected of a TensorFlow worker unknown
    output = heavy.doit("convert")
    assert "memory: " not in output
    heavy.doit("-n", "1", "quantize")
    assert most_at_once(heavy) == 1
    for record in (heavy.root / "build/m").glob("v*/*.record.json"):
        assert re.search(r'"peak_bytes": \d{7,9}\b', record.read_text())
    output = heavy.doit("-a", "quantize")
    assert most_at_once(heavy) > 1
    assert "memory: " not in output


def test_steps_of_different_models_run_side_by_side(heavy: Workspace) -> None:
    one = heavy.manifest.read_text().partition("[model.m.variant")[0]
    one += '[model.m.variant.v0]\nscheme = "heavy"\nnumber = 0\nworker = "litert"\n'
    other = one.partition("[model.m]")[2].replace("model.m.", "model.n.").replace("number = 0", "number = 1")
    heavy.manifest.write_text(f"{one}[model.n]{other}")
    (heavy.root.parent / "hook" / "heavy.py").write_text(SCHEME.replace("sleep(0.3)", "sleep(3)"))
    heavy.doit("quantize")
    assert most_at_once(heavy, steps=2) == 2


def test_a_bound_that_is_no_size_is_told(light: Workspace) -> None:
    light.environment["QUANTBUILD_MEMORY"] = "much"
    output = light.doit("quantize", code=2)
    assert 'QUANTBUILD_MEMORY: "much" is no size; write a number and a unit: 8GB, 6GiB' in output
