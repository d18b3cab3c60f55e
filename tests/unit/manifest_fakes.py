"""Plug-ins and workspaces for the manifest tests, so that they hold whatever plug-ins there are."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import msgspec

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.contracts import REQUIRED, PluginKind
from quantbuild.manifest.definitions import Workspace
from quantbuild.manifest.loading import load
from quantbuild.manifest.plugins import Plugins


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How values are prepared."""

    mean: list[float] = []
    std: float = 1.0


class ArrayOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the loader `arrays`."""

    path: str
    """The file."""
    label: str | None = None
    preprocess: Preprocess | None = None


class FolderOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the loader `folder`, which always has labels."""

    paths: list[str]


class Int8Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the scheme `int8`."""

    io: Literal["int8", "uint8", "float32"] = "float32"
    ranges: Literal["auto", "minmax"] | Preprocess = "auto"
    keep_float: tuple[str, ...] = ()
    trials: int = 1

    def __post_init__(self) -> None:
        if self.trials > 9:
            raise ValueError("trials: more than 9 are never needed; write fewer")


class NoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """No keys."""


class HostOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the runner `host`."""

    threads: int = 1


class SerialOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of the runner `adb`."""

    serial: str


def _module(kind: PluginKind, name: str, **members: Any) -> ModuleType:
    """Return a plug-in that has all names of its kind; those not given are of no use."""
    module = ModuleType(name)
    module.__dict__.update({each.partition(" or ")[0]: None for each in REQUIRED[kind]} | members)
    return module


PLUGINS = Plugins(
    datasets={
        "arrays": _module("datasets", "arrays", Options=ArrayOptions, files=lambda options, root: [options.path]),
        "folder": _module("datasets", "folder", Options=FolderOptions, files=lambda options, root: options.paths),
    },
    sources={"keras": _module("sources", "keras"), "saved_model": _module("sources", "saved_model")},
    schemes={
        "int8": _module("schemes", "int8", Options=Int8Options, needs=lambda options: frozenset({"statistics"})),
        "float16": _module("schemes", "float16", Options=NoOptions, needs=lambda options: frozenset()),
    },
    runners={
        "host": _module("runners", "host", Options=HostOptions),
        "adb": _module("runners", "adb", Options=SerialOptions),
    },
)

GOOD = """\
schema = 1

[dataset.train]
loader = "arrays"
path = "data/train.npz"
label = "y"
samples = 500

[dataset.test]
loader = "arrays"
path = "data/test.npz"
label = "y"

[device.host]
runner = "host"

[device.phone]
runner = "adb"
serial = "123"
required = false

[model.digits]
source = "keras"
path = "digits.keras"
labels = "labels.txt"
input_shapes = { image = [1, 8, 8, 1] }
calibration = "train"
evaluation = "test"
metric = "top1"
ship = "int8"

[model.digits.gate]
max_accuracy_loss = 0.01
max_size_ratio = 0.35
max_latency_ratio = { host = 1.1, phone = 1.0 }

[model.digits.variant.int8]
scheme = "int8"
io = "int8"

[model.digits.variant.half]
scheme = "float16"
gate = { max_size_ratio = 0.6, max_latency_ratio = { host = 2 } }
"""

FILES = ("data/train.npz", "data/test.npz", "digits.keras", "labels.txt")


def write(root: Path, **manifests: str) -> Path:
    """Write manifests by name, and every file that GOOD names."""
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in manifests.items():
        (root / "manifests").mkdir(exist_ok=True)
        (root / "manifests" / f"{name}.toml").write_text(text, encoding="utf-8")
    return root


def loaded(root: Path, environ: dict[str, str] | None = None, **manifests: str) -> Workspace:
    """Load manifests by name with the fake plug-ins."""
    return load(write(root, **manifests), plugins=PLUGINS, environ=environ or {})


def problems(root: Path, environ: dict[str, str] | None = None, **manifests: str) -> list[str]:
    """Return the lines of the error that the manifests lead to; none if they load."""
    try:
        loaded(root, environ, **manifests)
    except ManifestErrors as error:
        return error.lines
    return []


def line_of(text: str, part: str) -> int:
    """Return the number of the first line of `text` that contains `part`."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)
