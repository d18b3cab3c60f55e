"""The depfile: which files of the user's a build's results depend on, as Make, Ninja and CMake read it.

A Makefile rule, `targets: dependencies`. Ninja wants a path spelled as its own build file spells it, and CMake as seen
from its build folder: there is no spelling that is right everywhere. So the one in dist/ is relative to the root, and
`quantbuild depfile` writes others.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from quantbuild import dist
from quantbuild.digests import names_below
from quantbuild.errors import UsageError

MANIFEST_FOLDER = "manifests"
_BEFORE_SPACE = re.compile(r"(\\*)([ \t])")


def rule(targets: Iterable[str], dependencies: Iterable[str]) -> bytes:
    """Return the rule; names are escaped as GCC does (``mkdeps.cc``), which Make, Ninja and CMake all read."""
    head = " ".join(map(_escaped, targets))
    lines = [f"  {_escaped(path)}" for path in dependencies]
    return (" \\\n".join([f"{head}:", *lines]) + "\n").encode()


def dependencies(root: Path, inputs: Iterable[str], manifests: Iterable[str]) -> list[str]:
    """Return every file that `inputs` (files and folders) and `manifests` stand for, relative to `root`, sorted.

    Of a folder the folders in it are named too: their times tell of files that are added or removed. That holds for
    manifests/ as well.
    """
    found = {file for path in inputs for file in _files(root, path)}
    for manifest in manifests:
        found.add(manifest)
        found.update(_folders(manifest, below=MANIFEST_FOLDER))
    return sorted(found)


def targets(names: Iterable[str], ship: dict[str, dict[str, str]]) -> list[str]:
    """Return the published artifacts of MODEL/VARIANT `names` and of `ship` (by model and purpose), sorted."""
    standing = set(names)
    shipped = {
        dist.shipped_file(model, purpose)
        for model, purposes in ship.items()
        for purpose, variant in purposes.items()
        if f"{model}/{variant}" in standing
    }
    return sorted({*map(dist.artifact_file, standing), *shipped})


def of_lock(root: Path, labels: Iterable[str], manifests: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return targets and dependencies of what stands in dist/, relative to `root`.

    Raises:
        UsageError: there is no lock.
    """
    try:
        lock = json.loads((root / dist.LOCK_PATH).read_bytes())
        entries = lock["artifacts"]
        inputs = {path for entry in entries.values() for path in entry["inputs"]}
        return targets(entries, lock["ship"]), dependencies(root, {*inputs, *labels}, manifests)
    except FileNotFoundError:
        raise UsageError(f"{dist.LOCK_PATH}: not there; run `doit quantize` first") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{dist.LOCK_PATH}: no lock of quantbuild; run `doit quantize`") from error


def spelled(paths: Sequence[str], root: Path, relative_to: Path | None) -> list[str]:
    """Return paths below `root` as absolute ones, or as seen from the folder `relative_to`."""
    spell: Callable[[str], str] = (
        (lambda path: str(root / path))
        if relative_to is None
        else (lambda path: os.path.relpath(root / path, relative_to))
    )
    return [spell(path) for path in paths]


def _files(root: Path, path: str) -> Iterator[str]:
    yield path
    full = root / path
    if full.is_dir():
        for name in names_below(str(full)):
            if (full / name).exists():  # of a link that leads nowhere Ninja would wait for ever
                yield f"{path}/{name}"
                yield from _folders(f"{path}/{name}", below=path)


def _folders(file: str, *, below: str) -> Iterator[str]:
    """Yield the folders that hold `file`, up to the folder `below`; an empty one is no part of any digest."""
    folder = file.rpartition("/")[0]
    while len(folder) >= len(below):
        yield folder
        folder = folder.rpartition("/")[0]


def _escaped(path: str) -> str:
    spaces = _BEFORE_SPACE.sub(lambda found: f"{found[1] * 2}\\{found[2]}", path)
    return spaces.replace("#", "\\#").replace("$", "$$")
