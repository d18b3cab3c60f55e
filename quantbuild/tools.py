"""What of this machine enters a key: versions of tools and, where results depend on it, the CPU's instruction set."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
from pathlib import Path

# The sets that XNNPACK and Eigen choose kernels by; two machines that agree on these compute the same bytes.
KERNEL_FEATURES = frozenset(
    ("avx", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "f16c", "fma", "asimddp", "fphp", "i8mm", "sve")
)


@functools.cache
def version(distribution: str) -> str:
    """Return an installed distribution's version without importing it; "absent" where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the versions of `distributions` and of Python."""
    return {"python": platform.python_version()} | {name: version(name) for name in distributions}


@functools.cache
def cpu() -> dict[str, str]:
    """Return the CPU's architecture and those of its features that kernels are chosen by."""
    return {"architecture": platform.machine(), "features": " ".join(sorted(_flags() & KERNEL_FEATURES))}


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(value.split())
    return set()
