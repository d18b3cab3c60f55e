"""Whether the class folders of a data set and a model's file of class names number the classes alike.

Folders are numbered as their names sort, the model's outputs as its `labels` file has them. Where both speak of the
same names and not in the same order, every figure would be wrong, and alike for float32 and its variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quantbuild.errors import QuantbuildError
from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.problems import key_text, quoted
from quantbuild.units import counted

REMEDY = 'correct the file, or number the classes by labels = "labels.csv" in the dataset'

CLASS_METRICS = ("top1", "top5")


def check_class_names(table: Mapping[str, Any], path: KeyPath, known: Known, context: Context) -> None:
    """The folders of the sets that a model's classes are compared on are numbered as its `labels` file names them."""
    labels, metric = table.get("labels"), table.get("metric", "agreement")
    if not (context.check_files and isinstance(labels, str) and isinstance(metric, str)):
        return
    if metric not in CLASS_METRICS and ":" not in metric:
        return
    names = _names(context.root / labels)
    for key in ("evaluation", "selection"):
        dataset = table.get(key)
        if names is None or not isinstance(dataset, str):
            continue
        folders = _folders(dataset, known, context)
        text = None if folders is None else difference(folders, names)
        if text is not None:
            both = f"{quoted(labels)} and the class folders of {key_text(('dataset', dataset))}"
            context.add((*path, "labels"), f"{both} differ: {text}; {REMEDY}")


def difference(folders: Sequence[str], names: Sequence[str]) -> str | None:
    """Return how sorted `folders` contradict `names`, the model's classes from 0; None where they do not.

    Names are the same whatever their case, with _ or - for blanks. A folder that no name is like tells nothing: folders
    may have the codes of the classes, or only some of them be there.
    """
    if len(folders) > len(names):
        return f"there are {counted(len(folders), 'folder')} for {counted(len(names), 'name')}"
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        places.setdefault(_plain(name), []).append(number)
    for number, folder in enumerate(folders):
        named = places.get(_plain(folder))
        if named is not None and number not in named:
            return f"folder {quoted(folder)} is class {number} in sorted order, and class {named[0]} by its name"
    return None


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").split()).casefold()


def _names(path: Path) -> list[str] | None:
    """Return the lines of a file of class names, without empty ones at its end; None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError):
        return None  # a missing file is told elsewhere; one in another encoding is only handed on


def _folders(dataset: str, known: Known, context: Context) -> list[str] | None:
    loader, options = known.loaders.get(dataset), known.datasets.get(dataset)
    if options is None or not isinstance(loader, str) or loader not in context.plugins.datasets:
        return None
    listing = getattr(context.plugins.datasets[loader], "classes", None)
    if listing is None:
        return None
    try:
        folders: list[str] | None = listing(options, context.root)
    except (QuantbuildError, OSError):
        return None  # the step that reads the set tells it
    return folders
