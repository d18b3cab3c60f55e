"""probe: an artifact counts only if it loads, runs and gives numbers; its description says what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import converted, job

from quantbuild.actions import probe
from quantbuild.errors import StepError
from quantbuild.tflite import graph


@pytest.fixture(scope="session")
def net(models: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return converted("keras", models / "net.keras", tmp_path_factory.mktemp("net"))


def probed(data: bytes, folder: Path, **parameters: Any) -> dict[str, Any]:
    path = folder / "model.tflite"
    path.write_bytes(data)
    step = job("probe", folder, {"model": path}, {"description": "artifact.json"}, {"runtime": True} | parameters)
    values = probe.run(step)
    assert json.loads(Path(step.outputs["description"]).read_text(encoding="utf-8")) == values
    return values


def test_a_float_model_is_described(net: bytes, tmp_path: Path) -> None:
    about = probed(net, tmp_path)
    assert about["signature"] == "serving_default"
    assert about["inputs"] == [
        {
            "name": "image",
            "tensor": "serving_default_image:0",
            "shape": [1, 16, 16, 3],
            "dtype": "float32",
            "scale": None,
            "zero_point": None,
        }
    ]
    assert about["ops"]["CONV_2D"] == 2
    assert sum(about["ops"].values()) == len(about["float_ops"])
    assert about["size_bytes"] == len(net)
    assert about["minimal_runtime"].count(".") == 2
    assert about["runtime"]["name"] == "ai-edge-litert"
    assert about["constant_outputs"] == []
    assert about["non_finite_outputs"] == []


def test_without_the_runtime_nothing_is_run(net: bytes, tmp_path: Path) -> None:
    assert "runtime" not in probed(net, tmp_path, runtime=False)


@pytest.mark.parametrize("keep", [0, 3, 20, 200, 0.5, 0.98])
def test_a_truncated_file_is_a_plain_error(net: bytes, tmp_path: Path, keep: float) -> None:
    size = keep if isinstance(keep, int) else int(len(net) * keep)
    with pytest.raises(StepError, match=r"truncated or corrupt|not a \.tflite"):
        probed(net[:size], tmp_path)


def test_a_file_of_another_kind_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"not a \.tflite"):
        probed(b"<html>not found</html>" * 20, tmp_path)


def with_weights(data: bytes, value: float) -> bytes:
    """The model with the kernel of the last dense layer set to `value`."""
    model = graph.read(data)
    names = graph.op_names(model)
    operator = graph.main(model).operators[names.index("FULLY_CONNECTED")]
    for index in graph.indices(operator.inputs)[1:2]:
        tensor = graph.main(model).tensors[index]
        constant = graph.constant(model, tensor)
        assert constant is not None
        model.buffers[tensor.buffer].data = np.frombuffer(np.full_like(constant, value).tobytes(), np.uint8)
    return graph.write(model)


def test_an_output_that_nothing_moves_is_reported(net: bytes, tmp_path: Path) -> None:
    assert probed(with_weights(net, 0.0), tmp_path)["constant_outputs"] == ["probabilities"]


def test_outputs_that_are_never_finite_are_an_error(net: bytes, tmp_path: Path) -> None:
    with pytest.raises(StepError, match='output "probabilities" is NaN or infinite on zeros and on a ramp'):
        probed(with_weights(net, float("nan")), tmp_path)


def test_a_model_that_cannot_run_is_a_plain_error(net: bytes, tmp_path: Path) -> None:
    model = graph.read(net)
    operator = graph.main(model).operators[graph.op_names(model).index("ADD")]
    # Two shapes that do not broadcast.
    operator.inputs = [graph.indices(operator.inputs)[0], graph.indices(graph.main(model).inputs)[0]]
    with pytest.raises(StepError, match="LiteRT"):
        probed(graph.write(model), tmp_path)


def test_ops_between_dequantize_and_quantize_are_float_and_the_borders_are_not(tmp_path: Path) -> None:
    """Int8 model whose middle op stayed float: what the converter leaves for an op without int8 kernel."""
    import tensorflow as tf

    inputs = tf.keras.Input((8,), name="x")
    middle = tf.keras.layers.Dense(4)(inputs)
    outputs = tf.keras.layers.Dense(2, name="y")(tf.keras.ops.sin(middle))
    converter = tf.lite.TFLiteConverter.from_keras_model(tf.keras.Model(inputs, outputs))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([np.random.default_rng(i).random((1, 8), np.float32)] for i in range(4))
    about = probed(converter.convert(), tmp_path)
    assert {entry["op"] for entry in about["float_ops"]} == {"DEQUANTIZE", "SIN", "QUANTIZE"}
    assert about["ops"]["QUANTIZE"] == 2  # the model input's is no float op


@pytest.mark.parametrize(
    ("dtype", "quantized", "low", "high"),
    [(np.float32, False, 0, 1), (np.int8, True, -65, 64), (np.uint8, True, 63, 192), (np.int32, False, 0, 1)],
)
def test_ramps_stay_inside_what_an_input_can_hold(dtype: Any, quantized: bool, low: float, high: float) -> None:
    ramp = probe.probe_input(probe.RAMP, (1, 50), dtype, quantized)
    assert ramp.dtype == dtype
    assert ramp.shape == (1, 50)
    assert low <= ramp.min() < ramp.max() <= high
    assert not probe.probe_input(probe.ZEROS, (1, 50), dtype, quantized).any()
