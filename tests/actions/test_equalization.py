"""equalize: the float function stays whatever the graph, and a network with uneven channels quantizes well again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_models import job

from quantbuild.actions import equalize
from quantbuild.errors import StepError
from quantbuild.tflite import channel_groups, equalization, graph, statistics_file

GROUPS = {
    "depthwise_block": [6, 12, 8],
    "residual": [8, 12, 12, 6],
    "pooled": [6, 8],
    "grouped": [8, 8, 6],
    "transposed": [6, 8],
    "rows": [10],
    "offset": [6, 6],
    "gated": [6, 4, 8],
    "shared": [6, 6],
    "capped": [8],
    "joined": [8],
    "several_outputs": [8],
    "several_readers": [6],
    "without_bias": [6],
    "made_weights": [],
}
"""Model → channels of each group."""
HELD = {
    "gated": {"LOGISTIC": 1},
    "shared": {"TANH": 1},
    "capped": {"RELU6": 1},
    "joined": {"CONCATENATION": 2},
    "several_readers": {"ADD": 2, "STRIDED_SLICE": 1},
    "without_bias": {"TANH": 1},
}
ENDS = "an input or output"


@pytest.fixture(scope="module")
def transforms() -> ModuleType:
    """Imported late: it needs TensorFlow."""
    import transform_models

    assert set(transform_models.MODELS) == set(GROUPS)
    return transform_models


@pytest.fixture(scope="module")
def models(transforms: ModuleType) -> dict[str, bytes]:
    return {name: transforms.build(name) for name in GROUPS}


def scaled(data: bytes, spread: float, seed: int = 3) -> bytes:
    """Every group of a model by a seeded log-normal scale: the same function with uneven channels."""
    model, generator = graph.read(data), np.random.default_rng(seed)
    groups = channel_groups.find(model).groups
    scales = tuple(np.exp(spread * generator.standard_normal(group.channels)) for group in groups)
    found = equalization.Equalization(groups=groups, scales=scales, held={}, sweeps=0, converged=True)
    equalization.apply(model, found)
    return graph.write(model)


def equalized(transforms: ModuleType, data: bytes, samples: list[np.ndarray]) -> bytes:
    model = graph.read(data)
    equalization.apply(model, equalization.choose(model, transforms.statistics(data, samples)))
    return graph.write(model)


@pytest.mark.parametrize("name", GROUPS)
def test_groups_are_those_that_the_graph_allows(models: dict[str, bytes], name: str) -> None:
    found = channel_groups.find(graph.read(models[name]))
    assert [group.channels for group in found.groups] == GROUPS[name]
    ends = found.held[ENDS]
    assert ends == (2 if name == "several_outputs" else 1)
    assert found.held == {ENDS: ends} | HELD.get(name, {})


def test_a_residual_chain_is_one_group_of_all_it_adds_and_pads(models: dict[str, bytes]) -> None:
    group = channel_groups.find(graph.read(models["residual"])).groups[0]
    assert len(group.tensors) == 5
    assert len(group.producers) == len(group.consumers) == 3


@pytest.mark.parametrize("name", [name for name in GROUPS if GROUPS[name]])
def test_any_scales_keep_the_float_function_and_change_the_constants(
    transforms: ModuleType, models: dict[str, bytes], name: str
) -> None:
    samples = transforms.samples(4)
    expected = transforms.outputs(models[name], samples)
    changed = scaled(models[name], 1.5)
    found = transforms.outputs(changed, samples)
    assert np.abs(found - expected).max() <= 32 * np.finfo(np.float32).eps * np.abs(expected).max()
    before, after = graph.read(models[name]), graph.read(changed)
    first = channel_groups.find(before).groups[0].tensors[0]
    measured = [transforms.statistics(data, samples) for data in (models[name], changed)]
    one, other = (found.magnitudes(found.rows()[first]) for found in measured)
    ratio = other[one > 0] / one[one > 0]
    assert ratio.max() > 1.5 * ratio.min(), "nothing was scaled"
    kept = len(graph.main(before).tensors)
    names = [[graph.tensor_name(t) for t in graph.main(model).tensors][:kept] for model in (before, after)]
    assert names[0] == names[1]
    assert graph.op_names(before) == graph.op_names(after)


def test_powers_of_two_keep_every_bit(transforms: ModuleType, models: dict[str, bytes]) -> None:
    model, generator = graph.read(models["residual"]), np.random.default_rng(0)
    groups = channel_groups.find(model).groups
    scales = tuple(2.0 ** generator.integers(-6, 6, group.channels) for group in groups)
    found = equalization.Equalization(groups=groups, scales=scales, held={}, sweeps=0, converged=True)
    equalization.apply(model, found)
    samples = transforms.samples(3)
    expected = transforms.outputs(models["residual"], samples)
    assert np.array_equal(transforms.outputs(graph.write(model), samples), expected)


def test_constants_of_other_ops_stay(transforms: ModuleType, models: dict[str, bytes]) -> None:
    """Two layers read the same weights, of which only one is scaled at its output."""
    before, after = graph.read(models["shared"]), graph.read(scaled(models["shared"], 1.0))
    added = [op for op, name in zip(graph.main(before).operators, graph.op_names(before), strict=True) if name == "ADD"]
    (place,) = [
        tensor for tensor in graph.indices(added[0].inputs) if graph.main(before).tensors[tensor].shape.size == 1
    ]
    values = [graph.constant(model, graph.main(model).tensors[place]) for model in (before, after)]
    assert np.array_equal(values[0], values[1])


@pytest.mark.parametrize("name", ["depthwise_block", "residual"])
def test_harmed_channels_quantize_as_well_as_unharmed_ones(
    transforms: ModuleType, models: dict[str, bytes], name: str
) -> None:
    fit, test = transforms.samples(40), transforms.samples(40, seed=2)
    expected = transforms.outputs(models[name], test)
    harmed = scaled(models[name], 1.5)

    def quality(data: bytes) -> float:
        artifact = transforms.quantized(graph.read(data), transforms.statistics(data, fit))
        return transforms.sqnr_db(expected, transforms.outputs(artifact, test))

    whole, broken, mended = (quality(each) for each in (models[name], harmed, equalized(transforms, harmed, fit)))
    assert broken < whole - 6, "the harm must be worth mending"
    assert mended > whole - 1


def test_the_scales_settle_where_harm_does_not_show(transforms: ModuleType, models: dict[str, bytes]) -> None:
    samples = transforms.samples(20)
    results = []
    for data in (models["residual"], scaled(models["residual"], 1.5)):
        model = graph.read(data)
        found = equalization.choose(model, transforms.statistics(data, samples))
        assert found.converged
        assert 1 < found.sweeps < equalization.SWEEPS
        equalization.apply(model, found)
        results.append(transforms.statistics(graph.write(model), samples))
    one, other = results
    for row in range(1, len(one.tensor_names)):
        ratio = (one.magnitudes(row) + 1e-9) / (other.magnitudes(row) + 1e-9)
        assert ratio == pytest.approx(np.full(len(ratio), ratio[0]), rel=1e-2), one.tensor_names[row]


def test_the_action_writes_the_model_and_tells_what_it_did(
    transforms: ModuleType, models: dict[str, bytes], tmp_path: Path
) -> None:
    model, statistics = tmp_path / "float32.tflite", tmp_path / "statistics.npz"
    model.write_bytes(models["residual"])
    statistics_file.write(statistics, transforms.statistics(models["residual"], transforms.samples(5)))
    inputs, made = {"model": model, "statistics": statistics}, {"model": "equalized.tflite", "report": "report.json"}
    results = []
    for folder in ("a", "b"):
        step = job("equalize", tmp_path / folder, inputs, made, {})
        values = equalize.run(step)
        results.append((values, *(Path(path).read_bytes() for path in step.outputs.values())))
    assert results[0] == results[1], "the same bytes each time"
    values, data, text = results[0]
    report = json.loads(text)
    assert values["groups"] == len(report["groups"]) == 4
    furthest = max(report["groups"], key=lambda group: group["largest_scale"] / group["smallest_scale"])
    assert values["most_uneven"] == {
        "tensor": furthest["tensors"][0],
        "scales": [furthest["smallest_scale"], furthest["largest_scale"]],
    }
    assert report["converged"] is True
    assert [group["channels"] for group in report["groups"]] == GROUPS["residual"]
    names = {graph.tensor_name(tensor) for tensor in graph.main(graph.read(data)).tensors}
    assert set(report["groups"][0]["tensors"]) <= names
    assert report["smallest_scale"] == min(group["smallest_scale"] for group in report["groups"])
    assert report["smallest_scale"] < 1 < report["largest_scale"]


def test_a_model_without_a_group_stays_as_it_is(transforms: ModuleType, models: dict[str, bytes]) -> None:
    data, samples = models["made_weights"], transforms.samples(3)
    model = graph.read(data)
    found = equalization.choose(model, transforms.statistics(data, samples))
    told = equalization.report(model, found)
    assert told["groups"] == []
    assert told["smallest_scale"] is None
    assert json.loads(json.dumps(told)) == told
    equalization.apply(model, found)
    assert np.array_equal(transforms.outputs(graph.write(model), samples), transforms.outputs(data, samples))


def test_statistics_of_another_kind_or_model_are_refused(transforms: ModuleType, models: dict[str, bytes]) -> None:
    model = graph.read(models["residual"])
    measured = transforms.statistics(models["residual"], transforms.samples(2))
    nothing = np.zeros(0, np.float32)
    with pytest.raises(StepError, match="no channel extremes, which equalization needs; calibrate again"):
        equalization.choose(model, replace(measured, channel_min=nothing, channel_max=nothing))
    other = transforms.statistics(models["pooled"], transforms.samples(2))
    with pytest.raises(StepError, match=r"no tensor .* which this model has; calibrate again"):
        equalization.choose(model, other)
