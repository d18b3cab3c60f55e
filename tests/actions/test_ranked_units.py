"""What a search for mixed precision may ask for: each ranked activation, kept from int8 by itself."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from quantbuild.actions import rank
from quantbuild.nodes.patterns import resolve
from quantbuild.schemes import int8
from quantbuild.tflite import graph, kept, listing, ranges, static_integer

MODELS = ["pooled", "offset", "gated", "several_outputs", "several_readers"]


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
        run = int8._by_mlir_quantize if islands == "keep_float" else int8._by_litert_quantizer
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
