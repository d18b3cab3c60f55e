"""A worker that hangs, dies or is ended because memory ran out costs its step alone, and is told in one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MANIFEST, Workspace, processes_in, worker_hook, write_light

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
        while True:
            held.append(bytearray(os.urandom(1 << 20)))
evaluate.run = run
"""
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
def few_memory() -> Iterator[Path]:
    """A control group whose processes the kernel ends when they hold more than 200 MB."""
    for limit, place in LIMITS.items():
        group = Path(place) / f"quantbuild-test-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            try:
                (group / limit).write_text(str(200 * 2**20))
                with contextlib.suppress(OSError):  # where there is no swap there is no such limit
                    (group / "memory.swap.max").write_text("0")
                yield group
                return
            finally:
                group.rmdir()
    pytest.skip("this system lets nobody make a control group")


def test_memory_that_ran_out_is_told_as_the_kernel_tells_it(workspace: Workspace, few_memory: Path) -> None:
    workspace.environment["FEW_MEMORY"] = str(few_memory)
    assert_costs_that_step_alone(workspace, "takes all memory", "its worker was ended by signal 9 (SIGKILL, often the")


def test_a_timeout_that_is_none_is_a_usage_error(workspace: Workspace) -> None:
    workspace.environment["QUANTBUILD_STEP_TIMEOUT"] = "soon"
    assert workspace.doit("report", code=2) == (
        'QUANTBUILD_STEP_TIMEOUT: "soon" is no number of seconds above 0; write one, or unset it\n'
    )
