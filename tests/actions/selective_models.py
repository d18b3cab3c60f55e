"""Models for the tests of selective precision, with their statistics; each is made once a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from tiny_models import converted, job

from quantbuild.actions import calibrate, quantize
from quantbuild.tflite import runtime

SAMPLES = 12
SHAPES = {"branches": (16, 16, 8), "loud": (16, 16, 4), "awkward": (8, 8, 4), "loop": (6, 4)}


def build(name: str, folder: Path) -> None:
    """Write ``folder/NAME.keras``."""
    import keras

    keras.utils.set_random_seed(3)
    layers, ops = keras.layers, keras.ops
    image = keras.Input(SHAPES[name], name="image")
    outputs: Any
    if name == "branches":  # a fused activation, a split, a concatenation, a residual sum, an output that an op reads
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
        left, right = ops.split(x, 2, axis=-1)
        left = layers.Conv2D(4, 3, padding="same", name="left")(left)
        right = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="right")(right)
        x = layers.Add(name="sum")([layers.Concatenate(name="both")([left, right]), x])
        x = layers.LeakyReLU(name="leaky")(x)
        x = layers.Conv2D(6, 1, name="narrow")(layers.MaxPooling2D(2, name="pool")(x))
        logits = layers.Dense(10, name="logits")(layers.GlobalAveragePooling2D(name="mean")(x))
        outputs = [layers.Softmax(name="scores")(logits), logits]
    elif name == "loud":  # one channel 300 times louder than the others, and the convolution behind it set right
        x = layers.Conv2D(16, 3, padding="same", activation="relu", name="first")(image)
        x = layers.Conv2D(16, 3, padding="same", activation="relu", name="loud")(x)
        x = layers.Conv2D(16, 3, padding="same", activation="relu", name="quiet")(
            layers.MaxPooling2D(2, name="pool")(x)
        )
        x = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(16, 3, activation="relu", name="after")(x))
        outputs = layers.Dense(8, name="scores")(x)
    elif name == "loop":  # a WHILE, whose body has no ranges
        outputs = layers.Dense(2, name="scores")(layers.LSTM(5)(image))
    else:  # ops that have no kernel at 16 bits, or one that fails
        x = layers.Conv2D(4, 3, padding="same", name="stem")(image)
        x = layers.LayerNormalization(name="norm")(x)
        x = x / (ops.abs(x) + 1.0)
        outputs = layers.Dense(3, name="scores")(layers.Flatten()(layers.LeakyReLU(name="leaky")(x)))
    model = keras.Model(image, outputs)
    if name == "loud":
        for layer, scale, channel in (("loud", 300.0, np.s_[..., 0]), ("quiet", 1 / 300, np.s_[:, :, 0])):
            weights, bias = model.get_layer(layer).get_weights()
            weights[channel] *= scale
            model.get_layer(layer).set_weights([weights, bias])
    model.save(folder / f"{name}.keras")


def samples(name: str, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Return samples of a model, the calibration's own for seed 0."""
    values = np.random.default_rng(seed).standard_normal((SAMPLES, 1, *SHAPES[name])).astype(np.float32)
    return [{"image": value} for value in values]


class Calibrated:
    """A model's float32.tflite and statistics."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.float32 = name, folder, folder / "float32.tflite"
        build(name, folder)
        self.data = converted("keras", folder / f"{name}.keras", folder)
        np.savez(folder / "data.npz", image=np.concatenate([sample["image"] for sample in samples(name)]))
        dataset = {"loader": "npz", "options": {"path": "data.npz", "input": "image"}, "samples": None, "seed": 0}
        parameters = {"dataset": dataset | {"name": "made"}, "hold_back": None, "statistics": "all"}
        inputs = {"model": self.float32, "data": folder / "data.npz"}
        calibrate.run(job("calibrate", folder, inputs, {"statistics": "statistics.npz"}, parameters))

    def quantize(self, scheme: str, **options: Any) -> tuple[bytes, dict[str, Any]]:
        """Return the artifact and the step's values."""
        inputs = {"model": self.float32}
        if scheme in ("int8", "int16x8"):
            inputs["statistics"] = self.folder / "statistics.npz"
            options.setdefault("ranges", "minmax")
        parameters = {"scheme": scheme, "options": options}
        step = job("quantize", self.folder, inputs, {"model": "model.tflite"}, parameters)
        values = quantize.run(step)
        msgspec.json.encode(values)
        return Path(step.outputs["model"]).read_bytes(), values

    def sqnr(self, data: bytes, seed: int = 9) -> dict[str, float]:
        """Return the SQNR of each output in dB, on samples that shaped nothing, or those of `seed`."""
        exact, found = (
            runtime.Binding(runtime.open_interpreter(self.data)),
            runtime.Binding(runtime.open_interpreter(data)),
        )
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for sample in samples(self.name, seed):
            values, others = exact.run(sample), found.run(sample)
            for port, value in values.items():
                signal[port] = signal.get(port, 0.0) + float(np.square(value, dtype=np.float64).sum())
                noise[port] = noise.get(port, 0.0) + float(np.square(value - others[port], dtype=np.float64).sum())
        return {port: 10 * float(np.log10(signal[port] / max(noise[port], 1e-30))) for port in signal}
