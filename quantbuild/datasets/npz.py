"""Datasets in one .npz file: an array per signature input, and optionally of labels and slice names."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from quantbuild.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOOLS = ("numpy",)


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``x = (value - mean) / std``, one number or one per entry of the last axis, as float32."""

    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a dataset with ``loader = "npz"``."""

    path: str
    """The .npz file, relative to the root."""
    input: str | dict[str, str]
    """The array of the only input, or signature input name to array. The first axis counts samples."""
    label: str | None = None
    """The array of labels: ``[n]``, ``[n, 1]`` (read as ``[n]``) or ``[n, ...]``."""
    slice: str | None = None
    """The array that names each sample's business slice: ``[n]``."""
    preprocess: Preprocess | None = None
    """Applied to every input. Absent: the values as they are."""


class NpzSamples:
    """Samples of an opened .npz. Lengths come from the arrays' headers; an array is read when first used.

    A compressed archive cannot be mapped into memory, so an array once used stays whole in memory.
    """

    def __init__(self, options: Options, root: Path) -> None:
        self._options = options
        self._archive = Path(root) / options.path
        self._names = options.input if isinstance(options.input, dict) else {"": options.input}
        used = [*self._names.values(), options.label, options.slice]
        self._count = _common_length(options.path, self._archive, [name for name in used if name])
        self._arrays: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int, /) -> dict[str, NDArray[Any]]:
        return {name: self._prepare(self._array(array)[index : index + 1]) for name, array in self._names.items()}

    @cached_property
    def labels(self) -> NDArray[Any] | None:
        """Labels, ``[n]`` or ``[n, ...]``."""
        if self._options.label is None:
            return None
        labels = self._array(self._options.label)
        return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels

    @cached_property
    def slices(self) -> list[str] | None:
        """Each sample's slice name."""
        if self._options.slice is None:
            return None
        column = self._array(self._options.slice)
        if column.ndim != 1:
            raise StepError(
                f"{self._options.path}: slice {self._options.slice!r} has shape {column.shape}; "
                "give one name per sample"
            )
        return [str(name) for name in column.tolist()]

    def _array(self, name: str) -> NDArray[Any]:
        import numpy as np

        if name not in self._arrays:
            place = f"{self._options.path}: array {name!r}"
            with _readable(place), np.load(self._archive, allow_pickle=False) as archive:
                self._arrays[name] = archive[name]
        return self._arrays[name]

    def _prepare(self, value: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        how = self._options.preprocess
        if how is None:
            return value
        try:
            mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
            scaled = (value.astype(np.float32) - mean) / std
        except ValueError as error:
            raise StepError(
                f"{self._options.path}: preprocess: mean or std has not one number per entry of the last axis "
                f"of shape {value.shape}; give one number or {value.shape[-1]}"
            ) from error
        return np.asarray(scaled, dtype=np.float32)


def files(options: Options, root: Path) -> list[str]:
    """Every input path, relative to the root, existing or not."""
    del root
    return [options.path]


def open_samples(options: Options, root: Path) -> NpzSamples:
    """Open the archive and check its arrays. Raises StepError."""
    return NpzSamples(options, root)


@contextlib.contextmanager
def _readable(place: str) -> Iterator[None]:
    """Raise StepError for what a file that is damaged, encrypted or no archive makes of reading it."""
    try:
        yield
    except StepError:
        raise
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise StepError(f"{place}: cannot be read as .npz ({error}); write it with numpy.savez") from error


def _common_length(place: str, path: Path, names: list[str]) -> int:
    """Return the arrays' shared first dimension, read from their headers alone."""
    with _readable(place), zipfile.ZipFile(path) as archive:
        available = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in names:
            if name not in available:
                raise StepError(f"{place}: no array {name!r}; it holds {', '.join(sorted(available))}")
        lengths = {name: _length(place, name, archive) for name in names}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise StepError(f"{place}: arrays differ in length ({listed}); give every sample one entry in each")
    return lengths[names[0]]


def _length(place: str, name: str, archive: zipfile.ZipFile) -> int:
    with archive.open(f"{name}.npy") as stream:
        shape, dtype = _header(place, name, stream)
    if dtype.hasobject:
        raise StepError(f"{place}: array {name!r} holds Python objects; save it as numbers or fixed-width text")
    if not shape:
        raise StepError(f"{place}: array {name!r} is a single number; its first axis must count samples")
    return shape[0]


def _header(place: str, name: str, stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return shape and dtype of an open .npy member."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
    except ValueError as error:
        raise StepError(f"{place}: array {name!r} is no .npy ({error}); write the file with numpy.savez") from error
    return shape, dtype
