"""Float models for the tests of equalization and bias correction, and what both tests do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from quantbuild.tflite import calibration, capabilities, graph, ranges
from quantbuild.tflite.statistics_file import Statistics

SHAPE = (1, 12, 12, 4)
"""Of every model's only input."""


class Net:
    """Layers with seeded weights, the same in each model."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def weights(self, *shape: int) -> Any:
        # Scaled by what they sum over, so that activations stay near 1 however deep the model is.
        size = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.3
        return tf.constant((self._generator.standard_normal(shape) * size).astype(np.float32))

    def conv(self, x: Any, filters: int, size: int = 3, groups: int = 1, padding: str = "SAME") -> Any:
        weights = self.weights(size, size, x.shape[-1] // groups, filters)
        return tf.nn.conv2d(x, weights, 1, padding) + self.weights(filters)

    def depthwise(self, x: Any, multiplier: int = 1) -> Any:
        weights = self.weights(3, 3, x.shape[-1], multiplier)
        return tf.nn.depthwise_conv2d(x, weights, [1, 1, 1, 1], "SAME") + self.weights(x.shape[-1] * multiplier)

    def dense(self, x: Any, units: int) -> Any:
        return tf.matmul(x, self.weights(x.shape[-1], units)) + self.weights(units)

    def head(self, x: Any) -> Any:
        return self.dense(tf.reduce_mean(x, [1, 2]), 5)


def depthwise_block(net: Net, x: Any) -> Any:
    x = tf.nn.relu(net.depthwise(tf.nn.relu(net.conv(x, 6)), 2))
    return net.head(tf.nn.relu(net.conv(x, 8, 1)))


def residual(net: Net, x: Any) -> Any:
    x = net.conv(x, 8)
    for _ in range(2):
        x = x + net.conv(tf.nn.relu(net.conv(x, 12, 1)), 8)
    x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return net.head(tf.nn.relu(net.conv(x, 6, padding="VALID")))


def pooled(net: Net, x: Any) -> Any:
    x = tf.nn.max_pool2d(tf.nn.leaky_relu(net.conv(x, 6)), 2, 2, "SAME")
    x = tf.nn.avg_pool2d(net.conv(x, 8), 2, 2, "SAME")
    return net.dense(tf.reshape(x, [1, 72]), 5)


def grouped(net: Net, x: Any) -> Any:
    return net.head(net.conv(tf.nn.relu(net.conv(tf.nn.relu(net.conv(x, 8)), 8, groups=2)), 6))


def transposed(net: Net, x: Any) -> Any:
    x = tf.nn.relu(net.conv(x, 6))
    x = tf.nn.conv2d_transpose(x, net.weights(3, 3, 8, 6), [1, 24, 24, 8], 2, "SAME") + net.weights(8)
    return net.head(tf.nn.relu(x))


def rows(net: Net, x: Any) -> Any:
    """Dense layers on the last axis of three, which FULLY_CONNECTED does with keep_num_dims."""
    return net.dense(tf.nn.relu(net.dense(tf.reshape(x, [1, 48, 12]), 10)), 7)


def offset(net: Net, x: Any) -> Any:
    x = tf.nn.relu(net.conv(x, 6)) - net.weights(12, 12, 6)
    x = tf.maximum(x, net.weights(6) * 0.1) * tf.abs(net.weights(6))
    return net.head(net.conv(x, 6))


def gated(net: Net, x: Any) -> Any:
    x = tf.nn.relu(net.conv(x, 6))
    squeezed = tf.nn.relu(net.conv(tf.reduce_mean(x, [1, 2], keepdims=True), 4, 1))
    return net.head(net.conv(x * tf.sigmoid(net.conv(squeezed, 6, 1)), 8))


def shared(net: Net, x: Any) -> Any:
    """One constant is the weights of two layers, another their bias and what is added at the end."""
    weights, bias = net.weights(3, 3, 6, 6), net.weights(6)
    x = tf.nn.relu(net.conv(x, 6))
    x = tf.nn.relu(tf.nn.conv2d(x, weights, 1, "SAME") + bias)
    return net.head(tf.tanh(tf.nn.conv2d(x, weights, 1, "SAME") + bias) + bias)


def capped(net: Net, x: Any) -> Any:
    return net.head(net.conv(tf.nn.relu6(net.conv(x, 6)), 8))


def joined(net: Net, x: Any) -> Any:
    return net.head(net.conv(tf.concat([net.conv(x, 4), net.conv(x, 2)], -1), 8))


def several_outputs(net: Net, x: Any) -> Any:
    inner = tf.nn.relu(net.conv(x, 6))
    return {"inner": inner, "scores": net.head(net.conv(inner, 8))}


def several_readers(net: Net, x: Any) -> Any:
    x = tf.nn.relu(net.conv(x, 6))
    return net.head(net.conv(x, 8) + net.conv(x, 8, 1) + net.depthwise(x)[..., :1])


def without_bias(net: Net, x: Any) -> Any:
    x = tf.nn.conv2d_transpose(tf.nn.relu(net.conv(x, 6)), net.weights(3, 3, 8, 6), [1, 24, 24, 8], 2, "SAME")
    return tf.matmul(tf.reduce_mean(tf.tanh(x), [1, 2]), net.weights(8, 5))


def made_weights(net: Net, x: Any) -> Any:
    """The first layer's weights are an activation."""
    return net.head(tf.nn.relu(tf.nn.conv2d(x, net.weights(3, 3, 4, 6) * x[0, 0, 0, 0], 1, "SAME")))


MODELS = {
    function.__name__: function
    for function in (
        depthwise_block, residual, pooled, grouped, transposed, rows, offset, gated,
        shared, capped, joined, several_outputs, several_readers, without_bias, made_weights,
    )
}  # fmt: skip


def build(name: str) -> bytes:
    """The float32 .tflite of one of `MODELS`."""
    serve = tf.function(lambda x: MODELS[name](Net(), x), input_signature=[tf.TensorSpec(SHAPE, name="x")])
    module = tf.Module()
    module.serve = serve
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], module).convert())


def samples(count: int, seed: int = 1) -> list[np.ndarray]:
    """Inputs with different means in their channels, as pictures have them."""
    generator = np.random.default_rng(seed)
    drawn = generator.random((count, *SHAPE), np.float32)
    return list(drawn * np.array([1, 2, 0.5, 1], np.float32) - np.array([0, 1, 0, 0.5], np.float32))


def statistics(model: bytes, inputs: list[np.ndarray], interpreters: int | None = None) -> Statistics:
    """What the calibrate step measures."""
    tensor = graph.indices(graph.main(graph.read(model)).inputs)[0]
    feeds = ((number, {tensor: value}) for number, value in enumerate(inputs))
    return calibration.calibrate(model, feeds, interpreters=interpreters).statistics


def quantized(model: graph.ModelT, measured: Statistics) -> bytes:
    """The int8 artifact, as the scheme makes it with minmax ranges."""
    ranges.inject(model, ranges.choose(model, measured, "minmax"))
    return bytes(
        capabilities.mlir_quantize()(
            graph.write(model),
            disable_per_channel=False,
            fully_quantize=False,
            input_data_type=tf.float32,
            output_data_type=tf.float32,
        )
    )


def outputs(model: bytes, inputs: list[np.ndarray]) -> np.ndarray:
    """All outputs of each sample, one after the other: [samples, elements]."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=model)
    runner = interpreter.get_signature_runner()
    return np.array([np.concatenate([v.ravel() for _, v in sorted(runner(x=x).items())]) for x in inputs])


def sqnr_db(exact: np.ndarray, found: np.ndarray) -> float:
    """Signal to quantization noise."""
    exact = exact.astype(np.float64)
    return float(10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum()))
