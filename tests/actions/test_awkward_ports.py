"""Inputs and outputs that quantizers confuse: given twice, passed through, constant, without axes, several of an op."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from direct_models import Direct, Net

from quantbuild.errors import StepError
from quantbuild.tflite import describe, graph


def best(folder: Path) -> Direct:
    """The three largest of ten scores, and their places."""
    net = Net()
    scores = net.dense(net.input("x", 1, 8), "scores", 10)
    values, places = net.tensor("values", 1, 3), net.tensor("places", 1, 3, kind=schema.TensorType.INT32)
    net.op("TOPK_V2", [scores, net.constant(np.array(3, np.int32))], [values, places], schema.TopKV2OptionsT())
    return Direct(net.signed(best=values, where=places), folder)


def passing(folder: Path) -> Direct:
    """The input is an output, too."""
    net = Net()
    x = net.input("x", 1, 8)
    return Direct(net.signed(copy=x, scores=net.dense(x, "dense", 4)), folder)


def twice(folder: Path) -> Direct:
    """One tensor is two outputs."""
    net = Net()
    scores = net.dense(net.dense(net.input("x", 1, 8), "hidden", 6), "dense", 4)
    return Direct(net.signed(first=scores, second=scores), folder)


def constant(folder: Path) -> Direct:
    """One output is stored in the file."""
    net = Net()
    scores = net.dense(net.input("x", 1, 8), "dense", 4)
    return Direct(net.signed(scores=scores, table=net.constant(np.array([0.5, -2, 3], np.float32))), folder)


def scaled(folder: Path) -> Direct:
    """One input is a number."""
    net = Net()
    x, factor = net.input("x", 1, 8), net.input("factor")
    product = net.op("MUL", [x, factor], [net.tensor("product", 1, 8)], schema.MulOptionsT())
    return Direct(net.signed(scores=net.dense(product, "dense", 4)), folder)


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("keep", [{}, {"keep_float": ["op:TOPK_V2"]}, {"keep_int16": ["scores"]}])
def test_values_and_places_of_the_best_stay_apart(keep: dict[str, list[str]], io: str, tmp_path: Path) -> None:
    model = best(tmp_path)
    data, _ = model.quantize("int8", io=io, **keep)
    kinds = {port["name"]: port["dtype"] for port in describe.describe(data)["outputs"]}
    assert kinds == {"best": io, "where": "int32"}
    assert model.sqnr(data)["best"] > 30


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("keep", [{}, {"keep_int16": ["dense"]}])
def test_an_input_that_is_an_output_stays_both(keep: dict[str, list[str]], io: str, tmp_path: Path) -> None:
    model = passing(tmp_path)
    data, _ = model.quantize("int8", io=io, **keep)
    assert min(model.sqnr(data).values()) > 30


@pytest.mark.parametrize(
    ("scheme", "options"),
    [("int8", {}), ("int8", {"keep_int16": ["dense"]}), ("int8", {"io": "uint8", "keep_int16": ["dense"]}),
     ("int16x8", {}), ("int16x8", {"io": "int16"})],
)  # fmt: skip
def test_a_tensor_may_be_two_outputs(scheme: str, options: dict[str, object], tmp_path: Path) -> None:
    model = twice(tmp_path)
    data, values = model.quantize(scheme, **options)
    assert values["float_ops"] == []
    found = model.sqnr(data)
    assert found["first"] == found["second"] > 30


def test_a_constant_output_is_a_constant_of_the_type_asked_for(tmp_path: Path) -> None:
    model = constant(tmp_path)
    data, _ = model.quantize("int16x8", io="int16")
    assert [port["dtype"] for port in describe.describe(data)["outputs"]] == ["int16", "int16"]
    assert min(model.sqnr(data).values()) > 30
    with pytest.raises(StepError, match='output "table" is a constant and stays float32; set io = "float32"'):
        model.quantize("int8", io="int8")
    assert min(model.sqnr(model.quantize("int8")[0]).values()) > 30


@pytest.mark.parametrize(("scheme", "io"), [("int8", "int8"), ("int8", "uint8"), ("int16x8", "int16")])
def test_a_quantized_input_may_be_a_number(scheme: str, io: str, tmp_path: Path) -> None:
    model = scaled(tmp_path)
    data, _ = model.quantize(scheme, io=io)
    assert graph.type_name(graph.main(graph.read(data)).tensors[0]) == io.upper()
    assert min(model.sqnr(data).values()) > 30
