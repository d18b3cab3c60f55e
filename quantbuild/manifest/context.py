"""What the checks of one reading of the manifests share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.plugins import Plugins
from quantbuild.manifest.problems import Problem


class Context(msgspec.Struct, kw_only=True):
    """What the checks know while manifests are read, and the problems found so far."""

    root: Path
    plugins: Plugins
    problems: list[Problem]
    check_files: bool
    check_references: bool
    """False where a manifest could not be parsed: what it defines would be reported as unknown."""
    existing: dict[str, bool] = {}

    def add(self, path: KeyPath, text: str) -> None:
        """Note a problem of one key."""
        self.problems.append(Problem(path, text))


class Known(msgspec.Struct, kw_only=True):
    """What a model can refer to: names as written, also those whose own table has problems."""

    datasets: Mapping[str, msgspec.Struct | None]
    """The loader's `Options` by name; None where they have problems."""
    devices: Collection[str]
    loaders: Mapping[str, object] = {}
    """Of each dataset, as written."""
