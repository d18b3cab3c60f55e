"""The rows of the comparison: what is done to a pipeline, and what an engine makes of it, in a few words.

A cell that ends in ✗ is a wrong result: an artifact or a report that is not what the inputs give, with exit code 0, or
a run that never ends. A number is a count of executions of stages and of the report.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from engines.engine import Engine, Run, kill, model_bytes, terminate
from engines.opens import counted_opens

STAGES = 20
WRONG = "✗"


class Row(NamedTuple):
    """One row: what happens, what is wanted of an engine, and the measurement on a pipeline not yet prepared."""

    id: str
    title: str
    wanted: str
    measure: Callable[[Engine], str]


def _built(engine: Engine, stages: int = STAGES, **how: object) -> str:
    """Prepare the pipeline and build it; return the name of the first variant."""
    engine.prepare(stages, **how)  # type: ignore[arg-type]
    engine.build_well()
    return next(iter(engine.parameters))


def _told(engine: Engine, count: int, run: Run) -> str:
    """Return a count of executions, marked where what stands afterwards is wrong."""
    if run.code is None:
        return f"hangs {WRONG}"
    if run.code != 0:
        return "refuses" if count == 0 else f"{count}, then fails"
    return str(count) if engine.is_right() else f"{count} {WRONG}"


# Executions ----------------------------------------------------------------------------------------------------------


def touched(engine: Engine) -> str:
    """Every input touched, none changed."""
    _built(engine)
    for path in (engine.model, engine.set, engine.manifest):
        path.touch()
    return _told(engine, *engine.executions_of_a_build())


def comment(engine: Engine) -> str:
    """A comment added to the file that the parameters stand in."""
    _built(engine)
    engine.manifest.write_text(f"# a comment\n{engine.manifest.read_text()}")
    return _told(engine, *engine.executions_of_a_build())


def one_parameter(engine: Engine) -> str:
    """One parameter of one variant edited."""
    engine.set_parameter(_built(engine), 77)
    return _told(engine, *engine.executions_of_a_build())


def parameter_back(engine: Engine) -> str:
    """The parameter edited, built, and put back."""
    first = _built(engine)
    before = engine.parameters[first]
    engine.set_parameter(first, 77)
    engine.build_well()
    engine.set_parameter(first, before)
    return _told(engine, *engine.executions_of_a_build())


def output_deleted(engine: Engine) -> str:
    """One artifact deleted."""
    path = engine.artifact(_built(engine))
    path.unlink()
    count, run = engine.executions_of_a_build()
    if run.code == 0 and not path.is_file():
        return f"{count}, not restored {WRONG}"
    told = _told(engine, count, run)
    return f"{told}, restored" if told == "0" else told


def output_altered(engine: Engine) -> str:
    """One artifact tampered with: as many bytes, one of them another."""
    _flip(engine.artifact(_built(engine)))
    count, run = engine.executions_of_a_build()
    if run.code == 0 and not engine.is_right():
        return f"{count}, kept {WRONG}"
    told = _told(engine, count, run)
    return f"{told}, repaired" if told == "0" else told


def _flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def fresh_clone(engine: Engine) -> str:
    """A fresh clone on a machine that has the cache."""
    _built(engine)
    clone = engine.clone()
    return _told(clone, *clone.executions_of_a_build())


def same_action(engine: Engine) -> str:
    """Two variants with the same parameter, from cold: executions of their stage."""
    engine.prepare(2)
    engine.set_parameter("v001", engine.parameters["v000"])
    count, run = engine.executions_of_a_build(jobs=2)
    return _told(engine, count - engine.executions()["report"], run)


def killed_half_way(engine: Engine) -> str:
    """kill -9 with ten of twenty stages done and one half written, then run again."""
    return _next_run_after(engine, STAGES, done=STAGES // 2, number=signal.SIGKILL)


def _next_run_after(engine: Engine, stages: int, *, done: int, number: signal.Signals) -> str:
    """End a build by a signal when `done` stages are done, in any order, and the next has half its output written."""
    engine.prepare(stages)
    engine.hold_after(done)
    process = engine.start()
    engine.wait_until_held("held", process)
    if number is signal.SIGTERM:
        terminate(process, lambda: engine.release("held"))
    else:
        kill(process)
    engine.no_faults()
    count, run = engine.executions_of_a_build()
    if run.code == 0 and not engine.is_right():
        return f"{count}, half a file kept {WRONG}"
    return _told(engine, count, run)


EXECUTIONS = (
    Row("touched", "inputs touched, none changed", "0", touched),
    Row("comment", "a comment in the manifest", "0", comment),
    Row("one-parameter", "one parameter of one variant", "2", one_parameter),
    Row("parameter-back", "the parameter put back", "0", parameter_back),
    Row("output-deleted", "an output deleted", "0, restored", output_deleted),
    Row("output-altered", "an output tampered with", "0, repaired", output_altered),
    Row("fresh-clone", "a fresh clone and the cache", "0", fresh_clone),
    Row("same-action", "two variants, the same action", "1", same_action),
    Row("killed-half-way", "kill -9 half-way, then run again", "11", killed_half_way),
)


# Faults --------------------------------------------------------------------------------------------------------------

FEW = 5


def altered_then_used(engine: Engine) -> str:
    """An artifact tampered with, then something that makes the report anew."""
    first = _built(engine, FEW)
    _flip(engine.artifact(first))
    engine.set_parameter(list(engine.parameters)[1], 77)
    run = engine.build()
    if run.code != 0:
        return "fails"
    return "repaired" if engine.is_right() else f"used {WRONG}"


def makes_nothing(engine: Engine) -> str:
    """A stage that ends well and makes no output."""
    engine.prepare(FEW)
    engine.fault("v000", "nothing")
    count, run = engine.executions_of_a_build(target=engine.stage_target("v000"))
    if count != 1:
        raise RuntimeError(f"{engine.name} did not run the stage:\n{run.output[-3000:]}")
    return "fails" if run.code else f"exit code {run.code} {WRONG}"


def same_mtime(engine: Engine) -> str:
    """The model edited, as many bytes, its modification time put back."""
    _built(engine, FEW)
    status = engine.model.stat()
    engine.model.write_bytes(model_bytes(1))
    os.utime(engine.model, ns=(status.st_atime_ns, status.st_mtime_ns))
    run = engine.build()
    if run.code != 0:
        return "fails"
    return "noticed" if engine.is_right() else f"not noticed {WRONG}"


def edited_while_read(engine: Engine) -> str:
    """The samples edited while a stage works on what it read; the build runs to its end, then once more."""
    engine.prepare(2)
    engine.fault("v000", "read")
    process = engine.start()
    engine.wait_until_held("v000", process)
    engine.set.write_bytes(b"samples 1" * 40)
    engine.release("v000")
    engine.ended(process)
    engine.no_faults()
    run = engine.build()
    if run.code != 0:
        return "fails"
    return "noticed" if engine.is_right() else f"stale for ever {WRONG}"


def killed_then_reverted(engine: Engine) -> str:
    """The samples edited, kill -9 with a stage half written, then the samples put back and built."""
    first = _built(engine, FEW)
    before = engine.set.read_bytes()
    engine.set.write_bytes(b"samples 1" * 40)
    engine.fault(first, "half")
    process = engine.start()
    engine.wait_until_held(first, process)
    kill(process)
    engine.no_faults()
    engine.set.write_bytes(before)
    run = engine.build()
    if run.code != 0:
        return "refuses"
    return "right" if engine.is_right() else f"half a file kept {WRONG}"


def killed_after_three(engine: Engine) -> str:
    """kill -9 after three of five stages, then run again."""
    return _next_run_after(engine, FEW, done=3, number=signal.SIGKILL)


def terminated_after_three(engine: Engine) -> str:
    """SIGTERM after three of five stages, then run again."""
    return _next_run_after(engine, FEW, done=3, number=signal.SIGTERM)


def worker_dies(engine: Engine) -> str:
    """The process that a stage runs in is killed, with two stages at once and failures to be passed over."""
    engine.prepare(FEW)
    engine.fault("v000", engine.worker_fault)
    run = engine.build(jobs=2)
    engine.no_faults()
    if run.code is None:
        return f"hangs {WRONG}"
    if run.code == 0:
        return f"exit code 0 {WRONG}"
    return "the rest is made" if engine.wrong_artifacts() == ["v000"] else "the run ends"


def two_runs(engine: Engine) -> str:
    """Two runs at once in one workspace, from cold."""
    engine.prepare(FEW)
    return _at_once(engine, engine)


def two_workspaces(engine: Engine) -> str:
    """Two workspaces with one cache, built from cold at once."""
    engine.prepare(FEW)
    other = type(engine)(engine.root.with_name(f"{engine.root.name}-other"), engine.tool, beside=engine)
    other.prepare(FEW)
    return _at_once(engine, other)


def _at_once(one: Engine, other: Engine) -> str:
    for name in one.parameters:
        one.fault(name, "slow")
    runs = [engine.ended(process) for engine, process in [(engine, engine.start()) for engine in (one, other)]]
    count = one.executions().total()
    if None in [run.code for run in runs]:
        return f"hangs {WRONG}"
    refused = sum(run.code != 0 for run in runs)
    if refused:
        return f"{count}, {'one fails' if refused == 1 else 'both fail'}"
    return str(count) if one.is_right() and other.is_right() else f"{count} {WRONG}"


def state_lost(engine: Engine) -> str:
    """The engine's database lost; inputs and artifacts are there."""
    _built(engine, FEW)
    if not engine.state:
        return "has none"
    engine.lose_state()
    return _told(engine, *engine.executions_of_a_build())


def folder_as_input(engine: Engine) -> str:
    """A file edited in a folder that the stages declare as their input."""
    engine.prepare(FEW, folder=True)
    if engine.build().code != 0:
        return "fails"
    engine.model.write_bytes(model_bytes(1))
    run = engine.build()
    if run.code != 0:
        return "fails"
    return "noticed" if engine.is_right() else f"not noticed {WRONG}"


def shared_set_touched(engine: Engine) -> str:
    """The set that all stages share is touched: how often the next two builds open it."""
    _built(engine)
    engine.build_well()  # what was hashed in the very tick it was written may be hashed once more
    engine.set.touch()
    told = []
    for _ in range(2):
        before = engine.executions()
        with counted_opens(engine.set) as opens:
            engine.build_well()
        if engine.executions() != before:
            return f"{(engine.executions() - before).total()} executed"
        told.append(str(opens[0]))
    return ", then ".join(told)


def one_device(engine: Engine) -> str:
    """Two benchmarks on one device, with two things at once allowed."""
    engine.prepare(FEW, benchmarks=2)
    engine.build_well(jobs=2, target="benchmarks")
    return f"at once {WRONG}" if (engine.control / "device.shared").exists() else "one at a time"


FAULTS = (
    Row("altered-then-used", "an output tampered with, then used", "repaired", altered_then_used),
    Row("makes-nothing", "an action ends well and makes nothing", "fails", makes_nothing),
    Row("same-mtime", "content changed, the same mtime", "noticed", same_mtime),
    Row("edited-while-read", "an input edited while it is worked on", "noticed", edited_while_read),
    Row("killed-then-reverted", "kill -9 in mid-rebuild, then the input put back", "right", killed_then_reverted),
    Row("killed-after-three", "kill -9 after 3 of 5 stages, then run again", "3", killed_after_three),
    Row("terminated-after-three", "SIGTERM after 3 of 5 stages, then run again", "3", terminated_after_three),
    Row("worker-dies", "a worker dies, two at once", "the rest is made", worker_dies),
    Row("two-runs", "two runs at once of 5 stages", "6", two_runs),
    Row("two-workspaces", "two workspaces and one cache at once, 5 stages", "6", two_workspaces),
    Row("state-lost", "the database lost", "0", state_lost),
    Row("folder-as-input", "a file edited in a folder that is an input", "noticed", folder_as_input),
    Row("shared-set-touched", "a set of 20 variants touched: opened by two builds", "1, then 0", shared_set_touched),
    Row("one-device", "two benchmarks on one device, two at once", "one at a time", one_device),
)
ROWS = EXECUTIONS + FAULTS
