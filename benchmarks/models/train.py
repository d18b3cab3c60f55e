"""Train a model and harm it: ``python -m models.train NAME FOLDER`` writes NAME/model.keras and NAME/data.npz.

`harmed` writes `uneven` and `peaks`, which are `mobile` harmed. Every seed is fixed. The data keep what the
manifest says of them: pictures are uint8, to be divided by 255.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from models import data, harm, nets

SEED = 2026
KEPT = 1e-4
"""By how much a probability of a harmed model may differ from the sound one's: float32 rounding."""


def write(folder: Path, model: Any, found: data.Data) -> None:
    """Write a model and its data."""
    folder.mkdir(parents=True, exist_ok=True)
    (x, y), (x_test, y_test) = found.calibration, found.test
    np.savez_compressed(folder / "data.npz", x=x, y=y, x_test=x_test, y_test=y_test)
    model.save(folder / "model.keras")  # last: who finds it finds all


def fitted(model: Any, found: data.Data, loss: str, epochs: int, scale: float, rate: float = 3e-3) -> Any:
    """Train a model with Adam and a learning rate that falls to zero."""
    x, y = found.train
    steps = epochs * (len(x) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(keras.optimizers.Adam(schedule), loss)
    model.fit(x.astype(np.float32) / scale, y, batch_size=128, epochs=epochs, verbose=2, shuffle=True)
    return model


def mobile(folder: Path) -> None:
    """Train `mobile` and write it."""
    found = data.clothes()
    write(folder / "mobile", fitted(nets.mobile(), found, "sparse_categorical_crossentropy", 6, 255), found)


def harmed(folder: Path) -> None:
    """Harm `mobile` in two ways and write both. Raises ValueError where that changes the function."""
    found = data.clothes()
    sound = keras.models.load_model(folder / "mobile/model.keras")
    samples = found.calibration[0].astype(np.float32) / 255
    uneven = nets.mobile()
    uneven.set_weights(sound.get_weights())
    harm.scale_channels(uneven)
    peaks = nets.mobile(1, len(harm.PEAKS))
    harm.add_peaks(sound, peaks, samples)
    expected = sound.predict(samples, verbose=0)
    for name, model in (("uneven", uneven), ("peaks", peaks)):
        apart = float(np.abs(model.predict(samples, verbose=0) - expected).max())
        print(f"{name}: probabilities at most {apart:.1e} from the sound model's")
        if not apart <= KEPT:
            raise ValueError(f"{name} is another function: {apart}")
        write(folder / name, model, found)


def angle(folder: Path) -> None:
    """Train `angle` and write it."""
    found = data.turned_shoes()
    write(folder / "angle", fitted(nets.angle(), found, "mse", 8, 255, 1e-3), found)


def words(folder: Path) -> None:
    """Train `words` and write it."""
    found = data.spoken_words()
    write(folder / "words", fitted(nets.words(), found, "sparse_categorical_crossentropy", 12, 1), found)


def main() -> None:
    keras.utils.set_random_seed(SEED)
    {"mobile": mobile, "harmed": harmed, "angle": angle, "words": words}[sys.argv[1]](Path(sys.argv[2]))


if __name__ == "__main__":
    main()
