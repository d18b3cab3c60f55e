"""Tiny real models for the action tests: each is built once a session, with fixed seeds, in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quantbuild.actions import convert
from quantbuild.step import Job


def job(action: str, folder: Path, inputs: dict[str, Path], outputs: dict[str, str], parameters: dict[str, Any]) -> Job:
    """A Job whose outputs and scratch are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return Job(
        step=f"{action}:test",
        action=action,
        parameters=parameters,
        inputs={role: str(path) for role, path in inputs.items()},
        outputs={role: str(folder / name) for role, name in outputs.items()},
        root=str(folder),
        scratch=str(folder),
    )


def converted(source: str, model: Path, folder: Path, **parameters: Any) -> bytes:
    """The float32 .tflite of `model`, written to `folder` too."""
    parameters = {"source": source, "signature": None, "input_shapes": {}} | parameters
    step = job("convert", folder, {"model": model}, {"model": "float32.tflite"}, parameters)
    convert.run(step)
    return Path(step.outputs["model"]).read_bytes()


def build(folder: Path) -> None:
    """Write every model of the tests into `folder`."""
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers

    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(image)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(x), layers.Conv2D(8, 1)(x)])
    x = layers.GlobalAveragePooling2D()(x)
    net = keras.Model(image, layers.Dense(10, activation="softmax", name="probabilities")(x))
    net.save(folder / "net.keras")
    net.export(folder / "net", verbose=False)

    left, right = keras.Input((4,), name="left"), keras.Input((6,), name="right")
    joined = layers.Concatenate()([layers.Dense(5)(left), layers.Dense(3)(right)])
    # Keys in another order than names and layers: positions must not decide.
    pair = keras.Model({"right": right, "left": left}, {"sum": layers.Dense(1)(joined), "all": layers.Dense(3)(joined)})
    pair.save(folder / "pair.keras")
    pair.export(folder / "pair", verbose=False)

    frame = keras.Input((None, None, 3), name="frame")
    free = keras.Model(frame, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(frame))))
    free.save(folder / "free.keras")
    free.export(folder / "free", verbose=False)

    keras.Sequential([keras.Input((5,)), layers.Dense(3, name="scores")]).save(folder / "row.keras")

    words = keras.Input((6,), dtype="int32", name="words")
    keras.Model(words, layers.Dense(2)(layers.Flatten()(layers.Embedding(20, 4)(words)))).save(folder / "words.keras")

    # Wide enough that its first activation (12,544 elements) may be clipped.
    wide = keras.Input((56, 56, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(wide)
    keras.Model(wide, layers.Dense(4)(layers.GlobalAveragePooling2D()(x))).save(folder / "wide.keras")
