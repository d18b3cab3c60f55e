"""Samples of a stream, kept in a temporary file so that they can be counted, drawn and read in any order."""

from __future__ import annotations

import os
import tempfile
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.leftovers import SCRATCH_FOLDER

if TYPE_CHECKING:
    from numpy.typing import NDArray

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Name, dtype and shape of each array of a sample."""


class Spool:
    """Samples written one after the other and read back by number.

    The file lies in the workspace, because /tmp may be memory. It has no name, so it is gone with the process however
    that ends. Read with pread and not mapped: pages of a mapping count as the process's own memory.
    """

    def __init__(self, root: Path) -> None:
        folder = root / SCRATCH_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - lives as long as the samples
        self._layouts: dict[Layout, int] = {}
        self._numbers = array("l")
        self._offsets = array("q", [0])

    def append(self, sample: dict[str, NDArray[Any]]) -> None:
        """Add one sample's arrays by input name."""
        layout = tuple((name, value.dtype.str, value.shape) for name, value in sample.items())
        self._numbers.append(self._layouts.setdefault(layout, len(self._layouts)))
        size = sum(self._file.write(value.tobytes()) for value in sample.values())
        self._offsets.append(self._offsets[-1] + size)

    def finish(self) -> None:
        """End writing; from now on samples are read."""
        self._file.flush()
        self._known = list(self._layouts)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> dict[str, NDArray[Any]]:
        import numpy as np

        if not 0 <= index < len(self):
            raise IndexError(index)
        offset = self._offsets[index]
        sample = {}
        for name, kind, shape in self._known[self._numbers[index]]:
            dtype = np.dtype(kind)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            # pread gives 2 GiB at most in one call, far beyond one sample's array.
            sample[name] = np.frombuffer(os.pread(self._file.fileno(), size, offset), dtype).reshape(shape)
            offset += size
        return sample
