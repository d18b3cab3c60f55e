"""Makes the float models of the calibration tests: run as ``python calibration_models.py FOLDER``.

A program of its own because TensorFlow leaks and must not be imported into the test process. Each model
is NAME.tflite; residual-converter.tflite holds the ranges that the converter's calibrator recorded on
residual-samples.npy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

layers = tf.keras.layers


def residual() -> tf.keras.Model:
    """Convolutions with an ADD and a MUL, which the runtime may compute in place."""
    image = tf.keras.Input(batch_shape=(1, 16, 16, 3), name="image")
    trunk = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    branch = layers.Conv2D(8, 3, padding="same")(trunk)
    trunk = layers.Add()([trunk, branch])
    branch = layers.Conv2D(8, 1)(trunk)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(trunk)
    trunk = layers.Add()([layers.Multiply()([branch, gate]), trunk])
    return tf.keras.Model(image, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling2D()(trunk)))


def two_inputs(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return tf.concat([first * 2.0, second - 1.0], axis=1)


def hides_nan(x: tf.Tensor) -> tf.Tensor:
    """The root of a negative number is NaN; the comparison leaves none in the output."""
    root = tf.sqrt(x)
    return tf.where(root > 1.0, root, tf.zeros_like(root)) + 1.0


def scalar(x: tf.Tensor) -> tf.Tensor:
    return x * tf.sqrt(tf.reduce_sum(tf.square(x)))


def huge(x: tf.Tensor) -> tf.Tensor:
    """Finite values whose squares are not, as an attention mask's are."""
    return tf.nn.softmax(x * 1e30)


def loop(x: tf.Tensor) -> tf.Tensor:
    doubled = tf.while_loop(lambda i, _: i < 3, lambda i, y: (i + 1, tf.tanh(y) * 2.0), (tf.constant(0), x))[1]
    return doubled + 1.0


def embedding(ids: tf.Tensor) -> tf.Tensor:
    return tf.gather(tf.constant(np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4)), ids)


FUNCTIONS = {
    "two_inputs": (two_inputs, {"first": ((1, 4), "float32"), "second": ((1, 3), "float32")}),
    "hides_nan": (hides_nan, {"x": ((1, 6), "float32")}),
    "scalar": (scalar, {"x": ((1, 6), "float32")}),
    "huge": (huge, {"x": ((1, 6), "float32")}),
    "loop": (loop, {"x": ((1, 6), "float32")}),
    "embedding": (embedding, {"ids": ((1, 3), "int32")}),
}


def from_function(function: object, inputs: dict[str, tuple[tuple[int, ...], str]]) -> bytes:
    class Module(tf.Module):
        pass

    module = Module()
    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]
    module.serve = tf.function(function, input_signature=specs)
    concrete = module.serve.get_concrete_function()
    return tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()


def converter_ranges(model: bytes, samples: np.ndarray) -> bytes:
    """The float model with the minimum and maximum that tf.lite's own calibrator recorded."""
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    return Calibrator(model).calibrate(lambda: ([sample] for sample in samples))


def main(folder: Path) -> None:
    tf.keras.utils.set_random_seed(0)
    model = tf.lite.TFLiteConverter.from_keras_model(residual()).convert()
    (folder / "residual.tflite").write_bytes(model)
    for name, (function, inputs) in FUNCTIONS.items():
        (folder / f"{name}.tflite").write_bytes(from_function(function, inputs))
    samples = np.random.default_rng(1).standard_normal((12, 1, 16, 16, 3)).astype(np.float32)
    np.save(folder / "residual-samples.npy", samples)
    (folder / "residual-converter.tflite").write_bytes(converter_ranges(model, samples))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
