"""Bias correction: it knows the weights that the quantizer makes, and brings each layer's mean result back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_models import job

from quantbuild.actions import quantize
from quantbuild.errors import StepError
from quantbuild.schemes import int8
from quantbuild.tflite import bias_correction, graph, layers, statistics_file

LAYERS = ["depthwise_block", "residual", "grouped", "transposed", "rows", "shared", "without_bias", "pooled"]


@pytest.fixture(scope="module")
def transforms() -> ModuleType:
    """Imported late: it needs TensorFlow."""
    import transform_models

    return transform_models


@pytest.fixture(scope="module")
def built(transforms: ModuleType) -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def build(name: str) -> bytes:
        if name not in made:
            made[name] = transforms.build(name)
        return made[name]

    return build


def corrected(transforms: ModuleType, data: bytes, samples: list[np.ndarray], **how: Any) -> graph.ModelT:
    model = graph.read(data)
    found = bias_correction.corrections(model, transforms.statistics(data, samples), **how)
    bias_correction.apply(model, found)
    return model


def real_weights(model: graph.ModelT) -> list[np.ndarray]:
    """The weights of every layer in order, as the kernels of an int8 model read them."""
    main, found = graph.main(model), []
    for operator, op in zip(main.operators, graph.op_names(model), strict=True):
        if op in layers._PLACES:
            tensor = main.tensors[graph.indices(operator.inputs)[layers._PLACES[op].weights]]
            value, how = graph.constant(model, tensor), tensor.quantization
            shape = [1] * value.ndim
            shape[how.quantizedDimension] = -1
            assert len(how.scale) == value.shape[how.quantizedDimension]
            found.append(value * np.asarray(how.scale, np.float32).astype(np.float64).reshape(shape))
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_rounded_weights_are_the_artifact_s_bit_for_bit(
    transforms: ModuleType, built: Callable[[str], bytes], name: str
) -> None:
    data = built(name)
    model = graph.read(data)
    ours = [bias_correction.rounded(layers.weights(model, layer), layer.output_axis) for layer in layers.find(model)]
    artifact = transforms.quantized(graph.read(data), transforms.statistics(data, transforms.samples(4)))
    theirs = real_weights(graph.read(artifact))
    assert len(ours) == len(theirs) > 1
    for one, other in zip(ours, theirs, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_result_of_each_layer_comes_back(
    transforms: ModuleType, built: Callable[[str], bytes], name: str
) -> None:
    """Weights rounded, activations in float: what is left of the first layer's mean error is the border's."""
    data, samples = built(name), transforms.samples(30)

    def means(model: graph.ModelT, layer: layers.Layer) -> np.ndarray:
        measured = transforms.statistics(graph.write(model), samples)
        return measured.means(measured.rows()[layer.output])

    layer = layers.find(graph.read(data))[0]
    exact = means(_linear(data), layer)
    errors = []
    for model in (_linear(data), _linear(data, corrected(transforms, data, samples))):
        weights = layers.weights(model, layer)
        layers.set_weights(model, layer, bias_correction.rounded(weights, layer.output_axis).astype(np.float32))
        errors.append(np.abs(means(model, layer) - exact).max())
    assert errors[1] < 0.2 * errors[0]


def _linear(data: bytes, model: graph.ModelT | None = None) -> graph.ModelT:
    """The model with no fused activation, which would hide a layer's own mean."""
    model = graph.read(data) if model is None else model
    for operator in graph.main(model).operators:
        if hasattr(operator.builtinOptions, "fusedActivationFunction"):
            operator.builtinOptions.fusedActivationFunction = 0
    return model


@pytest.mark.parametrize("name", ["residual", "depthwise_block"])
def test_padding_is_counted_out_of_the_means(transforms: ModuleType, built: Callable[[str], bytes], name: str) -> None:
    """Where every input is one constant, the shift is exact: the mean over a picture padded with zeros."""
    model, ones = graph.read(built(name)), np.ones(transforms.SHAPE, np.float32)
    found = bias_correction.corrections(model, transforms.statistics(built(name), [ones]))[0]
    assert found.layer.input == graph.main(model).inputs[0]
    weights = layers.weights(model, found.layer)
    error = weights - bias_correction.rounded(weights, found.layer.output_axis)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(ones[0], ((1, 1), (1, 1), (0, 0))), (3, 3), (0, 1))
    assert found.shift == pytest.approx(np.einsum("yxcij,oijc->o", windows, error) / (12 * 12), rel=1e-6)


def test_a_pad_op_before_a_layer_counts_like_padding_of_its_own(
    transforms: ModuleType, built: Callable[[str], bytes]
) -> None:
    """PAD by one and a 3×3 layer without padding is the layer with SAME padding."""
    data = built("residual")
    measured = transforms.statistics(data, transforms.samples(5))
    model = graph.read(data)
    (number,) = (i for i, op in enumerate(graph.main(model).operators) if _pads(model, op))
    padded = bias_correction.corrections(model, measured)
    same = graph.read(data)
    operator = graph.main(same).operators[number]
    assert operator.builtinOptions.padding == 0, "the converter has taken PAD into the layer; make it an op again"
    outer, inner = _apart(same, operator)
    found = bias_correction.corrections(same, _with_padded(measured, same, outer, inner))
    for one, other in zip(padded, found, strict=True):
        assert np.array_equal(one.shift, other.shift)


def _pads(model: graph.ModelT, operator: Any) -> bool:
    tensors, inputs = graph.main(model).tensors, graph.indices(operator.inputs)
    return graph.op_name(model, operator) == "CONV_2D" and graph.shape(tensors[inputs[1]]) == (6, 3, 3, 8)


def _apart(model: graph.ModelT, operator: Any) -> tuple[int, int]:
    """Put a PAD op before a layer with SAME padding; the padded tensor and the other."""
    from ai_edge_litert import schema_py_generated as schema

    main = graph.main(model)
    inner = graph.indices(operator.inputs)[0]
    outer = graph.add_tensor(main, "padded", (1, 14, 14, 8))
    amounts = graph.add_constant(model, main, "amounts", np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    pad = schema.OperatorT(opcodeIndex=graph.add_opcode(model, "PAD"), inputs=[inner, amounts], outputs=[outer])
    main.operators = [*main.operators, pad]
    operator.inputs = [outer, *graph.indices(operator.inputs)[1:]]
    operator.builtinOptions.padding = schema.Padding.VALID
    return outer, inner


def _with_padded(measured: Any, model: graph.ModelT, outer: int, inner: int) -> Any:
    """Statistics with a row for the padded tensor, of means that must not be used."""
    means = np.full(8, 1e6)
    return replace(
        measured,
        tensor_names=(*measured.tensor_names, "padded"),
        tensor_indices=np.append(measured.tensor_indices, np.int32(outer)),
        channel_offsets=np.append(measured.channel_offsets, measured.channel_offsets[-1] + 8),
        channel_mean=np.append(measured.channel_mean, means),
        power=np.append(measured.power, 1.0),
    )


def test_the_mean_error_of_the_outputs_falls(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    """Over several models, whose single errors are small and partly chance."""
    errors = np.zeros(2)
    for name in ("depthwise_block", "residual", "grouped", "pooled", "transposed"):
        data, fit, test = built(name), transforms.samples(40), transforms.samples(40, seed=2)
        measured, exact = transforms.statistics(data, fit), transforms.outputs(built(name), test)
        for place, model in enumerate((graph.read(data), corrected(transforms, data, fit))):
            found = transforms.outputs(transforms.quantized(model, measured), test)
            errors[place] += np.abs((found - exact).mean(axis=0)).mean() / np.abs(exact).mean()
    assert errors[1] < 0.7 * errors[0]


def test_a_constant_that_others_read_stays(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    data = built("shared")
    before, after = graph.read(data), corrected(transforms, data, transforms.samples(4))
    pairs = [[layers.bias(model, layer) for layer in layers.find(model)] for model in (before, after)]
    assert np.array_equal(pairs[0][1], pairs[0][2]), "the two layers shared it"
    assert not np.array_equal(pairs[1][1], pairs[0][1])
    assert not np.array_equal(pairs[1][1], pairs[1][2]), "each has its own shift"
    added = graph.op_names(before).index("ADD")
    for model in (before, after):
        tensors = [graph.main(model).tensors[t] for t in graph.indices(graph.main(model).operators[added].inputs)]
        (value,) = (graph.constant(model, tensor) for tensor in tensors if graph.is_constant(model, tensor))
        assert np.array_equal(value, pairs[0][1])
    for one, other in zip(layers.find(before), layers.find(after), strict=True):
        assert np.array_equal(layers.weights(before, one), layers.weights(after, other))


def test_layers_without_a_bias_get_one_and_run(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    data, samples = built("without_bias"), transforms.samples(10)
    model, measured = graph.read(data), transforms.statistics(built("without_bias"), samples)
    without = [layer.name for layer in layers.find(model) if layers.bias(model, layer) is None]
    assert len(without) == 2, "TRANSPOSE_CONV and FULLY_CONNECTED"
    done = bias_correction.apply(model, bias_correction.corrections(model, measured))
    assert done["biases_added"] == without
    assert done["layers"] == 3
    assert all(layers.bias(model, layer) is not None for layer in layers.find(model))
    exact = transforms.outputs(data, samples)
    np.testing.assert_allclose(transforms.outputs(graph.write(model), samples), exact, atol=0.02 * np.abs(exact).max())
    artifact = transforms.quantized(model, measured)
    assert transforms.sqnr_db(exact, transforms.outputs(artifact, samples)) > 20


def test_layers_that_stay_float_are_left_alone(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    data = built("depthwise_block")
    model, measured = graph.read(data), transforms.statistics(built("depthwise_block"), transforms.samples(3))
    kept = layers.find(model)[1]
    found = bias_correction.corrections(model, measured, skip={kept.operator})
    assert kept.operator not in {each.layer.operator for each in found}
    done = bias_correction.apply(model, found)
    assert done["layers_left_out"] == [kept.name]
    assert done["layers"] == 3
    assert np.array_equal(layers.bias(model, kept), layers.bias(graph.read(data), kept))


def test_layers_that_bear_the_name_of_one_in_float_are_corrected(
    transforms: ModuleType, built: Callable[[str], bytes], tmp_path: Path
) -> None:
    """A converter may give every tensor one name, or none."""
    model = graph.read(built("depthwise_block"))
    for tensor in graph.main(model).tensors:
        tensor.name = b""
    (tmp_path / "float32.tflite").write_bytes(graph.write(model))
    measured = transforms.statistics(graph.write(model), transforms.samples(3))
    statistics_file.write(tmp_path / "statistics.npz", measured)
    inputs = {"model": tmp_path / "float32.tflite", "statistics": tmp_path / "statistics.npz"}
    options = {"ranges": "minmax", "bias_correction": True, "keep_float": ["node:1"]}
    step = job("quantize", tmp_path, inputs, {"model": "model.tflite"}, {"scheme": "int8", "options": options})
    assert quantize.run(step)["bias_correction"]["layers"] == 3


def test_weights_that_are_no_constants_are_left_out(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    data = built("made_weights")
    model = graph.read(data)
    found = bias_correction.corrections(model, transforms.statistics(data, transforms.samples(3)))
    assert [each.layer.op for each in found] == ["FULLY_CONNECTED"]
    assert len(bias_correction.apply(model, found)["layers_left_out"]) == 1


def test_one_and_three_interpreters_correct_to_the_same_bytes(
    transforms: ModuleType, built: Callable[[str], bytes]
) -> None:
    data, samples = built("residual"), transforms.samples(9)
    written = []
    for interpreters in (1, 3):
        model = graph.read(data)
        measured = transforms.statistics(data, samples, interpreters)
        bias_correction.apply(model, bias_correction.corrections(model, measured))
        written.append(graph.write(model))
    assert written[0] == written[1]
    assert written[0] != data


@pytest.mark.parametrize("ranges", ["minmax", "sample_mean"])
def test_one_and_three_interpreters_give_the_same_int8_artifact_bias_correction_included(
    transforms: ModuleType, built: Callable[[str], bytes], tmp_path: Path, ranges: str
) -> None:
    data, samples = built("residual"), transforms.samples(9)
    (tmp_path / "float32.tflite").write_bytes(data)
    made = []
    for interpreters in (1, 3):
        statistics = tmp_path / f"{interpreters}.npz"
        statistics_file.write(statistics, transforms.statistics(data, samples, interpreters))
        inputs = {"model": tmp_path / "float32.tflite", "statistics": statistics}
        options = {"ranges": ranges, "bias_correction": True}
        step = job("quantize", tmp_path, inputs, {"model": "m"}, {"scheme": "int8", "options": options})
        assert quantize.run(step)["bias_correction"]["layers"] == 7
        made.append(Path(step.outputs["model"]).read_bytes())
    assert made[0] == made[1]


def test_per_tensor_weights_are_corrected_as_such(transforms: ModuleType, built: Callable[[str], bytes]) -> None:
    data = built("depthwise_block")
    model, measured = graph.read(data), transforms.statistics(built("depthwise_block"), transforms.samples(3))
    one = bias_correction.corrections(model, measured)
    other = bias_correction.corrections(model, measured, per_channel=False)
    assert np.abs(other[0].shift).sum() > np.abs(one[0].shift).sum()


def test_statistics_without_means_or_of_another_model_are_refused(
    transforms: ModuleType, built: Callable[[str], bytes]
) -> None:
    model = graph.read(built("residual"))
    other = transforms.statistics(built("pooled"), transforms.samples(2))
    with pytest.raises(StepError, match=r"no tensor .* which this model has; calibrate again"):
        bias_correction.corrections(model, other)
    measured = transforms.statistics(built("residual"), transforms.samples(2))
    with pytest.raises(StepError, match=r"no channel means for tensor .* calibrate again"):
        bias_correction.corrections(model, replace(measured, channel_mean=np.zeros(0)))


def test_the_int8_scheme_corrects_where_it_is_told(
    transforms: ModuleType, built: Callable[[str], bytes], tmp_path: Path
) -> None:
    model, statistics = tmp_path / "float32.tflite", tmp_path / "statistics.npz"
    model.write_bytes(built("residual"))
    statistics_file.write(statistics, transforms.statistics(built("residual"), transforms.samples(10)))
    made = {}
    for wanted in (None, False, True):
        inputs = {"model": model, "statistics": statistics}
        options = {"ranges": "minmax"} | ({} if wanted is None else {"bias_correction": wanted})
        step = job("quantize", tmp_path, inputs, {"model": "m"}, {"scheme": "int8", "options": options})
        made[wanted] = (quantize.run(step), Path(step.outputs["model"]).read_bytes())
    assert made[None] == made[False]
    assert made[None][0]["bias_correction"] is None
    done = made[True][0]["bias_correction"]
    assert done["layers"] == 7
    assert done["layers_left_out"] == done["biases_added"] == []
    assert 0 < done["largest"]["share"] < 0.1
    assert made[True][1] != made[False][1]
    weights = [real_weights(graph.read(data)) for _, data in (made[False], made[True])]
    assert all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("key", ["bias_correction", "equalize"])
def test_the_plain_converter_takes_no_transform(key: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=f'{key}: engine = "tflite" is the plain converter; remove one'):
        msgspec.convert({"engine": "tflite", key: True}, int8.Options)
    msgspec.convert({"engine": "tflite", key: False}, int8.Options)
