"""Sound files in a folder, by class subfolder or as a CSV lists them; each is read when its sample is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from quantbuild.datasets.labels_file import Listing, class_folders, input_files, list_files
from quantbuild.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOOLS = ("numpy", "scipy", "soundfile")

SUFFIXES = (".wav", ".flac")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a dataset with ``loader = "audio"``."""

    PREPROCESSING: ClassVar[tuple[str, ...]] = ("sample_rate", "duration_seconds", "mono", "channel_axis")
    """Which of them the contract repeats for the app."""

    path: str
    """The folder: a subfolder per class, numbered in sorted order; or sound files alone, without labels."""
    labels: str | None = None
    """A CSV with the header ``path,label`` or ``path,label,slice``, in the folder or under the root."""
    sample_rate: Annotated[int, Meta(ge=1)]
    """The model's rate, in Hz."""
    resample: bool = False
    """Whether a file of another rate is resampled; else it is an error."""
    duration_seconds: Annotated[float, Meta(gt=0)] | None = None
    """What each file is cut to, from its beginning, or padded to with silence. Absent: as long as it is."""
    mono: bool = False
    """Whether channels are averaged into one."""
    channel_axis: bool = False
    """Whether the shape is ``[1, n, channels]`` and not ``[1, n]``."""


class AudioSamples:
    """The sound files of a folder. Only names and labels are in memory."""

    def __init__(self, options: Options, root: Path, listing: Listing) -> None:
        self._options = options
        self._root = root
        self._files = listing.files
        self.labels = listing.labels
        self.slices = listing.slices

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int, /) -> dict[str, NDArray[Any]]:
        file, how = self._files[index], self._options
        sound, rate = _decoded(self._root / file, file)
        if how.mono:
            sound = sound.mean(axis=1, keepdims=True)
        if not how.channel_axis and sound.shape[1] != 1:
            raise StepError(f"{file}: has {sound.shape[1]} channels; set mono = true, or channel_axis = true")
        sound = _at_length(_at_rate(sound, rate, how, file), how)
        return {"": (sound if how.channel_axis else sound[:, 0])[None]}


def files(options: Options, root: Path) -> list[str]:
    """Return the folder, and the labels file unless it lies in the folder."""
    return input_files(options.path, options.labels, root)


def classes(options: Options, root: Path) -> list[str] | None:
    """Return the names of the classes in the order of their numbers; None where no folder names them."""
    return class_folders(options.path, options.labels, root)


def open_samples(options: Options, root: Path) -> AudioSamples:
    """List the files; none is read yet. Raises StepError."""
    listing = list_files(options.path, options.labels, root, suffixes=SUFFIXES, what="sound file (.wav or .flac)")
    return AudioSamples(options, root, listing)


def _decoded(path: Path, place: str) -> tuple[NDArray[Any], int]:
    """Return float32 ``[n, channels]``, full scale 1, and the rate in Hz."""
    import soundfile

    try:
        with path.open("rb") as stream:
            sound, rate = soundfile.read(stream, dtype="float32", always_2d=True)
    except (OSError, soundfile.SoundFileError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise StepError(f"{place}: cannot be read as sound ({reason}); repair or remove it") from error
    if not len(sound):
        raise StepError(f"{place}: holds no sound; repair or remove it")
    return sound, rate


def _at_rate(sound: NDArray[Any], rate: int, how: Options, place: str) -> NDArray[Any]:
    """Resample by a polyphase filter where that is allowed."""
    if rate == how.sample_rate:
        return sound
    if not how.resample:
        raise StepError(f"{place}: has {rate} Hz, sample_rate is {how.sample_rate}; convert it, or set resample = true")
    from math import gcd

    import numpy as np
    from scipy.signal import resample_poly

    common = gcd(rate, how.sample_rate)
    resampled = resample_poly(sound.astype(np.float64), how.sample_rate // common, rate // common, axis=0)
    return np.asarray(resampled, np.float32)


def _at_length(sound: NDArray[Any], how: Options) -> NDArray[Any]:
    """Cut or pad ``[n, channels]`` to the length asked for."""
    import numpy as np

    if how.duration_seconds is None:
        return sound
    wanted = max(round(how.duration_seconds * how.sample_rate), 1)
    cut = sound[:wanted]
    return np.pad(cut, ((0, wanted - len(cut)), (0, 0)))
