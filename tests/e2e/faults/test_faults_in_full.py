"""What the rows of the comparison cannot say in a word: which steps run, what is told, what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from engines.engine import Run, kill, model_bytes
from engines.opens import counted_opens
from engines.quantbuild import Quantbuild

FEW = 5
CLOSING = {"check", "dist", "report"}


@pytest.fixture
def engine(tmp_path: Path) -> Quantbuild:
    """Five variants of a trivial action, nothing built."""
    tool = Quantbuild.find()
    assert tool is not None
    made = Quantbuild(tmp_path / "workspace", tool)
    made.prepare(FEW)
    return made


@pytest.fixture
def built(engine: Quantbuild) -> Quantbuild:
    engine.build_well(jobs=2)
    return engine


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])


def ran(engine: Quantbuild) -> set[str]:
    return engine.last_run().get("executed", set())


def test_a_parameter_executes_its_variant_and_the_closing_steps_alone(built: Quantbuild) -> None:
    built.set_parameter("v003", 77)
    built.build_well(jobs=2)
    assert ran(built) == {"quantize:m/v003", *CLOSING}
    built.set_parameter("v003", 3)
    built.build_well(jobs=2)
    assert ran(built) == set()
    assert built.last_run()["restored"] == {"quantize:m/v003", *CLOSING}


def test_an_action_that_makes_nothing_fails_alone_and_is_tried_again(engine: Quantbuild) -> None:
    engine.fault("v002", "nothing")
    run = engine.build(jobs=2)
    assert run.code == 1
    assert "quantize:m/v002  failed: the action did not make model.tflite" in run.output
    assert engine.wrong_artifacts() == ["v002"]
    assert not engine.artifact("v002").exists()
    engine.no_faults()
    engine.build_well(jobs=2)
    assert ran(engine) == {"quantize:m/v002", *CLOSING}
    assert engine.is_right()


def test_an_altered_output_is_never_read_by_what_comes_after_it(built: Quantbuild) -> None:
    """float32.tflite is what every variant is made of."""
    flip(built.root / "build/m/float32.tflite")
    built.set_parameter("v000", 77)
    built.build_well(jobs=2)
    assert "convert:m" in built.last_run()["restored"]
    assert built.is_right()


def test_an_artifact_that_is_altered_while_the_build_runs_spoils_neither_what_follows_nor_the_cache(
    engine: Quantbuild,
) -> None:
    engine.fault("v000", "read")
    process = engine.start()
    engine.wait_until_held("v000", process)
    flip(engine.root / "build/m/float32.tflite")
    engine.release("v000")
    run = engine.ended(process)
    assert run.code == 1
    assert "build/m/float32.tflite was edited during the build; run it again" in run.output
    engine.no_faults()
    engine.build_well()
    assert engine.is_right()
    clone = engine.clone()
    clone.build_well()
    assert clone.is_right()


def test_an_artifact_that_is_altered_before_it_is_published_is_not_published(engine: Quantbuild) -> None:
    engine.fault("v004", "read")
    process = engine.start()
    engine.wait_until_held("v004", process)
    flip(engine.artifact("v000"))
    engine.release("v004")
    assert engine.ended(process).code == 1
    engine.no_faults()
    engine.build_well()
    assert engine.is_right()


def test_kill_9_with_two_at_once_repeats_those_in_flight_alone(engine: Quantbuild) -> None:
    engine.fault("v003", "half")
    process = engine.start(jobs=2)
    engine.wait_until_held("v003", process)
    kill(process)
    engine.no_faults()
    before = engine.executions()
    engine.build_well(jobs=2)
    again = [name for name, count in (engine.executions() - before).items() if before[name] + count > 1]
    assert "v003" in again
    assert len(again) <= 2
    assert engine.is_right()


def test_a_worker_that_dies_is_told_and_its_step_alone_is_made_anew(engine: Quantbuild) -> None:
    engine.fault("v001", "worker")
    run = engine.build(jobs=2)
    assert run.code == 1
    assert "quantize:m/v001  failed: its worker was ended by signal 9" in run.output
    assert engine.wrong_artifacts() == ["v001"]
    engine.no_faults()
    engine.build_well(jobs=2)
    assert ran(engine) == {"quantize:m/v001", *CLOSING}


def test_two_builds_at_once_both_succeed_and_nothing_is_done_twice(engine: Quantbuild) -> None:
    for name in engine.parameters:
        engine.fault(name, "slow")
    runs = [engine.ended(process) for process in [engine.start(jobs=2) for _ in range(2)]]
    assert [run.code for run in runs] == [0, 0]
    assert set(engine.executions().values()) == {1}


def test_two_workspaces_with_one_cache_leave_the_same_bytes_and_do_each_action_once(engine: Quantbuild) -> None:
    other = engine.clone()
    for name in engine.parameters:
        engine.fault(name, "slow")
    runs = [one.ended(process) for one, process in [(one, one.start(jobs=2)) for one in (engine, other)]]
    assert [run.code for run in runs] == [0, 0]
    assert set(engine.executions().values()) == {1}
    assert published(engine) == published(other)


def published(engine: Quantbuild) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (engine.root / "dist").rglob("*") if path.is_file()}


def test_an_input_edited_and_put_back_while_it_is_worked_on_is_noticed(engine: Quantbuild) -> None:
    engine.fault("v000", "read")
    process = engine.start()
    engine.wait_until_held("v000", process)
    before, status = engine.set.read_bytes(), engine.set.stat()
    engine.set.write_bytes(b"samples 1" * 40)
    engine.set.write_bytes(before)
    os.utime(engine.set, ns=(status.st_atime_ns, status.st_mtime_ns))
    engine.release("v000")
    run = engine.ended(process)
    assert run.code == 1
    assert "quantize:m/v000  failed: one of its inputs was edited while it ran; run the build again" in run.output
    assert not engine.artifact("v000").exists()
    engine.no_faults()
    engine.build_well()
    assert engine.is_right()


LOST = {
    "database": ["build/.state/doit.db"],
    "digests": ["build/.state/digests.msgpack"],
    "snapshot": ["build/.state/standing.msgpack"],
    "state": ["build/.state"],
    "everything-built": ["build"],
    "everything": ["build", "dist"],
}


@pytest.mark.parametrize("lost", LOST.values(), ids=LOST)
def test_what_is_lost_is_not_executed_again(built: Quantbuild, lost: list[str]) -> None:
    for path in lost:
        full = built.root / path
        shutil.rmtree(full) if full.is_dir() else full.unlink()
    built.build_well(jobs=2)
    assert ran(built) == set()
    assert built.is_right()


def test_lost_records_are_not_executed_again(built: Quantbuild) -> None:
    for path in (built.root / "build").rglob("*.record.json"):
        path.unlink()
    built.build_well(jobs=2)
    assert ran(built) == set()


def test_a_lost_cache_costs_nothing_while_what_was_built_stands(built: Quantbuild) -> None:
    shutil.rmtree(built.cache)
    built.build_well(jobs=2)
    assert "restored" not in built.last_run()
    assert ran(built) == set()


def test_a_fresh_clone_measures_its_own_device_alone(tmp_path: Path) -> None:
    """The local cache is this machine's own, so the device is the same one: nothing at all is executed."""
    tool = Quantbuild.find()
    assert tool is not None
    engine = Quantbuild(tmp_path / "workspace", tool)
    engine.prepare(FEW, benchmarks=2)
    engine.build_well(jobs=2)
    clone = engine.clone()
    clone.build_well(jobs=2)
    assert clone.last_run().keys() == {"restored"}
    assert not (engine.control / "device.shared").exists()


def test_a_set_that_all_variants_share_is_hashed_once(tmp_path: Path) -> None:
    tool = Quantbuild.find()
    assert tool is not None
    engine = Quantbuild(tmp_path / "workspace", tool)
    engine.prepare(20)
    with counted_opens(engine.set) as opens:
        engine.build_well(jobs=2)
    assert opens[0] == 20 + 1  # each stage reads it, and one look gives its digest


@pytest.mark.parametrize("change", ["edited", "added", "renamed", "removed"])
def test_a_folder_as_input_is_its_names_and_contents(tmp_path: Path, change: str) -> None:
    tool = Quantbuild.find()
    assert tool is not None
    engine = Quantbuild(tmp_path / "workspace", tool)
    engine.prepare(2, folder=True)
    notes = engine.model.parent / "deep" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("one")
    engine.build_well()
    notes.touch()
    notes.parent.touch()
    engine.build_well()
    assert engine.last_run().keys() == {"up_to_date"}
    if change == "edited":
        notes.write_text("two")
    elif change == "added":
        notes.with_name("more.txt").write_text("one")
    elif change == "renamed":
        notes.rename(notes.with_name("other.txt"))
    else:
        notes.unlink()
    engine.build_well()
    assert "convert:m" in ran(engine)


def test_an_edit_that_keeps_size_and_mtime_reaches_every_artifact(built: Quantbuild) -> None:
    status = built.model.stat()
    built.model.write_bytes(model_bytes(1))
    assert built.model.stat().st_size == status.st_size
    os.utime(built.model, ns=(status.st_atime_ns, status.st_mtime_ns))
    built.build_well(jobs=2)
    assert built.is_right()


def test_a_function_named_like_a_task_of_doits_becomes_none(built: Quantbuild) -> None:
    before = listed(built)
    (built.root / "my_metric.py").write_text("def task_boom():\n    return {'actions': ['false']}\n")
    built.manifest.write_text(
        built.manifest.read_text()
        + '[dataset.own]\nloader = "python"\npath = "my_metric:task_boom"\ninputs = ["data.npz"]\n'
    )
    assert listed(built) == before


def listed(engine: Quantbuild) -> list[str]:
    command = [*engine.tool.program, "list", "--all", "--quiet"]
    done = subprocess.run(command, cwd=engine.root, env=engine.environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_value_that_one_step_hands_to_another_is_never_stale(built: Quantbuild) -> None:
    """The check's verdicts enter the lock; they are values in a record, not files."""
    gate = "[model.m.gate]\nmax_size_ratio = {}\n"
    without = built.manifest.read_text()
    for limit, verdict, code in ((5.0, "pass", 0), (0.01, "fail", 1), (5.0, "pass", 0)):
        built.manifest.write_text(without + gate.format(limit))
        run: Run = built.build(target="check", jobs=2)
        assert run.code == code, run.output
        lock = (built.root / "dist/quantbuild.lock.json").read_text()
        assert lock.count(f'"verdict": "{verdict}"') == FEW
