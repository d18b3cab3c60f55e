"""What the models learn from: pictures of clothes, the same turned by an angle, and spoken words.

Fashion-MNIST comes with Debian's package dataset-fashion-mnist (MIT licence), the voice with espeak-ng, which speaks
the words here and now. Pictures are uint8 [n, 28, 28, 1]; spectrograms float32 [n, 84, 40, 1]; every draw is seeded.
"""

from __future__ import annotations

import gzip
import io
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.io import wavfile

FASHION = Path("/usr/share/datasets/fashion-mnist")
FOOTWEAR = (5, 7, 9)
LARGEST_ANGLE = 60.0
WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
SPEAKERS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
UNHEARD = ("m4", "m7", "f3", "f5")
"""The voices that only the test set has."""
RATE, FRAME, HOP, MELS, SECONDS = 22_050, 512, 256, 40, 1.0


class Data(NamedTuple):
    """Inputs and labels to train on, to calibrate with and to test on; no sample is in two."""

    train: tuple[NDArray[np.generic], NDArray[np.generic]]
    calibration: tuple[NDArray[np.generic], NDArray[np.generic]]
    test: tuple[NDArray[np.generic], NDArray[np.generic]]


def clothes(calibration: int = 1000) -> Data:
    """Pictures of ten kinds of clothes: 60,000 less `calibration` to train on, 10,000 to test on."""
    x, y = _idx("train-images-idx3"), _idx("train-labels-idx1")
    order = np.random.default_rng(1).permutation(len(x))
    apart, rest = order[:calibration], order[calibration:]
    pictures = x[..., None]
    return Data(
        (pictures[rest], y[rest]),
        (pictures[apart], y[apart]),
        (_idx("t10k-images-idx3")[..., None], _idx("t10k-labels-idx1")),
    )


def turned_shoes(calibration: int = 500) -> Data:
    """Pictures of footwear, each turned by up to 60 degrees either way; the label is the angle over 60, float32 [n]."""
    parts = []
    for number, name in enumerate(("train", "t10k")):
        x, y = _idx(f"{name}-images-idx3"), _idx(f"{name}-labels-idx1")
        kept = x[np.isin(y, FOOTWEAR)]
        angles = np.random.default_rng(10 + number).uniform(-LARGEST_ANGLE, LARGEST_ANGLE, len(kept))
        turned = np.stack([ndimage.rotate(p, a, reshape=False, order=1) for p, a in zip(kept, angles, strict=True)])
        parts.append((turned[..., None].astype(np.uint8), (angles / LARGEST_ANGLE).astype(np.float32)))
    (x, y), test = parts
    return Data((x[calibration:], y[calibration:]), (x[:calibration], y[:calibration]), test)


def spoken_words(calibration: int = 500) -> Data:
    """Ten words by twelve voices with six accents, in noise; four of the voices are heard in the test only."""
    rng = np.random.default_rng(20)
    rows = [
        (number, accent, speaker, int(rng.integers(110, 230)), int(rng.integers(20, 80)))
        for number in range(len(WORDS))
        for accent in ACCENTS
        for speaker in SPEAKERS
        for _ in range(6)
    ]
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(lambda row: _speak(WORDS[row[0]], *row[1:]), rows))
    x = np.stack([_spectrogram(_in_noise(sound, rng)) for sound in spoken])[..., None]
    y = np.array([row[0] for row in rows], np.uint8)
    unheard = np.isin([row[2] for row in rows], UNHEARD)
    known = rng.permutation(np.flatnonzero(~unheard))
    apart, rest = known[:calibration], known[calibration:]
    return Data((x[rest], y[rest]), (x[apart], y[apart]), (x[unheard], y[unheard]))


def _idx(name: str) -> NDArray[np.uint8]:
    """Return one file of the data set (http://yann.lecun.com/exdb/mnist/, "IDX")."""
    content = gzip.decompress((FASHION / f"{name}-ubyte.gz").read_bytes())
    shape = np.frombuffer(content, ">u4", content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def _speak(word: str, accent: str, speaker: str, speed: int, pitch: int) -> NDArray[np.float64]:
    command = ["espeak-ng", "--stdout", "-v", f"{accent}+{speaker}", "-s", str(speed), "-p", str(pitch), word]
    content = subprocess.run(command, check=True, capture_output=True).stdout
    # Through a pipe espeak-ng does not know the length it writes into the header.
    samples = np.frombuffer(content[44:], "<i2").astype(np.float64) / 32768
    assert wavfile.read(io.BytesIO(content[:44]))[0] == RATE
    length = int(RATE * SECONDS)
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    begin = int(loud[0]) if len(loud) else 0
    return np.pad(samples[begin : begin + length], (0, max(0, length - len(samples[begin:]))))[:length]


def _in_noise(sound: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Begin somewhere in the first fifth of a second, in noise 3 to 20 dB below the word."""
    moved = np.roll(sound, int(rng.integers(0, RATE // 5)))
    noise = rng.standard_normal(len(moved)) * moved.std() * 10 ** (-rng.uniform(3, 20) / 20)
    return rng.uniform(0.3, 1.0) * (moved + noise)


def _spectrogram(sound: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the log mel spectrogram [frames, mels], natural logarithm."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[::HOP]
    power = np.abs(np.fft.rfft(frames * np.hanning(FRAME))) ** 2
    return np.log(power @ _mel_filters().T + 1e-6).astype(np.float32)


def _mel_filters() -> NDArray[np.float64]:
    """Return triangles evenly spaced in mel from 60 Hz to 8 kHz, as [mels, bins]."""
    mel = np.linspace(*(2595 * np.log10(1 + hz / 700) for hz in (60.0, 8000.0)), MELS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    bins = np.fft.rfftfreq(FRAME, 1 / RATE)
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.maximum(0, np.minimum(rising, falling))
