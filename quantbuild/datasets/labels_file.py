"""The files of a folder with their labels: from a CSV beside them, or from the class subfolders they lie in."""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from quantbuild.digests import names_below
from quantbuild.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADERS = (["path", "label"], ["path", "label", "slice"])


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Files in a fixed order, relative to the root, each with its label's text and its slice's name."""

    files: list[str]
    label_texts: list[str] | None
    slices: list[str] | None

    @cached_property
    def labels(self) -> NDArray[Any] | None:
        """Labels ``[n]``: int64 where all are whole numbers, float64 where all are numbers, else the texts."""
        import numpy as np

        if self.label_texts is None:
            return None
        for kind in (np.int64, np.float64):
            try:
                return np.array([kind(text) for text in self.label_texts], kind)
            except (ValueError, OverflowError):
                continue
        return np.array(self.label_texts)


def input_files(path: str, labels: str | None, root: Path) -> list[str]:
    """Return the inputs of a loader: its folder, and the labels file unless that lies in the folder."""
    if labels is None or (root / path / labels).is_file():
        return [path]
    return [path, labels]


def class_folders(path: str, labels: str | None, root: Path) -> list[str] | None:
    """Return the class subfolders in the order of their numbers; None where a CSV or nothing numbers the samples.

    Raises OSError where the folder cannot be listed.
    """
    if labels is not None:
        return None
    with os.scandir(root / path) as entries:
        return sorted(each.name for each in entries if not each.name.startswith(".") and each.is_dir()) or None


def list_files(path: str, labels: str | None, root: Path, *, suffixes: Collection[str], what: str) -> Listing:
    """List the samples of the folder `path`: those of the CSV `labels`, else all below it by class subfolder.

    `suffixes` are the file name endings (lower case, with the dot) of `what`, needed where a CSV does not
    name the files. Raises StepError.
    """
    folder = root / path
    if not folder.is_dir():
        raise StepError(f"{path}: is no folder; correct path")
    if labels is None:
        return _by_subfolder(path, folder, suffixes, what)
    inside = folder / labels
    return _from_csv(path, f"{path}/{labels}" if inside.is_file() else labels, root)


def _by_subfolder(path: str, folder: Path, suffixes: Collection[str], what: str) -> Listing:
    """Number the subfolders in sorted order; a folder without any holds samples without labels."""
    visible = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    classes = [name for name in visible if (folder / name).is_dir()]
    loose = [name for name in visible if name not in set(classes)]
    if classes and loose:
        raise StepError(f"{path}/{loose[0]}: lies beside class subfolders; move it into one, or name a labels file")
    if not classes:
        _check_suffixes(path, loose, suffixes, what)
        return Listing(files=[f"{path}/{name}" for name in loose], label_texts=None, slices=None)
    files, numbers = [], []
    for number, name in enumerate(classes):
        below = (f"{name}/{each}" for each in names_below(str(folder / name)) if (folder / name / each).is_file())
        found = sorted(each for each in below if not any(part.startswith(".") for part in each.split("/")))
        _check_suffixes(path, found, suffixes, what)
        files += [f"{path}/{each}" for each in found]
        numbers += [str(number)] * len(found)
    return Listing(files=files, label_texts=numbers, slices=None)


def _check_suffixes(path: str, names: Sequence[str], suffixes: Collection[str], what: str) -> None:
    for name in names:
        if PurePosixPath(name).suffix.lower() not in suffixes:
            raise StepError(f"{path}/{name}: is no {what} by its name; move it elsewhere, or name a labels file")


def _from_csv(path: str, labels: str, root: Path) -> Listing:
    try:
        # utf-8-sig: a spreadsheet's export begins with a byte order mark.
        with (root / labels).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise StepError(f"{labels}: cannot be read as CSV ({reason}); write it as UTF-8 with commas") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if header not in HEADERS:
        raise StepError(f"{labels}: begins with {','.join(header) or 'nothing'}; begin it with path,label[,slice]")
    numbered = [(line, row) for line, row in enumerate(rows[1:], start=2) if row]
    for line, row in numbered:
        _check_row(path, f"{labels}: line {line}", row, len(header), root)
    texts = [row[1].strip() for _, row in numbered]
    if "" in texts and any(texts):
        line = numbered[texts.index("")][0]
        raise StepError(f"{labels}: line {line}: has no label while others have one; label all samples or none")
    return Listing(
        files=[f"{path}/{row[0]}" for _, row in numbered],
        label_texts=texts if any(texts) else None,
        slices=[row[2].strip() for _, row in numbered] if len(header) == 3 else None,
    )


def _check_row(path: str, place: str, row: list[str], columns: int, root: Path) -> None:
    if len(row) != columns:
        raise StepError(f"{place}: has {len(row)} columns of {columns}; quote a text that holds a comma")
    if columns == 3 and not row[2].strip():
        raise StepError(f"{place}: has no slice; name one for every sample, or drop the column")
    name = PurePosixPath(row[0])
    if name.is_absolute() or ".." in name.parts or not (root / path / name).is_file():
        raise StepError(f'{place}: "{row[0]}" is no file in {path}; write it relative to that folder')
