"""What a search for mixed precision may ask for: each ranked activation, kept from int8 by itself."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from wide_models import Builder

from quantbuild.actions import rank
from quantbuild.nodes.patterns import resolve
from quantbuild.schemes import int8
from quantbuild.tflite import graph, kept, listing, ranges, static_integer
from quantbuild.tflite.runtime import Binding, open_interpreter

MODELS = ["pooled", "offset", "gated", "several_outputs", "several_readers", "transposed"]


@pytest.fixture(scope="module")
def transforms() -> ModuleType:
    """Imported late: it needs TensorFlow."""
    import transform_models

    return transform_models


@pytest.mark.parametrize("islands", ["keep_float", "keep_int16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_ranked_activation_can_leave_int8_alone(transforms: ModuleType, name: str, islands: str) -> None:
    """An average in integers is not kept out by itself: its island holds what it averages, too."""
    data = transforms.build(name)
    nodes = listing.nodes(graph.read(data))
    chosen = ranges.choose(graph.read(data), transforms.statistics(data, transforms.samples(4)), "minmax")
    units = list(rank._units(nodes, chosen))
    assert units
    for unit in units:
        patterns = [f"node:{node}" for node in unit.nodes]
        if len(unit.nodes) == len(nodes):
            continue
        keeping = kept.choose(graph.read(data), **({"keep_int16": ()} | {"keep_float": ()} | {islands: patterns}))
        run = int8.quantizer(keeping)
        quantized, values = run(graph.read(data), chosen, keeping, int8.Options(ranges="minmax"))
        if islands == "keep_float":
            assert [each["name"] for each in values["kept_float"]] == [
                node.name for node in resolve("keep_float", patterns, nodes)
            ]
        inputs = transforms.samples(3, seed=2)
        exact, found = transforms.outputs(data, inputs), transforms.outputs(quantized, inputs)
        assert np.abs(found - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("bits", [8, 16])
def test_constants_of_fewer_axes_beside_one_scale(transforms: ModuleType, bits: int) -> None:
    """MAXIMUM with a constant for each channel: litert-quantizer takes it in the result's number of axes alone."""
    data = transforms.build("offset")
    activations = "int8" if bits == 8 else "int16"
    statistics = transforms.statistics(data, transforms.samples(4))
    chosen = ranges.choose(graph.read(data), statistics, "minmax", activations=activations)
    done = static_integer.quantize(data, chosen, static_integer.Precision(bits=bits))
    inputs = transforms.samples(3, seed=2)
    exact, found = (transforms.outputs(model, inputs) for model in (data, graph.write(done.model)))
    assert np.abs(found - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("op", ["ADD", "SUB"])
@pytest.mark.parametrize("width", [1.0, 0.9999, 4.0])
def test_scales_of_16_bits_that_are_powers_of_two_by_chance_run(op: str, width: float) -> None:
    """Where all three are, ADD and SUB ask that one operand has the result's (tensorflow/lite/kernels)."""
    build = Builder()
    x, y = build.input("x", 1, 8), build.input("y", 1, 8)
    options = schema.AddOptionsT() if op == "ADD" else schema.SubOptionsT()
    data = build.finish(build.op(op, [x, y], [build.tensor("sum", 1, 8)], options))
    bound = width * 32767 / 32768
    chosen = {tensor: (-factor * bound, factor * bound) for tensor, factor in ((x, 1), (y, 1), (2, 2))}
    done = static_integer.quantize(data, chosen, static_integer.Precision(bits=16))
    values = np.linspace(-bound, bound, 8, dtype=np.float32)[None]
    found = Binding(open_interpreter(graph.write(done.model))).run({"x": values, "y": values[:, ::-1]})
    expected = values + values[:, ::-1] if op == "ADD" else values - values[:, ::-1]
    np.testing.assert_allclose(next(iter(found.values())), expected, atol=3e-4 * width)
