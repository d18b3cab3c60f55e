"""How much memory the system has left, and what a process takes of it. None or 0 where there is no /proc to tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
# Of a cgroup: its limit, what it uses, and of that the files that the kernel drops as soon as memory is wanted.
# https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
_FILES_V2 = ("memory.max", "memory.current", "inactive_file")
_FILES_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_RESET_PEAK = "5"


def free_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Return what this process could still take without swapping: the machine's, or less where a cgroup limits it.

    None where /proc/meminfo does not tell (macOS).
    """
    available = _fields(proc / "meminfo").get("MemAvailable")
    return None if available is None else min((available, *_free_in_cgroups(proc, cgroups)))


def total_bytes(proc: Path = PROC) -> int | None:
    """Return the machine's memory, None where /proc/meminfo does not tell."""
    return _fields(proc / "meminfo").get("MemTotal")


def resident_bytes(pid: int | None = None, proc: Path = PROC) -> int:
    """Return what a process (None: this one) holds; 0 where /proc does not tell, or where it has ended."""
    try:
        pages = int((proc / str(pid or "self") / "statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def begin_peak(proc: Path = PROC) -> None:
    """Let this process's peak be counted from now. Where that is refused, it stays the peak of its life."""
    with contextlib.suppress(OSError):
        (proc / "self" / "clear_refs").write_text(_RESET_PEAK)


def peak_bytes(proc: Path = PROC) -> int | None:
    """Return the most that this process held since `begin_peak`; None where /proc does not tell."""
    return _fields(proc / "self" / "status").get("VmHWM")


def _fields(path: Path) -> dict[str, int]:
    """Return the fields of a file of lines `Name:  123 kB`, in bytes; empty where it cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {w[0].removesuffix(":"): int(w[1]) * 1024 for w in words if len(w) == 3 and w[2] == "kB"}


def _free_in_cgroups(proc: Path, cgroups: Path) -> Iterator[int]:
    """Yield what is left below each limit that holds for this process: of its cgroup and of all that this one is in."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = cgroups / "memory" if controllers else cgroups
        group = top / path.lstrip("/")
        # In a container the path may be the host's, which is not there: the limits are then at the top.
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _free_in(folder, *(_FILES_V1 if controllers else _FILES_V2))


def _free_in(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    try:
        most = int((folder / limit).read_text())
        used = int((folder / usage).read_text())
        statistics = dict(line.split(maxsplit=1) for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no limit: the file is not there, or says "max"
        return
    yield max(0, most - used + int(statistics.get(reclaimable, 0)))
