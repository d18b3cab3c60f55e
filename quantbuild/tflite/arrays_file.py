"""Dataclasses of arrays as .npz files: the same bytes wherever the arrays are the same."""

from __future__ import annotations

import zipfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from quantbuild.errors import StepError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Kind = TypeVar("Kind", bound="DataclassInstance")


def write(path: Path, kept: DataclassInstance) -> None:
    """Write each field under its name, a tuple of text as an array.

    Deterministically: np.savez stores uncompressed members, all dated 1980-01-01.
    """
    arrays: dict[str, Any] = {field.name: getattr(kept, field.name) for field in fields(kept)}
    arrays |= {name: np.array(value, dtype=np.str_) for name, value in arrays.items() if isinstance(value, tuple)}
    with path.open("wb") as file:
        np.savez(file, **arrays)


def read(path: Path, kind: type[Kind], what: str) -> Kind:
    """Return what `write` wrote of a `kind`, which messages call `what`.

    Raises:
        StepError: the file is damaged or of another kind.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Any] = {field.name: file[field.name] for field in fields(kind)}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StepError(f"{path.name}: no {what} ({error}); delete it and run again") from error
    arrays |= {name: tuple(map(str, array)) for name, array in arrays.items() if array.dtype.kind == "U"}
    return kind(**arrays)
