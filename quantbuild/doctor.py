"""`quantbuild doctor`: what this machine and this workspace have, and what to install for what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import msgspec

from quantbuild import __version__
from quantbuild.cache.store import TOKEN_VARIABLE, local_folder
from quantbuild.errors import ManifestErrors, StepError
from quantbuild.machine import processors
from quantbuild.manifest.definitions import Cache, Device, Workspace
from quantbuild.manifest.loading import cache_of_environment, load
from quantbuild.memory import BOUND_VARIABLE
from quantbuild.runners.host import cpu_model
from quantbuild.steps import plug_in
from quantbuild.system_memory import free_bytes, total_bytes
from quantbuild.tools import cpu, version
from quantbuild.units import NOT_MEASURED, counted
from quantbuild.workers import WORKER_ENVIRONMENT

# Distribution to the least version, as pyproject.toml has it (a test compares them).
NEEDED = {
    "tensorflow": "2.21",
    "keras": "3",
    "ai-edge-litert": "2.3.0",
    "litert-quantizer": "0.11.0",
    "flatbuffers": "25",
    "numpy": "2.0",
    "scipy": "1.14",
    "pillow": "11",
    "soundfile": "0.13",
    "doit": "0.37",
    "msgspec": "0.20",
    "tomli": "2.3",
    "jinja2": "3.1",
    "rich": "13.7",
    "urllib3": "2.2",
}
OPTIONAL = {"tf_keras": "only for .h5 models that Keras 3 cannot read"}

_ABSENT = "absent"
_DEEP_SECONDS = 300
# What --deep tries, each in a process of its own: a broken library may end the process that imports it.
_DEEP = {
    "mlir_quantize": "from quantbuild.tflite import capabilities; capabilities.mlir_quantize()",
    "interpreter": "import ai_edge_litert.interpreter",
    "quantizer": "import litert_quantizer",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the doctor's: what was looked at, what is there, and what to do where something is missing."""

    part: str
    name: str
    value: str
    problem: str | None = None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All that was looked at, and what is wrong with the manifests, one line each."""

    findings: list[Finding]
    manifest_errors: list[str]


def diagnose(root: Path, *, deep: bool) -> Diagnosis:
    """Look at this machine and at `root`, which need be no workspace; imports no TensorFlow.

    `deep` tries, in other processes, the parts that quantbuild uses of TensorFlow and LiteRT.
    """
    workspace: Workspace | None = None
    errors: list[str] = []
    findings = [*_tools(), *(_deep() if deep else ()), *_machine(root)]
    try:
        workspace = load(root) if (root / "manifests").is_dir() else None
        findings += _cache(root, workspace.cache if workspace is not None else cache_of_environment())
    except ManifestErrors as error:
        errors = error.lines
    findings += _workspace(root, workspace, errors)
    if workspace is not None:
        findings += map(_device, workspace.devices.values())
    return Diagnosis(findings=findings, manifest_errors=errors)


# Tools -------------------------------------------------------------------------------------------------------------


def _tools() -> Iterator[Finding]:
    yield Finding(part="tools", name="python", value=platform.python_version())
    yield Finding(part="tools", name="quantbuild", value=__version__)
    for name, least in NEEDED.items():
        found = version(name)
        missing = found == _ABSENT or _numbers(found) < _numbers(least)
        problem = f'pip install "{name}>={least}"' if missing else None
        yield Finding(part="tools", name=name, value=found, problem=problem)
    for name, use in OPTIONAL.items():
        found = version(name)
        yield Finding(part="tools", name=name, value=f"absent: {use}" if found == _ABSENT else found)


def _numbers(text: str) -> tuple[int, ...]:
    """Return a version's leading numbers: (2, 21, 0) of 2.21.0rc1."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found.group().split("."))) if found else ()


def _deep() -> Iterator[Finding]:
    for name, code in _DEEP.items():
        trouble = _trouble(code)
        yield Finding(part="tools", name=name, value="usable" if trouble is None else "not usable", problem=trouble)


def _trouble(code: str) -> str | None:
    """Return why `code` does not run in a process of its own, None where it does."""
    environment = {**os.environ, **WORKER_ENVIRONMENT}
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_DEEP_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"no answer after {_DEEP_SECONDS} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"its process was ended by {signal.Signals(-done.returncode).name}; this CPU may be too old for it"
    last = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
    return last.removeprefix(f"{StepError.__module__}.{StepError.__name__}: ")


# Machine -----------------------------------------------------------------------------------------------------------


def _machine(root: Path) -> Iterator[Finding]:
    facts = cpu()
    yield Finding(part="machine", name="cpu", value=f"{cpu_model() or 'unknown'} ({facts['architecture']})")
    yield Finding(part="machine", name="cpu features", value=facts["features"] or "none known")
    yield Finding(part="machine", name="processors", value=f"{processors()} usable of {os.cpu_count()}")
    yield Finding(part="machine", name="memory", value=_memory())
    yield _place("machine", "disk at build/", root / "build", "the build is made there; free or change the folder")


def _memory() -> str:
    free, total = free_bytes(), total_bytes()
    if free is None or total is None:
        return NOT_MEASURED
    bound = os.environ.get(BOUND_VARIABLE)
    return f"{_gibibytes(free)} of {_gibibytes(total)} available" + (f"; {BOUND_VARIABLE} is {bound}" if bound else "")


def _place(part: str, name: str, folder: Path, remedy: str, *, named: bool = False) -> Finding:
    """Return how much is free where `folder` is or would be made; it is a problem if nothing can be written there."""
    place = folder
    while not place.exists():
        place = place.parent
    free = f"{_gibibytes(shutil.disk_usage(place).free)} free"
    writable = place.is_dir() and os.access(place, os.W_OK)
    problem = None if writable else f"{place} cannot be written; {remedy}"
    return Finding(part=part, name=name, value=f"{folder} ({free})" if named else free, problem=problem)


def _gibibytes(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"


# Cache and workspace -----------------------------------------------------------------------------------------------


def _cache(root: Path, settings: Cache) -> Iterator[Finding]:
    folder = local_folder(root, settings.directory)
    remedy = "set [workspace] cache.directory or QUANTBUILD_CACHE_DIR"
    yield _place("cache", "directory", folder, remedy, named=True)
    yield Finding(part="cache", name="remote", value=_address(settings.remote) if settings.remote else "none")
    yield Finding(part="cache", name="upload", value="yes" if settings.upload else "no")
    yield Finding(part="cache", name=TOKEN_VARIABLE, value="set" if os.environ.get(TOKEN_VARIABLE) else "not set")


def _address(remote: str) -> str:
    """Return the address without the password that may be written in it."""
    parts = urlsplit(remote)
    _, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"…@{host}" if at else host))


def _workspace(root: Path, workspace: Workspace | None, errors: list[str]) -> Iterator[Finding]:
    if not (root / "manifests").is_dir():
        value, problem = "none in this folder", None
    elif workspace is None:
        value, problem = "not usable", "; ".join(errors[:1]) + (f" (and {len(errors) - 1} more)" if errors[1:] else "")
    else:
        variants = sum(len(model.variants) for model in workspace.models.values())
        value, problem = f"{counted(len(workspace.models), 'model')}, {counted(variants, 'variant')}", None
    yield Finding(part="workspace", name="manifests", value=value, problem=problem)
    if workspace is not None and not (root / "dodo.py").is_file():
        text = "doit has nothing to load; write its two lines, see README: In a workspace of your own"
        yield Finding(part="workspace", name="dodo.py", value=_ABSENT, problem=text)


def _device(device: Device) -> Finding:
    """Return whether a device's runner can reach it: one that cannot says so when it is asked what the device is."""
    name = f"device {device.name}"
    try:
        facts = plug_in("runners", device.runner).fingerprint(device.options)
    except StepError as error:
        problem = str(error) if device.required else None
        return Finding(part="workspace", name=name, value=f"{device.runner}: not reachable: {error}", problem=problem)
    told = ", ".join(f"{fact} {value}" for fact, value in sorted(facts.items()))
    return Finding(part="workspace", name=name, value=f"{device.runner}: reachable; {told}")
