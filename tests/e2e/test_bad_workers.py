"""A worker that hangs, dies or is ended because memory ran out costs its step alone, and is told in one line."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace import MANIFEST, Workspace, processes_in, worker_hook, write_light

from quantbuild.system_memory import resident_bytes

# What happens in the worker that evaluates m/a, once.
HAPPENS = """
import ctypes, os, pathlib, resource, signal, time
import quantbuild.actions.evaluate as evaluate
done = evaluate.run
def run(job):
    once = pathlib.Path(job.root, "happens")
    if job.step != "evaluate:m/a" or not once.exists():
        return done(job)
    what = once.read_text()
    once.unlink()
    if what == "hangs":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(600)
    if what == "hangs in C":
        ctypes.PyDLL(None).sleep(600)  # and lets no other thread of the process run
    if what == "dies":
        os.kill(os.getpid(), signal.SIGABRT)
    if what == "is ended":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "gets no memory":
        resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
        bytearray(2 * 10**9)
    if what == "takes all memory":
        pathlib.Path(os.environ["FEW_MEMORY"], "cgroup.procs").write_text(str(os.getpid()))
        held = []
        for _ in range(2000):  # nobody ended it: the test fails, and the machine goes on
            held.append(bytearray(os.urandom(1 << 20)))
evaluate.run = run
"""
MOST_BYTES = 200 * 2**20
LIMITS = {"memory.limit_in_bytes": "/sys/fs/cgroup/memory", "memory.max": "/sys/fs/cgroup"}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = write_light(tmp_path / "light", MANIFEST)
    made.environment["PYTHONPATH"] = worker_hook(tmp_path / "hook", HAPPENS)
    return made


def assert_costs_that_step_alone(workspace: Workspace, what: str, said: str) -> None:
    (workspace.root / "happens").write_text(what)
    output = workspace.doit("report", code=1)
    (line,) = [line.strip() for line in output.splitlines() if "failed: " in line]
    assert line.startswith(f"evaluate:m/a  failed: {said}")
    assert workspace.steps("failed") == {"evaluate:m/a"}
    assert workspace.steps("executed") >= {"evaluate:m/b", "check", "dist", "report"}
    assert not (workspace.root / "build/m/a/evaluation.json").exists()
    assert not list((workspace.root / "build/.scratch").glob("*"))
    assert processes_in(workspace) == []
    workspace.doit("report")
    assert workspace.steps("executed") == {"evaluate:m/a", "check", "dist", "report"}


@pytest.mark.parametrize("what", ["hangs", "hangs in C"])
def test_a_hang_is_ended_at_the_timeout(workspace: Workspace, what: str) -> None:
    workspace.environment["QUANTBUILD_STEP_TIMEOUT"] = "5"
    said = "no result after 5 s, its worker was stopped; see its log, or set QUANTBUILD_STEP_TIMEOUT to more seconds"
    assert_costs_that_step_alone(workspace, what, said)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("dies", "its worker was ended by signal 6 (SIGABRT); the other steps go on; see its log"),
        ("is ended", "its worker was ended by signal 9 (SIGKILL, often the sign that memory ran out); "),
        ("gets no memory", "out of memory; close other programs or use fewer samples"),
    ],
)
def test_a_death_is_told(workspace: Workspace, what: str, said: str) -> None:
    assert_costs_that_step_alone(workspace, what, said)


@pytest.fixture
def few_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder as of a control group: the processes named in its cgroup.procs end when they hold more than 200 MB.

    The kernel ends them where this system lets us make a control group; elsewhere a thread does, as a guard against
    full memory (earlyoom, systemd-oomd) would.
    """
    group = control_group()
    if group is not None:
        yield group
        group.rmdir()
        return
    over = threading.Event()
    guard = threading.Thread(target=end_who_holds_too_much, args=(tmp_path / "cgroup.procs", over))
    guard.start()
    yield tmp_path
    over.set()
    guard.join()


def control_group() -> Path | None:
    """Make a control group with a limit on its memory; None where this system lets us make none."""
    for limit, place in LIMITS.items():
        group = Path(place) / f"quantbuild-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(MOST_BYTES))
            except OSError:
                group.rmdir()
                continue
            with contextlib.suppress(OSError):  # where there is no swap there is no such limit
                (group / "memory.swap.max").write_text("0")
            return group
    return None


def end_who_holds_too_much(processes: Path, over: threading.Event) -> None:
    """End the process that a file names when it holds more than it may, until `over` is set."""
    while not over.wait(0.01):
        with contextlib.suppress(OSError, ValueError):  # it is not named yet, or has ended
            pid = int(processes.read_text())
            if resident_bytes(pid) > MOST_BYTES:
                os.kill(pid, signal.SIGKILL)


def test_memory_that_ran_out_is_told_as_the_kernel_tells_it(workspace: Workspace, few_memory: Path) -> None:
    workspace.environment["FEW_MEMORY"] = str(few_memory)
    assert_costs_that_step_alone(workspace, "takes all memory", "its worker was ended by signal 9 (SIGKILL, often the")


def test_a_timeout_that_is_none_is_a_usage_error(workspace: Workspace) -> None:
    workspace.environment["QUANTBUILD_STEP_TIMEOUT"] = "soon"
    assert workspace.doit("report", code=2) == (
        'QUANTBUILD_STEP_TIMEOUT: "soon" is no number of seconds above 0; write one, or unset it\n'
    )
