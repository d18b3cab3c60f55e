"""int8 by every range method, through TensorFlow's quantizer: models that run, with the scales that were chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from tiny_models import job

from quantbuild.actions import calibrate, histograms, quantize
from quantbuild.tflite import describe, graph, range_options, ranges, same_scale
from quantbuild.tflite.range_options import Name

SHAPE = (1, 24, 24, 6)


def weights(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def converted(function: Callable[[Any], Any], path: Path) -> Path:
    """A function of x [1, 24, 24, 6] as a float .tflite."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(function, input_signature=[tf.TensorSpec(SHAPE, name="x")])
    concrete = module.serve.get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert())
    return path


def chain(x: Any) -> Any:
    """Two convolutions, concatenated, pooled, convolved and reshaped: large to the end."""
    import tensorflow as tf

    first = tf.nn.conv2d(x, weights(0, 3, 3, 6, 8), 1, "SAME")
    second = tf.nn.relu(tf.nn.conv2d(x, weights(1, 1, 1, 6, 8), 1, "SAME"))
    pooled = tf.nn.max_pool2d(tf.concat([first, second], -1), 2, 1, "SAME")
    return tf.reshape(tf.nn.conv2d(pooled, weights(2, 1, 1, 16, 5), 1, "SAME"), [1, 576, 5])


class Prepared:
    """A folder with a float model, its calibration set and what two passes over that give."""

    def __init__(self, function: Callable[[Any], Any], samples: np.ndarray, folder: Path) -> None:
        self.folder, self.samples = folder, samples
        self.model = converted(function, folder / "float32.tflite")
        np.savez(folder / "data.npz", x=samples)
        options = {"path": "data.npz", "input": "x"}
        dataset = {"loader": "npz", "options": options, "samples": None, "seed": 0, "name": "tiny"}
        parameters = {"dataset": dataset, "hold_back": None}
        inputs = {"model": self.model, "data": folder / "data.npz"}
        calibrate.run(job("calibrate", folder, inputs, {"statistics": "s.npz"}, parameters | {"statistics": "all"}))
        self.inputs = {"model": self.model, "statistics": folder / "s.npz"}
        histograms.run(job("histograms", folder, {**inputs, **self.inputs}, {"histograms": "h.npz"}, parameters))

    def quantize(self, choice: Any) -> tuple[bytes, dict[str, Any]]:
        needed = range_options.needs_histograms(choice)
        inputs = self.inputs | ({"histograms": self.folder / "h.npz"} if needed else {})
        options = {"ranges": choice}
        step = job("quantize", self.folder, inputs, {"model": "int8.tflite"}, {"scheme": "int8", "options": options})
        values = quantize.run(step)
        return Path(step.outputs["model"]).read_bytes(), values


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    samples = np.random.default_rng(3).normal(0, 1, (8, *SHAPE[1:])).astype(np.float32)
    samples[-1, :2, :2] *= 20  # what a method may clip
    return Prepared(chain, samples, tmp_path_factory.mktemp("chain"))


def run(model: bytes, x: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    (result,) = Interpreter(model_content=model).get_signature_runner("serving_default")(x=x).values()
    return np.asarray(result)


def scales(model: graph.ModelT) -> dict[int, tuple[float, int]]:
    """Tensor → scale and zero point, of those that have one of each."""
    return {
        index: (float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]))
        for index, tensor in enumerate(graph.main(model).tensors)
        if tensor.quantization is not None and tensor.quantization.scale is not None
        if len(tensor.quantization.scale) == 1
    }


def output_step(model: bytes) -> float:
    parsed = describe.read(model)
    (dequantize,) = (
        operator
        for operator, name in zip(graph.main(parsed).operators, graph.op_names(parsed), strict=True)
        if name == "DEQUANTIZE"
    )
    return scales(parsed)[graph.indices(dequantize.inputs)[0]][0]


@pytest.mark.parametrize("choice", get_args(Name))
def test_every_method_gives_a_whole_integer_model_that_runs(prepared: Prepared, choice: Name) -> None:
    data, values = prepared.quantize(choice)
    assert values["float_ops"] == []
    assert values["ranges"] == range_options.words(choice)
    assert (values["clipped_tensors"] > 0) == (choice != "minmax")
    assert (values["most_clipped"] is None) == (choice == "minmax")
    ordinary = prepared.samples[:1]
    expected = run(prepared.model.read_bytes(), ordinary)
    # The worst that rounding the input, two layers and the output may add up to, in steps of the output.
    assert np.abs(run(data, ordinary) - expected).max() < 4 * output_step(data)


@pytest.mark.parametrize("choice", ["sample_mean", "percentile", "mse", "kl"])
def test_a_reshaped_output_keeps_its_range_and_what_is_in_front_of_it_is_clipped(
    prepared: Prepared, choice: Name
) -> None:
    """The quantizer gives a RESHAPE's result the range of its operand, which by itself may be clipped."""
    widest, clipped = (prepared.quantize(each)[0] for each in ("minmax", choice))
    assert output_step(clipped) == output_step(widest)
    parsed = describe.read(clipped)
    found = {graph.tensor_name(graph.main(parsed).tensors[t]): scale for t, (scale, _) in scales(parsed).items()}
    concatenated = next(name for name in found if "concat" in name)
    wide = describe.read(widest)
    before = {graph.tensor_name(graph.main(wide).tensors[t]): scale for t, (scale, _) in scales(wide).items()}
    assert found[concatenated] < 0.95 * before[concatenated]


def test_what_the_quantizer_gives_one_scale_is_what_is_taken_to_share_one(tmp_path: Path) -> None:
    """Ranges that are all different; after quantization the tensors of such an op have one scale, others do not."""
    import tensorflow as tf

    def many(x: Any) -> Any:
        def conv(y: Any, seed: int) -> Any:
            return tf.nn.conv2d(y, weights(seed, 1, 1, y.shape[-1], 6), 1, "SAME")

        first, second = conv(x, 0), conv(x, 1)
        joined = conv(tf.concat([first, second], -1), 2)
        larger = conv(tf.maximum(conv(joined, 3), conv(joined, 4)), 5)
        pooled = conv(tf.nn.max_pool2d(tf.pad(larger, [[0, 0], [1, 1], [1, 1], [0, 0]]), 2, 2, "SAME"), 6)
        averaged = conv(tf.nn.avg_pool2d(tf.transpose(pooled, [0, 2, 1, 3]), 2, 1, "SAME"), 7)
        resized = conv(tf.compat.v1.image.resize_bilinear(averaged[:, 1:, 1:], (24, 24)), 8)
        tiled = conv(tf.tile(tf.reduce_max(resized, 1, keepdims=True), [1, 24, 1, 1]), 9)
        spread = conv(tf.nn.space_to_depth(tiled, 2), 10)
        halves = tf.split(spread, 2, 1)
        mixed = conv(halves[0] * 0.5 + halves[1], 11) * conv(halves[1], 12)
        return tf.reduce_mean(tf.gather(mixed, [0, 2], axis=1), [1, 2])

    from tensorflow.lite.python.convert import mlir_quantize

    model = graph.read(converted(many, tmp_path / "many.tflite").read_bytes())
    distinct = {tensor: (-1.0 - 0.07 * i, 1.0 + 0.05 * i) for i, tensor in enumerate(graph.activations(model))}
    ranges.inject(model, distinct)
    quantized = describe.read(bytes(mlir_quantize(graph.write(model), fully_quantize=False)))
    found, seen = scales(quantized), set()
    for operator, name in zip(graph.main(quantized).operators, graph.op_names(quantized), strict=True):
        tensors = [*graph.indices(operator.inputs), *graph.indices(operator.outputs)]
        kinds = {found[tensor] for tensor in tensors if tensor in found}
        if name in same_scale.SAME_SCALE_OPS:
            assert len(kinds) == 1, name
            seen.add(name)
        elif name in {"ADD", "MUL", "MEAN"}:
            assert len(kinds) > 1, name
    assert seen >= {
        *("AVERAGE_POOL_2D", "CONCATENATION", "GATHER", "MAXIMUM", "MAX_POOL_2D", "PAD", "REDUCE_MAX"),
        *("RESIZE_BILINEAR", "SPACE_TO_DEPTH", "SPLIT", "STRIDED_SLICE", "TILE", "TRANSPOSE"),
    }


def test_a_layer_that_is_always_zero_does_not_keep_the_model_from_loading(tmp_path: Path) -> None:
    """With an empty range XNNPACK refuses the op that makes the zeros: its scale would be 1e-8."""
    import tensorflow as tf

    def dead(x: Any) -> Any:
        below = tf.nn.relu(tf.nn.conv2d(x, weights(0, 1, 1, 6, 8), 1, "SAME") - 1e3)
        return tf.reduce_mean(tf.nn.conv2d(below, weights(1, 1, 1, 8, 4), 1, "SAME") + 1.0, [1, 2])

    samples = np.random.default_rng(0).normal(0, 1, (3, *SHAPE[1:])).astype(np.float32)
    data, _ = Prepared(dead, samples, tmp_path).quantize("minmax")
    np.testing.assert_allclose(run(data, samples[:1]), np.ones((1, 4)), atol=0.02)
