"""Weights that a quantizer's own scales do not suit: pruned channels, biases beyond 32 bits, products of matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from direct_models import Direct, Net

from quantbuild.errors import StepError
from quantbuild.tflite import graph

SCHEMES: list[tuple[str, dict[str, Any]]] = [
    ("int8", {}),
    ("int8", {"bias_correction": True}),
    ("int8", {"per_tensor_weights": True}),
    ("int8", {"keep_int16": ["second"]}),
    ("int8", {"keep_int16": ["first"]}),
    ("int8", {"keep_int16": ["first"], "per_tensor_weights": True}),
    ("int16x8", {}),
]


def pruned(folder: Path, *, factor: float, bias: float) -> Direct:
    """Two convolutions; the weights of one channel of the first are all but zero, its bias is not."""
    net = Net()
    weights, biases = net.weights(6, 3, 3, 4), np.full(6, 0.1, np.float32)
    weights[2] *= factor
    biases[2] = bias
    x = net.conv(net.input("x", 1, 8, 8, 4), "first", weights, biases)
    return Direct(net.signed(y=net.conv(x, "second", net.weights(3, 3, 3, 6), np.zeros(3, np.float32))), folder)


@pytest.mark.parametrize(("scheme", "options"), SCHEMES)
@pytest.mark.parametrize(("factor", "bias"), [(0.0, 0.5), (0.0, 0.0), (1e-8, -0.5), (1e-39, 0.5), (1e-7, 3.0)])
def test_a_pruned_channel_keeps_its_bias(
    factor: float, bias: float, scheme: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = pruned(tmp_path, factor=factor, bias=bias)
    data, values = model.quantize(scheme, **options)
    assert values["float_ops"] == []
    assert model.sqnr(data)["y"] > (30 if "per_tensor_weights" not in options else 25)


def test_only_channels_without_room_change(tmp_path: Path) -> None:
    model = pruned(tmp_path, factor=0.0, bias=0.5)
    found = graph.read(model.quantize("int16x8")[0])
    main = graph.main(found)
    first = next(op for op in main.operators if graph.op_name(found, op) == "CONV_2D")
    weights, bias = (main.tensors[tensor] for tensor in graph.indices(first.inputs)[1:])
    assert len(weights.quantization.scale) == len(bias.quantization.scale) == 6
    integers = graph.constant(found, weights)
    largest = np.abs(integers).reshape(6, -1).max(axis=1)
    assert largest.tolist() == [127, 127, 0, 127, 127, 127]
    real = graph.constant(found, bias) * bias.quantization.scale
    np.testing.assert_allclose(real, [0.1, 0.1, 0.5, 0.1, 0.1, 0.1], rtol=1e-3)
    assert not [t for t in main.tensors if graph.is_constant(found, t) and not read(main, main.tensors.index(t))]


def read(main: Any, tensor: int) -> bool:
    return tensor in graph.consumers(main)


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("int8", {}), ("int8", {"keep_int16": ["product"]}), ("int8", {"keep_int16": ["dense"]}), ("int16x8", {}),
     ("dynamic", {}), ("weight_only", {})],
)  # fmt: skip
def test_a_product_with_a_constant_matrix_is_right(scheme: str, options: dict[str, Any], tmp_path: Path) -> None:
    net = Net()
    matrix = net.constant(net.weights(2, 5, 6).transpose(0, 2, 1).copy() * np.array([1, 0.1, 3, 1, 1], np.float32))
    x = net.dense(net.input("x", 2, 3, 8), "dense", 6)
    product = net.tensor("product", 2, 3, 5)
    net.op("BATCH_MATMUL", [x, matrix], [product], schema.BatchMatMulOptionsT())
    model = Direct(net.signed(y=net.dense(product, "last", 4)), tmp_path)
    assert model.sqnr(model.quantize(scheme, **options)[0])["y"] > 30


@pytest.mark.parametrize(("scheme", "options"), [("int16x8", {}), ("int8", {"keep_int16": ["second"]})])
def test_16_bits_have_room_for_what_calibration_did_not_see(
    scheme: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Values a little beyond the calibrated range are no reason to lose precision where there is some to spare."""
    model = pruned(tmp_path, factor=1.0, bias=0.1)
    data, _ = model.quantize(scheme, **options)
    seen = model.sqnr(data)["y"]
    model.bounds = {"low": -1.5, "high": 1.5}
    if scheme == "int16x8":
        assert model.sqnr(data)["y"] > seen - 1
    found = graph.read(data)
    main = graph.main(found)
    last = next(t for t in main.tensors if graph.tensor_name(t) == "second" and graph.type_name(t) == "INT16")
    row = model.statistics.tensor_names.index("second")
    low, high = (bound[row] for bound in model.statistics.minmax())
    assert last.quantization.scale[0] * 32767 == pytest.approx(2 * max(-low, high), rel=0.01)


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path: Path) -> None:
    model = pruned(tmp_path, factor=1e6, bias=0.1)
    with pytest.raises(StepError, match=r'"constant/\d+.*": \d+ of its weights are beyond float16 \(65504\); scale'):
        model.quantize("float16")
    assert pruned(tmp_path, factor=1e3, bias=0.1).quantize("float16")
