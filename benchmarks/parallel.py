"""What parallel steps save: a cold build of the shipped examples with one step at a time and with many, in one run.

Both are `python -m doit check`, which makes, evaluates and judges every variant and measures no latency, in a new
workspace with an empty cache: `-n 1` against the default. They go in turn, A B, B A, A B, so that a drift of the
machine meets both alike. Wall time is what parallelism is for, and what other programs on the machine disturb; the
processor time beside it tells how much work was done.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ("digits", "fashion")
WAYS: dict[str, list[str]] = {"one at a time": ["-n", "1"], "parallel": []}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="builds of each kind")
    parser.add_argument("--threads", type=int, help="doit's -n for the parallel build; absent: the default")
    options = parser.parse_args()
    ways = dict(WAYS)
    if options.threads is not None:
        ways["parallel"] = ["-n", str(options.threads)]
    builds: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.runs):
            for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
                found = _build(Path(folder, f"{number}-{name.split()[0]}"), ways[name])
                builds[name].append(found)
                print(f"{name:<14} wall {found['wall']:6.1f} s  cpu {found['cpu']:6.1f} s", flush=True)
    serial, parallel = builds.values()
    for one, many in zip(serial, parallel, strict=True):
        assert one["artifacts"] == many["artifacts"], "the artifacts differ"
    ratios = {
        clock: [one[clock] / many[clock] for one, many in zip(serial, parallel, strict=True)]
        for clock in ("wall", "cpu")
    }
    result = {
        "ratio": round(statistics.median(ratios["wall"]), 3),
        "wall_ratios": [round(ratio, 3) for ratio in ratios["wall"]],
        "cpu_ratio": round(statistics.median(ratios["cpu"]), 3),
        "wall_s": {name: round(statistics.median(b["wall"] for b in found), 1) for name, found in builds.items()},
        "cpu_s": {name: round(statistics.median(b["cpu"] for b in found), 1) for name, found in builds.items()},
        "steps": serial[0]["steps"],
        "processors": len(os.sched_getaffinity(0)),
        "load": [round(load_before, 1), round(os.getloadavg()[0], 1)],
        "runs": options.runs,
        "meaning": "wall time of one step at a time divided by that of the parallel build, pairwise, median",
    }
    print(json.dumps(result))
    return 0


def _build(root: Path, arguments: list[str]) -> dict[str, Any]:
    """Build both examples in a new workspace; return wall and processor seconds, steps and artifacts' digests."""
    for example in EXAMPLES:
        shutil.copytree(ROOT / "examples" / example, root / "examples" / example)
    shutil.copytree(ROOT / "manifests", root / "manifests")
    shutil.copy(ROOT / "dodo.py", root)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUANTBUILD_")}
    environment |= {"QUANTBUILD_CACHE_DIR": str(root / "cache"), "XDG_CACHE_HOME": str(root / "home")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "doit", *arguments, "check"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads((root / "build/last_run.json").read_bytes())
    assert run["executed"] == len(run["steps"]), done.stdout
    lock = json.loads((root / "dist/quantbuild.lock.json").read_bytes())
    return {
        "wall": wall,
        "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "steps": run["executed"],
        "artifacts": {path: entry["sha256"] for path, entry in lock["artifacts"].items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
