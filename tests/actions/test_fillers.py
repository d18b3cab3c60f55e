"""Attention masks and paddings of −10⁴ and far below mean "never", and cost other values no precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from direct_models import Direct, Net

from quantbuild.tflite import floors, graph, ranges

SCHEMES: list[tuple[str, dict[str, Any]]] = [
    ("int8", {}),
    ("int8", {"ranges": "sample_mean", "bias_correction": True}),
    ("int8", {"keep_float": ["op:SOFTMAX"]}),
    ("int8", {"keep_int16": ["op:SOFTMAX"]}),
    ("int16x8", {}),
]
TOKENS = 16


def beyond(net: Net, given: int, size: tuple[int, ...]) -> int:
    """Whether each value of `given` is above 0.2, as 1 and 0."""
    truth, number = net.tensor("truth", *size, kind=schema.TensorType.BOOL), net.tensor("number", *size)
    net.op("GREATER", [given, net.constant(np.array(0.2, np.float32))], [truth], schema.GreaterOptionsT())
    options = schema.CastOptionsT(inDataType=schema.TensorType.BOOL, outDataType=schema.TensorType.FLOAT32)
    return net.op("CAST", [truth], [number], options)


def attended(net: Net, x: int, scores: int) -> dict[str, int]:
    """What a SOFTMAX over masked scores makes of values."""
    weights = net.tensor("weights", TOKENS, TOKENS)
    net.op("SOFTMAX", [scores], [weights], schema.SoftmaxOptionsT(beta=1.0))
    mixed = net.tensor("mixed", TOKENS, 6)
    net.op("BATCH_MATMUL", [weights, net.dense(x, "values", 6)], [mixed], schema.BatchMatMulOptionsT())
    return {"y": net.dense(mixed, "last", 4)}


def scored(net: Net) -> tuple[int, int]:
    x = net.input("x", TOKENS, 8)
    return x, net.dense(net.dense(x, "hidden", 12), "scores", TOKENS)


def added(folder: Path, filler: float) -> Direct:
    """A mask of ones and zeros times the filler, moved into shape, added to the scores."""
    net = Net()
    x, scores = scored(net)
    mask = beyond(net, net.input("mask", TOKENS), (TOKENS,))
    product = net.tensor("product", TOKENS)
    net.op("MUL", [mask, net.constant(np.array(filler, np.float32))], [product], schema.MulOptionsT())
    row = net.reshape(product, "row", 1, TOKENS)
    return Direct(net.signed(**attended(net, x, net.add(scores, row, "masked", TOKENS, TOKENS))), folder)


def selected(folder: Path, filler: float) -> Direct:
    """The filler in the place of scores."""
    net = Net()
    x, scores = scored(net)
    truth = net.tensor("truth", 1, TOKENS, kind=schema.TensorType.BOOL)
    limit = net.constant(np.array(0.2, np.float32))
    net.op("LESS", [net.input("mask", 1, TOKENS), limit], [truth], schema.LessOptionsT())
    masked = net.tensor("masked", TOKENS, TOKENS)
    fill = net.constant(np.full((1, 1), filler, np.float32))
    net.op("SELECT_V2", [truth, scores, fill], [masked], schema.SelectV2OptionsT())
    return Direct(net.signed(**attended(net, x, masked)), folder)


def pooled(folder: Path, filler: float) -> Direct:
    """A padding of the filler before a pool."""
    net = Net()
    x = net.conv(net.input("x", 1, 8, 8, 4), "first", net.weights(6, 3, 3, 4), np.full(6, 0.1, np.float32))
    amounts = net.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = net.tensor("padded", 1, 10, 10, 6)
    net.op("PADV2", [x, amounts, net.constant(np.array(filler, np.float32))], [padded], schema.PadV2OptionsT())
    options = schema.Pool2DOptionsT(filterHeight=3, filterWidth=3, strideH=2, strideW=2, padding=schema.Padding.VALID)
    pool = net.op("MAX_POOL_2D", [padded], [net.tensor("pool", 1, 4, 4, 6)], options)
    return Direct(net.signed(y=net.conv(pool, "second", net.weights(3, 3, 3, 6), np.zeros(3, np.float32))), folder)


@pytest.mark.parametrize(("scheme", "options"), SCHEMES)
@pytest.mark.parametrize("make", [added, selected])
@pytest.mark.parametrize("filler", [-1e4, -1e9, -3e38])
def test_a_mask_leaves_the_scores_their_precision(
    make: Any, filler: float, scheme: str, options: dict[str, Any], tmp_path: Path
) -> None:
    model = make(tmp_path, filler)
    data, _ = model.quantize(scheme, **options)
    for kind in ("calibration", "test"):
        assert model.sqnr(data, kind)["y"] > (25 if scheme == "int8" else 30)


@pytest.mark.parametrize(("scheme", "options"), SCHEMES[:2] + SCHEMES[4:])
def test_a_padding_before_a_pool_leaves_the_values_theirs(scheme: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = pooled(tmp_path, -3e38)
    assert model.sqnr(model.quantize(scheme, **options)[0])["y"] > 30


def test_what_is_no_filler_keeps_its_range(tmp_path: Path) -> None:
    """Low scores, masks that something else reads, and paddings that a sum reads count as they are."""
    for make, filler in ((added, -30.0), (selected, -30.0)):
        model = make(tmp_path, filler)
        assert floors.raised(graph.read(model.data), ranges.seen(model.statistics)) == {}
    model = added(tmp_path, -1e9)
    parsed = graph.read(model.data)
    main = graph.main(parsed)
    names = {graph.tensor_name(tensor): index for index, tensor in enumerate(main.tensors)}
    seen = ranges.seen(model.statistics)
    assert set(floors.raised(parsed, seen)) == {names["masked"], names["row"], names["product"]}
    main.outputs = [*graph.indices(main.outputs), names["product"]]
    assert set(floors.raised(parsed, seen)) == {names["masked"], names["row"]}
    main.outputs = [*graph.indices(main.outputs), names["masked"]]
    assert floors.raised(parsed, seen) == {}
