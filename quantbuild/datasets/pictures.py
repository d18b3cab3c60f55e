"""One picture file to 8-bit RGB or grey, resized and cropped; every kind of picture told apart.

What a model was trained on decides what is right here: as the loaders of the training frameworks do, colours
behind transparency are taken as they are stored and colour profiles are not applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from quantbuild.errors import StepError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Size = Sequence[int]
"""Height, width."""

# Not all that Pillow opens: it hands EPS to Ghostscript, and knows formats that it cannot decode.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)

_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# Formats whose whole-number samples of mode "I" are 16-bit ones.
_SIXTEEN_BITS_AS_I = ("PNG", "PPM")


def read(
    path: Path,
    place: str,
    *,
    resize: int | Size | None,
    crop: Size | None,
    interpolation: Interpolation,
    channels: Literal[1, 3],
) -> NDArray[Any]:
    """Return a picture as uint8 ``[height, width, channels]``, upright. Raises StepError, led by `place`."""
    import numpy as np
    from PIL import Image

    picture = _converted(_decoded(path, place), "RGB" if channels == 3 else "L", place)
    if resize is not None:
        height, width = _by_shorter_side(picture.size, resize) if isinstance(resize, int) else resize
        picture = picture.resize((width, height), Image.Resampling[interpolation.upper()])
    if crop is not None:
        picture = _centre(picture, crop, place)
    return np.asarray(picture, np.uint8).reshape(picture.height, picture.width, channels)


def _decoded(path: Path, place: str) -> Any:
    """Return a file's first frame with 8 bits a sample, turned as its EXIF orientation says."""
    from PIL import Image, ImageOps

    try:
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as picture:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            form = picture.format
    except MemoryError:
        raise
    except Exception as error:
        # Pillow's decoders raise nearly anything on a damaged file: OSError, SyntaxError, struct.error, …
        raise StepError(
            f"{place}: cannot be read as a picture ({_reason(error, path)}); repair or remove it"
        ) from error
    return _eight_bits(upright, form, place)


def _converted(picture: Any, mode: str, place: str) -> Any:
    try:
        return picture.convert(mode)
    except ValueError as error:  # CIELAB, and grey multiplied by its transparency
        raise StepError(
            f"{place}: has colours of kind {picture.mode}, which Pillow makes no {mode} of; save it as RGB"
        ) from error


def _reason(error: Exception, path: Path) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "it is gone"
    if isinstance(error, UnidentifiedImageError):  # its own text names the open file
        return "it is of no known format" if path.stat().st_size else "it is empty"
    return " ".join(str(error).split()) or type(error).__name__


def _eight_bits(picture: Any, form: str | None, place: str) -> Any:
    """Return a picture of 8 bits a sample: of 16 bits the upper 8, as Pillow itself reads 16-bit colour."""
    import numpy as np
    from PIL import Image

    if picture.mode in _SIXTEEN_BITS or (picture.mode == "I" and form in _SIXTEEN_BITS_AS_I):
        return Image.fromarray((np.asarray(picture).astype(np.uint16) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise StepError(f"{place}: has 32 bits a sample, whose range is unknown; save it with 8 or 16 bits")
    if picture.mode == "P" and "transparency" in picture.info:
        # Straight to RGB, Pillow warns that transparency is lost; the colours are the same.
        return picture.convert("RGBA")
    return picture


def _by_shorter_side(size: tuple[int, int], shorter: int) -> Size:
    """Return height and width with that shorter side; the longer one is rounded down, as torchvision does."""
    width, height = size
    if width <= height:
        return int(shorter * height / width), shorter
    return shorter, int(shorter * width / height)


def _centre(picture: Any, crop: Size, place: str) -> Any:
    """Cut out the middle; a half pixel is rounded to even, as torchvision does."""
    height, width = crop
    if picture.height < height or picture.width < width:
        raise StepError(
            f"{place}: is {picture.width} × {picture.height} pixels where crop asks for {width} × {height}; "
            "set resize, or leave it out"
        )
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    return picture.crop((left, top, left + width, top + height))
