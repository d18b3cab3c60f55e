"""The rules of files: what the manifests name is relative to the root, and there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import msgspec

from quantbuild.errors import QuantbuildError
from quantbuild.manifest.context import Context
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.problems import leaves, quoted


def check_path(value: Any, path: KeyPath, context: Context) -> None:
    """A path of the user's is relative and there."""
    if not isinstance(value, str) or not value:
        return
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive:
        context.add(path, f"{quoted(value)} is absolute; write it relative to the workspace root")
    elif context.check_files and not exists(value, context):
        context.add(path, f"{quoted(value)} does not exist; correct the path or create it")


def check_dataset_files(table: Mapping[str, Any], options: msgspec.Struct, path: KeyPath, context: Context) -> None:
    """Every file that the loader will read is there."""
    if not context.check_files:
        return
    try:
        files = context.plugins.datasets[table["loader"]].files(options, context.root)
    except QuantbuildError as error:
        context.add(path, str(error))
        return
    for file in files:
        key = next((inner for inner, value in leaves(table) if value == file), ())
        check_path(file, (*path, *key), context)
    if not files:
        context.add(path, "no file matches; correct its paths or create the files")


def exists(path: str, context: Context) -> bool:
    """Whether a path below the root is there."""
    if path not in context.existing:
        context.existing[path] = (context.root / path).exists()
    return context.existing[path]
