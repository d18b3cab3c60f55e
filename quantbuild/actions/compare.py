"""compare: says where two files differ that should be equal. No step of a build; `quantbuild verify` asks for it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from quantbuild.step import Job

WORKER = "litert"
MOST_TOLD = 12
MOST_LOADED_BYTES = 1 << 28
"""An array beyond this is compared as a stream and told by its first byte: outputs may be larger than memory."""
_PIECE = 1 << 20


def run(job: Job) -> dict[str, Any]:
    """Compare ``inputs["first"]`` with ``["second"]``; return ``{"differences": [text, ...]}``, empty where equal.

    The first line gives sizes and the first offset that differs, the others name the parts of a .tflite, the arrays of
    an .npz or the entries of a .json; at most a dozen.
    """
    first, second = Path(job.inputs["first"]), Path(job.inputs["second"])
    offset = first_offset(first, second)
    if offset is None:
        return {"differences": []}
    sizes = dict.fromkeys(path.stat().st_size for path in (first, second))
    head = f"{' and '.join(map(str, sizes))} bytes, the first that differs is at offset {offset}"
    found = list(_parts(first, second))
    more = [f"and {len(found) - MOST_TOLD} more"] if len(found) > MOST_TOLD else []
    return {"differences": [head, *found[:MOST_TOLD], *more]}


def first_offset(first: Path, second: Path) -> int | None:
    """Return the offset of the first byte in which two files differ, None where they are equal."""
    with first.open("rb") as mine, second.open("rb") as other:
        return _first_unequal(mine, other)


def _first_unequal(first: IO[bytes], second: IO[bytes]) -> int | None:
    position = 0
    while True:
        mine, other = first.read(_PIECE), second.read(_PIECE)
        if mine != other:
            pairs = enumerate(zip(mine, other, strict=False))
            return position + next((at for at, (a, b) in pairs if a != b), min(len(mine), len(other)))
        if not mine:
            return None
        position += len(mine)


def _parts(first: Path, second: Path) -> Iterator[str]:
    compare = _COMPARERS.get(first.suffix)
    if compare is None:
        return
    try:
        found = list(compare(first, second))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        yield f"no {first.suffix} that can be read part by part ({type(error).__name__}: {error})"
        return
    yield from found or ["every part is equal: only the layout of the file differs"]


def _tflite(first: Path, second: Path) -> Iterator[str]:
    from quantbuild.errors import StepError
    from quantbuild.tflite import describe, difference

    try:
        yield from difference.differences(describe.read(first.read_bytes()), describe.read(second.read_bytes()))
    except StepError as error:
        raise ValueError(str(error)) from error


def _npz(first: Path, second: Path) -> Iterator[str]:
    from quantbuild.tflite.difference import ABSENT

    with zipfile.ZipFile(first) as mine, zipfile.ZipFile(second) as other:
        sizes, others = ({entry.filename: entry.file_size for entry in archive.infolist()} for archive in (mine, other))
        for member in sorted({*sizes, *others}):
            name = member.removesuffix(".npy")
            if member not in sizes or member not in others:
                old, new = (ABSENT if member not in names else "present" for names in (sizes, others))
                yield f"{name}: {old} → {new}"
                continue
            with mine.open(member) as one, other.open(member) as another:
                at = _first_unequal(one, another)
            if at is not None and max(sizes[member], others[member]) > MOST_LOADED_BYTES:
                yield f"{name}: differs from byte {at} on"
            elif at is not None:
                yield _array(name, first, second)


def _array(name: str, first: Path, second: Path) -> str:
    import numpy as np

    from quantbuild.tflite.difference import values

    with np.load(first, allow_pickle=False) as mine, np.load(second, allow_pickle=False) as other:
        return values(name, mine[name], other[name]) or f"{name}: only its layout differs"


def _json(first: Path, second: Path) -> Iterator[str]:
    from quantbuild.freshness import changes

    mine, other = json.loads(first.read_bytes()), json.loads(second.read_bytes())
    yield from (f"{change.what}: {change.old} → {change.new}" for change in changes({"": mine}, {"": other}))


_COMPARERS: dict[str, Callable[[Path, Path], Iterator[str]]] = {".tflite": _tflite, ".npz": _npz, ".json": _json}
