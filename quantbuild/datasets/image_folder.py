"""Pictures in a folder, by class subfolder or as a CSV lists them; each is decoded when its sample is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from quantbuild.datasets import pictures
from quantbuild.datasets.labels_file import Listing, class_folders, input_files, list_files
from quantbuild.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOOLS = ("numpy", "pillow")

Pixels = Annotated[int, Meta(ge=1)]
# No tuple[Pixels, Pixels]: msgspec 0.22 crashes in the garbage collection after it has converted one in a union.
HeightWidth = Annotated[list[Pixels], Meta(min_length=2, max_length=2, extra={"words": "a list of height and width"})]


class Preprocess(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From a picture to numbers: resize, then crop, then ``x = (pixel − mean) / std`` on 0–255 RGB."""

    resize: Pixels | HeightWidth | None = None
    crop: Pixels | HeightWidth | None = None
    interpolation: pictures.Interpolation = "bilinear"
    mean: float | list[float] = 0.0
    std: float | list[float] = 1.0
    channels: Literal[1, 3] = 3
    layout: Literal["NHWC", "NCHW"] = "NHWC"
    dtype: Literal["float32", "float16", "uint8", "int8", "int16", "int32"] = "float32"

    def __post_init__(self) -> None:
        """Refuse a mean or std that does not fit the channels, and division by zero."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, list) and len(value) != self.channels:
                raise ValueError(f"{name}: has {len(value)} numbers; give one, or {self.channels}, one a channel")
        stds = self.std if isinstance(self.std, list) else [self.std]
        if 0 in stds:
            raise ValueError("std: is 0, which nothing can be divided by; give the standard deviation")
        if all(abs(std) < 1 for std in stds):
            # Usual figures such as 0.229 are for pixels of 0 to 1, and everything would be computed with them.
            raise ValueError("std: is below 1, but pixels are 0 to 255; multiply mean and std by 255")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a dataset with ``loader = "image_folder"``."""

    path: str
    """The folder: a subfolder per class, numbered in sorted order; or pictures alone, without labels."""
    labels: str | None = None
    """A CSV with the header ``path,label`` or ``path,label,slice``, in the folder or under the root."""
    preprocess: Preprocess = Preprocess()
    """How a picture becomes numbers."""


class ImageSamples:
    """The pictures of a folder. Only names and labels are in memory."""

    def __init__(self, options: Options, root: Path, listing: Listing) -> None:
        self._root = root
        self._files = listing.files
        self._how = options.preprocess
        self.labels = listing.labels
        self.slices = listing.slices

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> dict[str, NDArray[Any]]:
        file, how = self._files[index], self._how
        pixels = pictures.read(
            self._root / file,
            file,
            resize=how.resize,
            crop=[how.crop, how.crop] if isinstance(how.crop, int) else how.crop,
            interpolation=how.interpolation,
            channels=how.channels,
        )
        return {"": _numbers(pixels, how, file)}


def files(options: Options, root: Path) -> list[str]:
    """Return the folder, and the labels file unless it lies in the folder."""
    return input_files(options.path, options.labels, root)


def classes(options: Options, root: Path) -> list[str] | None:
    """Return the names of the classes in the order of their numbers; None where no folder names them."""
    return class_folders(options.path, options.labels, root)


def open_samples(options: Options, root: Path) -> ImageSamples:
    """List the pictures; none is read yet. Raises StepError."""
    listing = list_files(options.path, options.labels, root, suffixes=pictures.SUFFIXES, what="picture")
    return ImageSamples(options, root, listing)


def _numbers(pixels: NDArray[Any], how: Preprocess, place: str) -> NDArray[Any]:
    """Return pixels ``[height, width, channels]`` as one sample, in float32 arithmetic."""
    import numpy as np

    values = (pixels.astype(np.float32) - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    dtype = np.dtype(how.dtype)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not (np.array_equal(values, np.rint(values)) and values.min() >= limits.min and values.max() <= limits.max):
            raise StepError(
                f"{place}: (pixel − mean) / std from {values.min():g} to {values.max():g} is not all {dtype}; "
                'set dtype = "float32", or a mean and std that give whole numbers'
            )
    sample = values.astype(dtype)[np.newaxis]
    return np.ascontiguousarray(sample.transpose(0, 3, 1, 2)) if how.layout == "NCHW" else sample
