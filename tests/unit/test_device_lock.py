"""A device's lock: one holder among real processes, let go however the holder ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from quantbuild import device_lock

HOLDER = """
import sys, time
from quantbuild.device_lock import hold
say = lambda *words: print(*words, flush=True)
with hold("phone 1", waiting=lambda pid: say("waits", pid), without=lambda why: say("without", why)):
    say("holds")
    sys.stdin.readline()
say("done")
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def holder() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=30)


def test_a_second_process_waits_and_is_told_for_whom() -> None:
    first = holder()
    assert said(first) == "holds"
    second = holder()
    assert said(second) == f"waits {first.pid}"
    end(first)
    assert said(second) == "holds"
    end(second)


def test_a_killed_holder_lets_go() -> None:
    first = holder()
    assert said(first) == "holds"
    second = holder()
    assert said(second).startswith("waits ")
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=30)
    assert said(second) == "holds"
    end(second)


def test_what_a_holder_has_started_does_not_hold_the_lock() -> None:
    with device_lock.hold("phone 1", waiting=pytest.fail, without=pytest.fail):
        child = subprocess.Popen(["sleep", "600"])
    try:
        other = holder()
        assert said(other) == "holds"
        end(other)
    finally:
        child.kill()
        child.wait()


def test_threads_of_one_process_take_turns_without_a_word() -> None:
    inside, most = 0, 0

    def measure() -> None:
        nonlocal inside, most
        for _ in range(10):
            with device_lock.hold("phone 1", waiting=pytest.fail, without=pytest.fail):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert most == 1


def test_another_device_is_free() -> None:
    first = holder()
    assert said(first) == "holds"
    with device_lock.hold("phone 2", waiting=pytest.fail, without=pytest.fail):
        pass
    end(first)


def test_where_no_lock_can_be_kept_it_is_said_and_goes_on(home: Path) -> None:
    home.write_text("a file, so that no folder can be made")
    told: list[str] = []
    with device_lock.hold("phone 1", waiting=pytest.fail, without=told.append):
        pass
    assert len(told) == 1
    assert str(os.getpid()) not in told[0]
