"""What the system has left: /proc/meminfo, and every cgroup limit that holds for this process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from quantbuild import system_memory
from quantbuild.system_memory import free_bytes, resident_bytes, total_bytes

KB = 1024
MEMINFO = "MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  5000 kB\nHugePages_Total:  0\n"


class System:
    """Folders that stand for /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path, own_cgroup: str) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text(MEMINFO)
        (self.proc / "self" / "cgroup").write_text(own_cgroup)

    def limit(self, folder: str, limit: str, used: int, inactive: int, *, first: bool = False) -> None:
        place = self.cgroups / folder
        place.mkdir(parents=True, exist_ok=True)
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
        (place / names[0]).write_text(f"{limit}\n")
        (place / names[1]).write_text(f"{used}\n")
        field = "total_inactive_file" if first else "inactive_file"
        (place / "memory.stat").write_text(f"anon 1\n{field} {inactive}\n")

    def free(self) -> int | None:
        return free_bytes(self.proc, self.cgroups)


def test_without_a_limit_it_is_what_the_machine_has_left(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/user\n")
    system.limit("user", "max", 10, 10)
    assert system.free() == 5000 * KB
    assert total_bytes(system.proc) == 8000 * KB


def test_the_limit_of_the_own_cgroup_counts_less_what_can_be_dropped(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/user/build\n")
    system.limit("user/build", str(3000 * KB), 2000 * KB, 500 * KB)
    assert system.free() == 1500 * KB


def test_the_tightest_of_all_cgroups_around_counts(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/user/build\n")
    system.limit("user/build", str(3000 * KB), 0, 0)
    system.limit("user", str(1000 * KB), 200 * KB, 0)
    system.limit("", str(4000 * KB), 0, 0)
    assert system.free() == 800 * KB


def test_a_limit_that_is_passed_leaves_nothing(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/\n")
    system.limit("", "1000", 2000, 0)
    assert system.free() == 0


def test_in_a_container_the_limit_is_at_the_top(tmp_path: Path) -> None:
    system = System(tmp_path, "0::/docker/0123abc\n")
    system.limit("", str(700 * KB), 0, 0)
    assert system.free() == 700 * KB


def test_version_1_of_cgroups(tmp_path: Path) -> None:
    system = System(tmp_path, "5:cpu,cpuacct:/b\n4:memory:/b\n0::/b\n")
    system.limit("memory/b", str(900 * KB), 500 * KB, 100 * KB, first=True)
    system.limit("memory", "9223372036854771712", 500 * KB, 0, first=True)
    assert system.free() == 500 * KB


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert free_bytes(tmp_path, tmp_path) is None
    assert total_bytes(tmp_path) is None
    assert resident_bytes(proc=tmp_path) == 0
    assert system_memory.peak_bytes(tmp_path) is None
    system_memory.begin_peak(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_this_machine_tells() -> None:
    free, total = free_bytes(), total_bytes()
    assert free is not None
    assert total is not None
    assert 0 <= free <= total
    peak = system_memory.peak_bytes()
    assert peak is not None
    assert 10**6 < resident_bytes() <= 1.1 * peak
