"""Benchmarks of two workspaces on one machine: never at the same time, whatever becomes of the one that measures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from workspace import DEVICE, MANIFEST, Workspace, write_light

SLOW = DEVICE.replace("processes = 1", "processes = 2").replace("\nseconds = 0.0", "\nseconds = 1.0")
WAITS = "device host: another build (pid {pid}) measures there; waiting for it"


def measuring() -> set[str]:
    """Return the folders of the workspaces in which a process measures just now."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"host_process.py" in (process / "cmdline").read_bytes():
                found.add((process / "cwd").readlink().name)
        except OSError:
            continue  # it ended meanwhile
    return found


class Watch(threading.Thread):
    """Looks again and again who measures."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(daemon=True)
        self._names = names
        self._ended = threading.Event()
        self.seen: list[set[str]] = []

    def run(self) -> None:
        while not self._ended.is_set():
            found = measuring() & self._names
            if found and (not self.seen or self.seen[-1] != found):
                self.seen.append(found)
            time.sleep(0.01)

    def end(self) -> list[set[str]]:
        self._ended.set()
        self.join(timeout=30)
        return self.seen


@pytest.fixture
def two(tmp_path: Path) -> list[Workspace]:
    """Two workspaces of one user, in which all but the benchmarks is done."""
    found = []
    for number in (1, 2):
        workspace = write_light(tmp_path / f"one-device-{tmp_path.name}-{number}", MANIFEST + SLOW)
        workspace.doit("check")
        found.append(workspace)
    return found


@pytest.fixture
def watch(two: list[Workspace]) -> Iterator[Watch]:
    made = Watch({workspace.root.name for workspace in two})
    made.start()
    yield made
    made.end()


def wait_until_measuring(workspace: Workspace) -> None:
    deadline = time.monotonic() + 60
    while workspace.root.name not in measuring():
        assert time.monotonic() < deadline, "no benchmark began"
        time.sleep(0.02)


def test_two_workspaces_never_measure_at_once(two: list[Workspace], watch: Watch) -> None:
    first = two[0].start("benchmark:m/a@host")
    wait_until_measuring(two[0])
    second = two[1].start("benchmark:m/float32@host")
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert outputs[1].count(WAITS.format(pid=first.pid)) == 1
    assert outputs[1].count("waiting for it") == 1
    assert "waiting for it" not in outputs[0]
    assert watch.end() == [{two[0].root.name}, {two[1].root.name}]


def test_a_killed_build_lets_the_other_go_on(two: list[Workspace], watch: Watch) -> None:
    first = two[0].start("benchmark:m/a@host")
    wait_until_measuring(two[0])
    second = two[1].start("benchmark:m/float32@host")
    assert second.stdout is not None
    assert WAITS.format(pid=first.pid) in second.stdout.readline()
    first.kill()
    output, _ = second.communicate(timeout=300)
    first.communicate()
    assert second.returncode == 0, output
    assert "1 executed" in output
