"""The per-sample results of an evaluation in one .npz, whose large arrays are written and read row by row."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

OUTPUT = "output."
"""Prefix of the arrays that hold a model's outputs, [n, 1, ...]: each sample with its batch axis."""


class Rows:
    """One array on its way to the file: a row per sample, kept in a scratch file.

    A segmentation model's outputs over an evaluation set are larger than memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("wb")
        self._header: dict[str, Any] | None = None
        self._count = 0

    def append(self, row: NDArray[Any]) -> None:
        """Add one sample's array [...]; all have one shape and dtype."""
        if self._header is None:
            self._header = {"descr": npy.dtype_to_descr(row.dtype), "fortran_order": False, "shape": row.shape}
        self._stream.write(np.ascontiguousarray(row).tobytes())
        self._count += 1

    def copy_to(self, member: IO[bytes]) -> None:
        """Write the whole array as .npy and drop the scratch file."""
        assert self._header is not None, "an evaluation has at least one sample"
        self._stream.close()
        shape = (self._count, *self._header["shape"])
        npy.write_array_header_1_0(member, {**self._header, "shape": shape})
        with self.path.open("rb") as stream:
            shutil.copyfileobj(stream, member)
        self.path.unlink()


def write(path: str, arrays: Mapping[str, NDArray[Any]], outputs: Mapping[str, Rows]) -> None:
    """Write small arrays and outputs by name. The bytes depend on their contents alone."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in sorted(arrays.items()):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)
        # Numbered, because an output's name may be no file name; the order is the signature's.
        names = np.array(list(outputs), dtype=np.str_)
        with archive.open(zipfile.ZipInfo("outputs.npy"), "w") as member:
            npy.write_array(member, names, allow_pickle=False)
        for number, rows in enumerate(outputs.values()):
            with archive.open(zipfile.ZipInfo(f"{OUTPUT}{number}.npy"), "w", force_zip64=True) as member:
                rows.copy_to(member)


def read(path: str) -> dict[str, NDArray[Any]]:
    """Read every array but the outputs."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if not name.startswith(OUTPUT)}


def output_rows(path: str) -> Iterator[dict[str, NDArray[Any]]]:
    """Yield each sample's outputs by name, as the model gave them, in the order they were written."""
    names = [str(name) for name in read(path)["outputs"]]
    with zipfile.ZipFile(path) as archive, ExitStack() as stack:
        streams = [stack.enter_context(archive.open(f"{OUTPUT}{number}.npy")) for number in range(len(names))]
        headers = [_header(stream) for stream in streams]
        for _ in range(headers[0][0][0]):
            yield {
                name: _row(stream, shape[1:], dtype)
                for name, stream, (shape, dtype) in zip(names, streams, headers, strict=True)
            }


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    npy.read_magic(stream)
    shape, _, dtype = npy.read_array_header_1_0(stream)
    return shape, dtype


def _row(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype=dtype).reshape(shape)
