"""Builds at the same time: one in a workspace, one of each action among workspaces; a killed one holds no lock."""

from __future__ import annotations

import fcntl
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace import Workspace, started

KILLS = [signal.SIGKILL, signal.SIGTERM]


@pytest.fixture
def twin(slow: Workspace, tmp_path: Path) -> Workspace:
    """Another workspace with the same inputs and the same cache."""
    other = slow.copied(tmp_path / "twin")
    other.environment = slow.environment
    return other


@pytest.mark.parametrize("number", KILLS)
def test_a_build_that_waits_goes_on_when_the_other_is_killed(slow: Workspace, number: signal.Signals) -> None:
    first = started(slow, "check")
    second = slow.start("check")
    assert second.stdout is not None
    assert "waiting for it" in second.stdout.readline()
    first.send_signal(number)
    first.communicate(timeout=60)
    (slow.root / "go").touch()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 0, output
    assert "failed: " not in output
    assert {"evaluate:m/float32", "evaluate:m/a", "check", "dist"} <= slow.steps("executed")
    slow.doit("check")
    assert slow.last_run()["executed"] == 0


def test_a_lock_that_a_killed_build_left_is_no_lock(slow: Workspace) -> None:
    first = started(slow, "check")
    first.kill()
    first.communicate(timeout=60)
    assert (slow.root / "build/.state/lock").read_text() == str(first.pid)
    (slow.root / "go").touch()
    assert "another build" not in slow.doit("check")


def test_two_identical_builds_at_once_do_each_action_once(slow: Workspace, twin: Workspace) -> None:
    builds = [workspace.start("check") for workspace in (slow, twin)]
    for workspace in (slow, twin):
        (workspace.root / "go").touch()
    for build in builds:
        output, _ = build.communicate(timeout=120)
        assert build.returncode == 0, output
    # dist is never restored from a cache alone: publishing is done in each workspace.
    executed = [sorted(workspace.steps("executed") - {"dist"}) for workspace in (slow, twin)]
    assert sorted([*executed[0], *executed[1]]) == sorted({*executed[0], *executed[1]})
    assert {*executed[0], *executed[1]} == {*slow.steps("executed"), *slow.steps("restored")} - {"dist"}
    assert slow.files("dist") == twin.files("dist")


def holder(cache: Path) -> list[Path]:
    """Return the locks of keys that somebody holds."""
    held = []
    for path in (cache / "locks").iterdir():
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(path)
    return held


@pytest.fixture
def at_one_step(slow: Workspace, twin: Workspace) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """A build in the midst of an evaluation, and one in the other workspace that needs the very same."""
    first = started(slow, "-n", "1", "evaluate:m/float32")
    assert len(holder(Path(slow.environment["QUANTBUILD_CACHE_DIR"]))) == 1
    second = twin.start("-n", "1", "evaluate:m/float32")
    assert second.stdout is not None
    assert "convert:m  restored from the cache" in second.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)
    assert not (twin.root / "started").exists()
    yield first, second
    for process in (first, second):
        process.kill()
        process.communicate()


def test_who_needs_what_another_workspace_is_making_waits_and_takes_it(
    slow: Workspace, twin: Workspace, at_one_step: tuple[subprocess.Popen[str], subprocess.Popen[str]]
) -> None:
    (slow.root / "go").touch()
    for process in at_one_step:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output
    assert slow.steps("executed") == {"convert:m", "evaluate:m/float32"}
    assert twin.steps("restored") == {"convert:m", "evaluate:m/float32"}
    assert not (twin.root / "started").exists()


@pytest.mark.parametrize("number", KILLS)
def test_who_waits_for_what_a_killed_build_was_making_makes_it(
    twin: Workspace, at_one_step: tuple[subprocess.Popen[str], subprocess.Popen[str]], number: signal.Signals
) -> None:
    first, second = at_one_step
    (twin.root / "go").touch()
    first.send_signal(number)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    assert twin.steps("restored") == {"convert:m"}
    assert twin.steps("executed") == {"evaluate:m/float32"}
