"""Worker processes: one step at a time; a death, hang or error costs that step alone."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantbuild.errors import MachineError, StepError, UsageError
from quantbuild.step import Job
from quantbuild.workers import WorkerPool, step_timeout

TRIAL_ACTION = """
import errno, os, signal, subprocess, sys, time
from quantbuild.errors import StepError

def run(job):
    what = job.parameters["do"]
    print("said", what)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "hang":
        time.sleep(600)
    if what == "memory":
        raise MemoryError
    if what == "user":
        raise StepError("the model is not a model; give a model")
    if what == "bug":
        raise ZeroDivisionError("one over nothing")
    if what == "exit":
        os._exit(7)
    if what == "slow exit":
        os.close(int(sys.argv[1]))
        time.sleep(0.3)
        os._exit(7)
    if what == "full":
        raise OSError(errno.ENOSPC, "No space left on device", "out.bin")
    if what == "full log":
        for descriptor in (1, 2):
            os.dup2(os.open("/dev/full", os.O_WRONLY), descriptor)
        raise OSError(errno.ENOSPC, "No space left on device")
    if what == "orphan":
        if os.fork() == 0:
            time.sleep(600)  # with the pipe that replies go into still open
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "child":
        subprocess.Popen(["sleep", "600"])
        print("started")
        sys.stdout.flush()
        time.sleep(600)
    return {"pid": os.getpid()}
"""


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """A pool whose workers find an action of the test's own."""
    import quantbuild.actions

    extra = tmp_path / "more_actions"
    extra.mkdir()
    (extra / "trial.py").write_text(TRIAL_ACTION)
    (tmp_path / "sitecustomize.py").write_text(
        f"import quantbuild.actions\nquantbuild.actions.__path__.append({str(extra)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert quantbuild.actions
    made = WorkerPool(tmp_path, {"light": 2, "litert": 1, "tensorflow": 1})
    yield made
    made.close()


def job(tmp_path: Path, do: str) -> Job:
    root = str(tmp_path)
    return Job(step="trial:m", action="trial", parameters={"do": do}, inputs={}, outputs={}, root=root, scratch=root)


def run(pool: WorkerPool, tmp_path: Path, do: str, timeout_seconds: float = 60) -> dict[str, object]:
    return pool.run("light", job(tmp_path, do), tmp_path / "step.log", timeout_seconds=timeout_seconds)


def test_a_worker_is_reused(pool: WorkerPool, tmp_path: Path) -> None:
    assert run(pool, tmp_path, "fine") == run(pool, tmp_path, "fine")
    assert pool.started["light"] == 1


def test_what_an_action_prints_goes_to_its_log(pool: WorkerPool, tmp_path: Path) -> None:
    run(pool, tmp_path, "fine")
    assert (tmp_path / "step.log").read_text() == "said fine\n"


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ("kill", "trial:m: its worker was ended by signal 11 (SIGSEGV)"),
        ("exit", "trial:m: its worker ended by itself with exit code 7"),
        ("slow exit", "trial:m: its worker ended by itself with exit code 7"),
        ("full", "trial:m: No space left on device: out.bin; make room and build again"),
        ("full log", "trial:m: No space left on device; make room and build again"),
        ("user", "trial:m: the model is not a model; give a model"),
        ("bug", "trial:m: ZeroDivisionError: one over nothing; see its log"),
    ],
)
def test_a_failure_is_one_line_and_the_next_step_runs(pool: WorkerPool, tmp_path: Path, do: str, message: str) -> None:
    with pytest.raises(StepError) as caught:
        run(pool, tmp_path, do)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert run(pool, tmp_path, "fine")


@pytest.mark.parametrize(
    ("do", "by_machine"),
    [
        ("hang", True),
        ("orphan", True),
        ("full", True),
        ("memory", True),
        ("kill", False),
        ("user", False),
        ("bug", False),
    ],
)
def test_what_the_machine_and_not_the_step_is_to_blame_for_is_told_apart(
    pool: WorkerPool, tmp_path: Path, do: str, by_machine: bool
) -> None:
    with pytest.raises(StepError) as caught:
        run(pool, tmp_path, do, timeout_seconds=1 if do == "hang" else 60)
    assert isinstance(caught.value, MachineError) == by_machine


def test_a_hang_is_ended_at_its_timeout(pool: WorkerPool, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="no result after 1 s"):
        run(pool, tmp_path, "hang", timeout_seconds=1)
    assert run(pool, tmp_path, "fine")


def test_the_death_of_a_worker_is_noticed_though_what_it_forked_lives_on(pool: WorkerPool, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StepError, match="SIGKILL"):
        run(pool, tmp_path, "orphan")
    assert time.monotonic() - began < 50
    assert run(pool, tmp_path, "fine")


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_no_number_of_seconds_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"QUANTBUILD_STEP_TIMEOUT: .* is no number of seconds above 0; "):
        step_timeout({"QUANTBUILD_STEP_TIMEOUT": text})


def test_a_step_may_take_an_hour_or_as_long_as_is_said() -> None:
    assert step_timeout({}) == step_timeout({"QUANTBUILD_STEP_TIMEOUT": ""}) == 3600.0
    assert step_timeout({"QUANTBUILD_STEP_TIMEOUT": "90000"}) == 90000.0


def test_closing_the_pool_ends_a_busy_worker(pool: WorkerPool, tmp_path: Path) -> None:
    caught: list[str] = []

    def hang() -> None:
        try:
            run(pool, tmp_path, "hang")
        except StepError as error:
            caught.append(str(error))

    thread = threading.Thread(target=hang)
    thread.start()
    while "said hang" not in ((tmp_path / "step.log").read_text() if (tmp_path / "step.log").exists() else ""):
        time.sleep(0.02)
    pool.close()
    thread.join(timeout=30)
    assert caught
    assert "SIGKILL" in caught[0]


def test_a_worker_and_what_it_started_end_when_its_parent_is_killed(pool: WorkerPool, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys, threading
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_workers import job
        from quantbuild.workers import WorkerPool
        root = Path({str(tmp_path)!r})
        pool = WorkerPool(root, {{"light": 1}})
        print(pool.run("light", job(root, "fine"), root / "a.log")["pid"], flush=True)
        pool.run("light", job(root, "child"), root / "b.log")
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    while "started" not in ((tmp_path / "b.log").read_text() if (tmp_path / "b.log").exists() else ""):
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(worker, 0)  # the worker leads a group of its own
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the worker, or what it started, outlived its parent")
