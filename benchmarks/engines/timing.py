"""What a run costs: processor time of its whole process tree, engines in turn."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engines.engine import Engine, Tool

PR_SET_CHILD_SUBREAPER = 36
# The engine that every ratio is to.
OURS = "quantbuild"
JOBS = 2


class Timing(NamedTuple):
    """One thing that is timed."""

    id: str
    title: str


TIMINGS = (
    Timing("null", "nothing to do"),
    Timing("edit", "one parameter of one variant"),
    Timing("cold", "from cold"),
)


class Figures(NamedTuple):
    """Processor seconds of one engine over the rounds, and quantbuild's by its, round by round."""

    seconds: list[float]
    ratios: list[float]

    def as_json(self) -> dict[str, float | int]:
        """Median and range of both, and the count of rounds."""
        return {
            "cpu_s": round(statistics.median(self.seconds), 4),
            "cpu_s_min": round(min(self.seconds), 4),
            "cpu_s_max": round(max(self.seconds), 4),
            "quantbuild_by_it": round(statistics.median(self.ratios), 3),
            "n": len(self.seconds),
        }


def measure(
    engines: dict[str, tuple[type[Engine], Tool]], folder: Path, *, stages: int, runs: int
) -> dict[str, dict[str, Figures]]:
    """Return timing → engine → figures, of a pipeline with so many stages, `runs` rounds of each."""
    adopt_orphans()
    at_work = {name: kind(folder / "timing" / name / "w", tool) for name, (kind, tool) in engines.items()}
    cold = _rounds(at_work, runs, _cold(stages))
    for engine in at_work.values():
        engine.build_well(jobs=JOBS)  # what was hashed in the very tick it was written may be hashed once more
    null = _rounds(at_work, runs, lambda engine, _: _cpu_seconds(engine))
    edit = _rounds(at_work, runs, _edit)
    return {"null": null, "edit": edit, "cold": cold}


def _rounds(engines: dict[str, Engine], runs: int, seconds_of: Callable[[Engine, int], float]) -> dict[str, Figures]:
    measured: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(runs):
        for name, engine in engines.items():
            measured[name].append(seconds_of(engine, number))
    ours = measured[OURS]
    return {
        name: Figures(seconds, [a / b for a, b in zip(ours, seconds, strict=True)])
        for name, seconds in measured.items()
    }


def _cold(stages: int) -> Callable[[Engine, int], float]:
    def seconds(engine: Engine, _: int) -> float:
        for path in (engine.root, engine.cache, engine.control):
            shutil.rmtree(path, ignore_errors=True)
        engine.prepare(stages)
        return _cpu_seconds(engine)

    return seconds


def _edit(engine: Engine, number: int) -> float:
    engine.set_parameter(next(iter(engine.parameters)), 1000 + number)
    return _cpu_seconds(engine)


def adopt_orphans() -> None:
    """Become the parent of whatever an engine leaves behind, so that its time counts as well (Linux)."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _cpu_seconds(engine: Engine) -> float:
    """Return the processor seconds, user and system, of one run with all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    engine.build_well(jobs=JOBS)
    _reap()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not engine.is_right():
        raise RuntimeError(f"{engine.name} left something wrong behind: {engine.wrong_artifacts()}")
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def _reap() -> None:
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return
