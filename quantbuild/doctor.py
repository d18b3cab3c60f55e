"""`quantbuild doctor`: what this machine and this workspace have, and what to install for what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from quantbuild import __version__
from quantbuild.cache.store import TOKEN_VARIABLE, local_folder
from quantbuild.machine import processors
from quantbuild.manifest.definitions import Cache, Workspace
from quantbuild.tools import cpu, version

NEEDED = (
    "tensorflow",
    "keras",
    "ai-edge-litert",
    "litert-quantizer",
    "flatbuffers",
    "numpy",
    "doit",
    "msgspec",
    "jinja2",
    "rich",
    "urllib3",
)
_ABSENT = "absent"
_DEEP = "from quantbuild.tflite import capabilities; capabilities.mlir_quantize(); print('ok')"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the doctor's: what was looked at, what is there, and what to do where something is missing."""

    part: str
    name: str
    value: str
    problem: str | None = None


def examine(root: Path, workspace: Workspace | None, *, deep: bool) -> list[Finding]:
    """Return what is there. TensorFlow is not imported, unless `deep` tries in another process what quantbuild uses."""
    return [
        *_tools(),
        *([_private_functions()] if deep else []),
        *_machine(root),
        *_cache(root, workspace.cache if workspace is not None else Cache()),
        *(_devices(workspace) if workspace is not None else ()),
    ]


def _tools() -> list[Finding]:
    found = [
        Finding(part="tools", name="python", value=platform.python_version()),
        Finding(part="tools", name="quantbuild", value=__version__),
    ]
    for name in NEEDED:
        value = version(name)
        problem = f"pip install {name}" if value == _ABSENT else None
        found.append(Finding(part="tools", name=name, value=value, problem=problem))
    return found


def _private_functions() -> Finding:
    """Try the functions of TensorFlow's that are not public, in a process of its own."""
    done = subprocess.run([sys.executable, "-P", "-c", _DEEP], capture_output=True, text=True, check=False)
    name = "mlir_quantize"
    if done.returncode == 0:
        return Finding(part="tools", name=name, value="usable")
    last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
    return Finding(part="tools", name=name, value="not usable", problem=last.partition(": ")[2] or last)


def _machine(root: Path) -> list[Finding]:
    facts = cpu()
    return [
        Finding(part="machine", name="cpu", value=f"{facts['architecture']} {facts['features']}".strip()),
        Finding(part="machine", name="processors", value=str(processors())),
        Finding(part="machine", name="memory", value=_memory()),
        Finding(part="machine", name="disk here", value=_free(root)),
    ]


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "not measured"
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.split()[1:]}
    return f"{_gibibytes(kilobytes['MemAvailable'] * 1024)} of {_gibibytes(kilobytes['MemTotal'] * 1024)} available"


def _free(folder: Path) -> str:
    while not folder.exists():
        folder = folder.parent
    return f"{_gibibytes(shutil.disk_usage(folder).free)} free"


def _gibibytes(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"


def _cache(root: Path, settings: Cache) -> list[Finding]:
    folder = local_folder(root, settings.directory)
    place = folder
    while not place.exists():
        place = place.parent
    writable = os.access(place, os.W_OK)
    problem = None if writable else "results cannot be kept there; set [workspace] cache.directory"
    token = "set" if os.environ.get(TOKEN_VARIABLE) else "not set"
    upload = "uploads" if settings.upload else "reads only"
    return [
        Finding(part="cache", name="folder", value=f"{folder} ({_free(folder)})", problem=problem),
        Finding(part="cache", name="server", value=f"{settings.remote} ({upload})" if settings.remote else "none"),
        Finding(part="cache", name=TOKEN_VARIABLE, value=token),
    ]


def _devices(workspace: Workspace) -> list[Finding]:
    import importlib

    found = []
    for device in workspace.devices.values():
        runner = importlib.import_module(f"quantbuild.runners.{device.runner}")
        facts = runner.fingerprint(device.options)
        value = f"{device.runner}: " + ", ".join(f"{name} {fact}" for name, fact in sorted(facts.items()))
        found.append(Finding(part="devices", name=device.name, value=value))
    return found
