"""Finds plug-ins by file name: adding a scheme, source, loader or runner is adding one file.

A module is a plug-in if its text has the marker at the start of a line: `class Options` for loaders,
schemes and runners, `def convert(` for sources. So `datasets/samples.py` or `runners/host_process.py` are
none, and nothing is imported to find out.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import msgspec

OPTIONS_MARKER = r"^class Options\b"
CONVERT_MARKER = r"^def convert\("


class PluginModules(Mapping[str, ModuleType]):
    """The plug-ins of one package by name; a module is imported when it is asked for, not before."""

    def __init__(self, package: str, marker: str) -> None:
        self._package = package
        self._marker = re.compile(marker, re.MULTILINE)
        self._known: dict[str, bool] = {}

    def __contains__(self, name: object) -> bool:
        """Whether `name` is a plug-in; reads one file at most, imports nothing."""
        if not isinstance(name, str) or not name.isidentifier():
            return False
        if name not in self._known:
            self._known[name] = any(self._is_plugin(folder / f"{name}.py") for folder in self._folders())
        return self._known[name]

    def __getitem__(self, name: str) -> ModuleType:
        """Import the plug-in."""
        if name not in self:
            raise KeyError(name)
        return importlib.import_module(f"{self._package}.{name}")

    def __iter__(self) -> Iterator[str]:
        """Names of all plug-ins, sorted."""
        stems = {path.stem for folder in self._folders() for path in folder.glob("*.py")}
        return (stem for stem in sorted(stems) if stem in self)

    def __len__(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def _folders(self) -> list[Path]:
        spec = importlib.util.find_spec(self._package)
        return [Path(place) for place in (spec and spec.submodule_search_locations) or ()]

    def _is_plugin(self, path: Path) -> bool:
        return path.is_file() and self._marker.search(path.read_text(encoding="utf-8")) is not None


class Plugins(msgspec.Struct, frozen=True, kw_only=True):
    """The plug-ins of every kind, by name. Tests pass plain dicts of modules."""

    datasets: Mapping[str, ModuleType]
    sources: Mapping[str, ModuleType]
    schemes: Mapping[str, ModuleType]
    runners: Mapping[str, ModuleType]


def installed() -> Plugins:
    """Return the plug-ins of this installation."""
    return Plugins(
        datasets=PluginModules("quantbuild.datasets", OPTIONS_MARKER),
        sources=PluginModules("quantbuild.sources", CONVERT_MARKER),
        schemes=PluginModules("quantbuild.schemes", OPTIONS_MARKER),
        runners=PluginModules("quantbuild.runners", OPTIONS_MARKER),
    )
