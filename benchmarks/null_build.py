"""What a build with nothing to do costs: quantbuild with many variants against doit with as many tasks, in one run.

Both are whole processes (`python -m doit`), measured by the processor time of the finished process, in turn, A B A B.
doit's tasks have one file_dep and one target each and the sqlite3 backend, as a hand-written dodo.py would.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MODEL_SCRIPT = """
import keras
keras.utils.set_random_seed(0)
image = keras.Input((8, 8, 1), name="image")
x = keras.layers.Flatten()(image)
keras.Model(image, keras.layers.Dense(10, activation="softmax", name="probabilities")(x)).save("model.keras")
import numpy as np
rng = np.random.default_rng(0)
np.savez("data.npz", x=rng.random((40, 8, 8, 1), dtype=np.float32), y=rng.integers(0, 10, 40))
"""

HEAD = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[model.tiny]
source = "keras"
path = "model.keras"
calibration = "data"
lint_ignore = ["noise"]
evaluation = "data"
metric = "top1"
"""

DODO = "from quantbuild.shell import tasks\nglobals().update(tasks())\n"

PLAIN_DODO = """
DOIT_CONFIG = {{"backend": "sqlite3", "dep_file": "doit.db"}}

def task_step():
    for number in range({count}):
        yield {{
            "name": str(number),
            "file_dep": [f"in/{{number}}"],
            "targets": [f"out/{{number}}"],
            "actions": [f"cp in/{{number}} out/{{number}}"],
        }}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _isolate(folder)
        ours, plain = Path(folder, "quantbuild"), Path(folder, "doit")
        count = _prepare_ours(ours, options.variants)
        _prepare_plain(plain, count)
        figures: dict[str, list[float]] = {"quantbuild": [], "doit": []}
        for _ in range(options.runs):
            for name, root in (("quantbuild", ours), ("doit", plain)):
                figures[name].append(_cpu_seconds(root))
    ratios = [a / b for a, b in zip(figures["quantbuild"], figures["doit"], strict=True)]
    for name, seconds in figures.items():
        print(
            f"{name:<11} cpu s: min {min(seconds):.3f}  median {statistics.median(seconds):.3f}  max {max(seconds):.3f}"
        )
    result = {
        "ratio": round(statistics.median(ratios), 3),
        "ratio_min": round(min(ratios), 3),
        "ratio_max": round(max(ratios), 3),
        "quantbuild_cpu_s": round(statistics.median(figures["quantbuild"]), 4),
        "doit_cpu_s": round(statistics.median(figures["doit"]), 4),
        "tasks": count,
        "variants": options.variants,
        "runs": options.runs,
    }
    print(json.dumps(result))
    return 0


def _environment() -> dict[str, str]:
    # Both slow down every start of Python and are no part of what is compared.
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")}


def _isolate(folder: str) -> None:
    """Keep the user's cache out of the figures, and the figures out of the user's cache."""
    os.environ["QUANTBUILD_CACHE_DIR"] = f"{folder}/cache"


def _doit(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "doit", *arguments]
    done = subprocess.run(command, cwd=root, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def _prepare_ours(root: Path, variants: int) -> int:
    """Build the workspace once from cold; return how many tasks doit lists there."""
    (root / "manifests").mkdir(parents=True)
    (root / "dodo.py").write_text(DODO)
    subprocess.run([sys.executable, "-c", MODEL_SCRIPT], cwd=root, env=_environment(), check=True, capture_output=True)
    schemes = ("float16", "dynamic", "int8")
    tables = [
        f'[model.tiny.variant.v{number:04}]\nscheme = "{schemes[number % len(schemes)]}"\n'
        for number in range(variants)
    ]
    (root / "manifests" / "many.toml").write_text(HEAD + "".join(tables))
    print(_doit(root, "report").splitlines()[-1], "(from cold)")
    last = ""
    for _ in range(2):  # the first pass settles what was hashed while its time stamp was still fresh
        last = _doit(root, "report").splitlines()[-1]
    if not last.startswith("quantbuild: 0 executed, 0 restored,"):
        raise SystemExit(f"not a null build: {last}")
    print(last)
    return len(_doit(root, "list", "--all", "--quiet").splitlines())


def _prepare_plain(root: Path, count: int) -> None:
    (root / "in").mkdir(parents=True)
    (root / "out").mkdir()
    (root / "dodo.py").write_text(PLAIN_DODO.format(count=count))
    for number in range(count):
        (root / "in" / str(number)).write_text(str(number))
    _doit(root)
    _doit(root)


def _cpu_seconds(root: Path) -> float:
    """Return the processor seconds (user and system) of one whole null build."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    _doit(root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


if __name__ == "__main__":
    sys.exit(main())
