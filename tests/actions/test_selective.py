"""Selective precision: what is kept in float or at 16 bits is so in the artifact, runs, and helps where it should."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from selective_models import Calibrated
from tiny_models import job

from quantbuild.actions import probe
from quantbuild.errors import StepError
from quantbuild.schemes import int8, int16x8
from quantbuild.tflite import describe, graph, kept, listing, runtime, statistics_file

CASTS = {"QUANTIZE", "DEQUANTIZE"}


def types(data: bytes) -> dict[str, set[str]]:
    """Name of each op's first output, up to any ``;`` → types of the activations it touches; casts left out."""
    model = graph.read(data)
    main = graph.main(model)
    return {
        short(graph.tensor_name(main.tensors[graph.indices(operator.outputs)[0]])): kept.kinds(model, index)
        for index, (operator, op) in enumerate(zip(main.operators, graph.op_names(model), strict=True))
        if op not in CASTS
    }


def short(name: str) -> str:
    return name.split(";", maxsplit=1)[0]  # TensorFlow joins the names of an integer op's several outputs


def probed(data: bytes, folder: Path) -> dict[str, Any]:
    (folder / "probed.tflite").write_bytes(data)
    step = job("probe", folder, {"model": folder / "probed.tflite"}, {"description": "d.json"}, {"runtime": True})
    return probe.run(step)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_each_node_can_be_kept_in_float_and_the_others_stay_integer(
    branches: Calibrated, scheme: str, tmp_path: Path
) -> None:
    nodes = listing.nodes(graph.read(branches.data))
    integer = list(types(branches.quantize(scheme)[0]).values())
    assert len(nodes) == len(integer) == 12
    assert ["FLOAT32" in kinds for kinds in integer].count(True) == {"int8": 0, "int16x8": 1}[scheme]  # LEAKY_RELU
    for place, node in enumerate(nodes):
        data, values = branches.quantize(scheme, keep_float=[node.name])
        expected, told = list(integer), {"op": node.op, "name": node.name, "layer": node.layer}
        if scheme == "int8" and node.op == "MAX_POOL_2D":  # TensorFlow finds that it may as well move integers
            assert (values["kept_float"], values["integer_all_the_same"]) == ([], [told])
        else:
            expected[place] = {"FLOAT32"}
            assert values["kept_float"] == [told]
            assert {"op": node.op, "name": node.name} in values["float_ops"]
        assert list(types(data).values()) == expected
        assert min(branches.sqnr(data).values()) > 25
        probed(data, tmp_path)


def test_an_op_of_several_outputs_keeps_their_names(branches: Calibrated) -> None:
    data, _ = branches.quantize("int8", keep_float=["split"])
    split = next(node for node in listing.nodes(graph.read(data)) if node.op == "SPLIT")
    assert (
        split.tensors == next(node for node in listing.nodes(graph.read(branches.data)) if node.op == "SPLIT").tensors
    )
    names = [graph.tensor_name(tensor) for tensor in graph.main(graph.read(data)).tensors]
    assert not [name for name in names if "quantbuild" in name]


def test_what_lies_between_two_kept_nodes_is_float_too(branches: Calibrated) -> None:
    data, values = branches.quantize("int8", keep_float=["both", "sum"])
    assert [entry["op"] for entry in values["float_ops"]] == [
        *("DEQUANTIZE", "DEQUANTIZE", "DEQUANTIZE"),  # three int8 tensors enter the island
        *("CONCATENATION", "ADD", "QUANTIZE"),  # and one leaves it
    ]
    assert describe.operators(graph.read(data))["QUANTIZE"] == 2  # the model's input is the other one


def test_patterns_may_be_mixed_and_are_resolved_in_execution_order(branches: Calibrated) -> None:
    _, values = branches.quantize("int8", keep_float=["op:SOFTMAX", "first:1", "re:^le"])
    assert [node["layer"] for node in values["kept_float"]] == ["stem", "left", "leaky", "scores"]


def test_a_pattern_without_a_node_fails_the_step(branches: Calibrated) -> None:
    with pytest.raises(StepError, match=r'^keep_float: "stam" means no node of .* names are "stem"'):
        branches.quantize("int8", keep_float=["stam"])
    with pytest.raises(StepError, match=r'^keep_int16: "op:RELU"'):
        branches.quantize("int8", keep_int16=["op:RELU"])


def test_keeping_everything_or_one_node_twice_is_refused(branches: Calibrated) -> None:
    with pytest.raises(StepError, match="keep_float means every node of the model; name fewer"):
        branches.quantize("int8", keep_float=["*"])
    with pytest.raises(StepError, match="keep_float and keep_int16 both mean SOFTMAX"):
        branches.quantize("int8", keep_float=["op:SOFTMAX"], keep_int16=["last:1"])


def test_an_island_helps_where_its_nodes_alone_do_not(loud: Calibrated) -> None:
    plain = loud.sqnr(loud.quantize("int8")[0])["scores"]
    alone = [["loud"], ["pool"], ["quiet"], ["loud", "quiet"]]
    for names in alone:
        assert loud.sqnr(loud.quantize("int8", keep_float=names)[0])["scores"] < plain + 1, names
    data, values = loud.quantize("int8", keep_float=["tensor:loud"])
    assert [node["layer"] for node in values["kept_float"]] == ["loud", "pool", "quiet"]
    assert loud.sqnr(data)["scores"] > plain + 20


def test_the_island_of_a_tensor_is_what_its_pattern_means(loud: Calibrated) -> None:
    model = graph.read(loud.data)
    loudest = next(node for node in listing.nodes(model) if node.layer == "loud").writes
    names = kept.island_of(model, loudest)
    by_name, values = loud.quantize("int8", keep_float=names)
    by_tensor, _ = loud.quantize("int8", keep_float=["tensor:loud"])
    assert by_name == by_tensor
    assert names == [node["name"] for node in values["kept_float"]]


def test_the_noisiest_tensor_at_16_bits_lifts_the_output(loud: Calibrated) -> None:
    model, statistics = graph.read(loud.data), statistics_file.read(loud.folder / "statistics.npz")
    low, high = statistics.minmax()
    noise = ((high - low) / 255) ** 2 / 12 / statistics.power
    noisiest = statistics.tensor_names[int(np.argmax(noise))]
    assert next(node for node in listing.nodes(model) if noisiest in node.tensors).layer == "loud"
    plain = loud.sqnr(loud.quantize("int8")[0])["scores"]
    data, values = loud.quantize("int8", keep_int16=[f"tensor:{noisiest}"])
    assert [node["layer"] for node in values["kept_int16"]] == ["loud", "pool", "quiet"]
    assert loud.sqnr(data)["scores"] > plain + 5
    assert values["float_ops"] == []


def test_nodes_at_16_bits_stand_between_requantizations(branches: Calibrated, tmp_path: Path) -> None:
    data, values = branches.quantize("int8", keep_int16=["narrow"], keep_float=["scores"])
    found = types(data)
    named = {node["layer"]: node["name"] for node in values["kept_int16"] + values["kept_float"]}
    assert found[named["narrow"]] == {"INT16"}
    assert found[named["scores"]] == {"FLOAT32"}
    counts = [sum(kind in kinds for kinds in found.values()) for kind in ("INT8", "INT16")]
    assert counts == [9, 1]
    assert min(branches.sqnr(data).values()) > 25
    probed(data, tmp_path)


def test_a_node_without_a_kernel_at_16_bits_is_float_and_told(branches: Calibrated) -> None:
    _, values = branches.quantize("int8", keep_int16=["leaky", "sum"])
    assert [node["layer"] for node in values["kept_int16"]] == ["sum"]
    assert [node["layer"] for node in values["float_instead_of_int16"]] == ["leaky"]
    assert "LEAKY_RELU" in {entry["op"] for entry in values["float_ops"]}


@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("keep", ["stem", "logits", "last:1", "last:2"])
def test_inputs_and_outputs_are_what_io_says_beside_nodes_at_16_bits(branches: Calibrated, io: str, keep: str) -> None:
    data, _ = branches.quantize("int8", io=io, keep_int16=[keep])
    about = describe.describe(data)
    assert [(port["name"], port["dtype"]) for port in about["inputs"] + about["outputs"]] == [
        *(("image", io), ("logits", io), ("scores", io)),
    ]
    assert min(branches.sqnr(data).values()) > 25  # logits is read by an op, too


@pytest.mark.parametrize("io", ["float32", "int16"])
def test_int16x8_computes_on_16_bits_throughout(branches: Calibrated, io: str, tmp_path: Path) -> None:
    data, values = branches.quantize("int16x8", io=io)
    about = probed(data, tmp_path)
    assert {port["dtype"] for port in about["inputs"] + about["outputs"]} == {io}
    assert {entry["op"] for entry in values["float_ops"]} == {"DEQUANTIZE", "LEAKY_RELU", "QUANTIZE"}
    assert about["float_ops"] == values["float_ops"]
    main = graph.main(graph.read(data))
    activations = [tensor for tensor in main.tensors if graph.type_name(tensor) == "INT16"]
    assert activations
    assert {int(tensor.quantization.zeroPoint[0]) for tensor in activations} == {0}
    assert any(len(tensor.quantization.scale) == 8 for tensor in main.tensors if graph.type_name(tensor) == "INT8")
    eight = branches.sqnr(branches.quantize("int8")[0])
    assert all(value > eight[port] for port, value in branches.sqnr(data).items())


def test_ops_that_fail_at_16_bits_stay_float_and_the_artifact_runs(awkward: Calibrated, tmp_path: Path) -> None:
    data, values = awkward.quantize("int16x8")
    probed(data, tmp_path)
    left = {entry["op"] for entry in values["float_ops"]}
    assert {"SQUARED_DIFFERENCE", "LEAKY_RELU", "ABS"} <= left
    assert awkward.sqnr(data, seed=0)["scores"] > 35


@pytest.mark.parametrize(("scheme", "io"), [("int16x8", "int16"), ("int16x8", "float32"), ("int8", "uint8")])
def test_a_loop_stays_float_inside_a_model_that_does_not(
    loop: Calibrated, scheme: str, io: str, tmp_path: Path
) -> None:
    keys = {"keep_int16": ["last:1"]} if scheme == "int8" else {}
    data, values = loop.quantize(scheme, io=io, **keys)
    about = probed(data, tmp_path)
    assert {port["dtype"] for port in about["inputs"] + about["outputs"]} == {io}
    assert "WHILE" in {entry["op"] for entry in values["float_ops"]}
    assert loop.sqnr(data, seed=0)["scores"] > 30


def test_int16x8_takes_ranges_from_the_statistics(loud: Calibrated) -> None:
    assert loud.quantize("int16x8")[0] != loud.quantize("int16x8", ranges="sample_mean")[0]


def test_a_model_without_any_op_for_16_bits_is_refused(awkward: Calibrated) -> None:
    with pytest.raises(StepError, match="no op of the model has an int16 kernel"):
        with_kernels = ("CONV_2D", "FULLY_CONNECTED", "MEAN", "ADD", "MUL", "DIV", "RSQRT", "RESHAPE")
        awkward.quantize("int16x8", keep_float=[f"op:{op}" for op in with_kernels])


@pytest.mark.parametrize(
    ("bits", "kind", "left", "decibels"), [(8, "int8", [], 35), (4, "int4", ["DEPTHWISE_CONV_2D"], 15)]
)
def test_weights_alone_are_quantized_and_those_left_in_float_are_named(
    branches: Calibrated, bits: int, kind: str, left: list[str], decibels: float, tmp_path: Path
) -> None:
    data, values = branches.quantize("weight_only", bits=bits)
    about = probed(data, tmp_path)
    assert [entry["op"] for entry in values["left_float"]] == left
    assert set(values["quantized"]) == {kind}
    assert values["bits"] == bits
    # Every op takes and gives floats; the weights are widened before them.
    assert about["ops"]["DEQUANTIZE"] == values["quantized"][kind]["tensors"]
    assert len(about["float_ops"]) == sum(about["ops"].values())
    assert min(branches.sqnr(data).values()) > decibels
    assert len(data) < len(branches.data)


@pytest.mark.parametrize("keys", [{}, {"keep_int16": ["sum"]}])
def test_one_scale_a_weight_is_only_for_who_asks(branches: Calibrated, keys: dict[str, Any]) -> None:
    def most_scales(data: bytes) -> int:
        model = graph.read(data)
        weights = [t for t in graph.main(model).tensors if graph.is_constant(model, t) and graph.type_name(t) == "INT8"]
        return max(len(tensor.quantization.scale) for tensor in weights)

    assert most_scales(branches.quantize("int8", **keys)[0]) > 1
    assert most_scales(branches.quantize("int8", per_tensor_weights=True, **keys)[0]) == 1


def test_names_that_say_nothing_do_no_harm(branches: Calibrated, tmp_path: Path) -> None:
    """A .tflite made elsewhere: tensors without names, or all with the same."""
    model = graph.read(branches.data)
    main = graph.main(model)
    ports = {*graph.indices(main.inputs), *graph.indices(main.outputs)}
    for number, tensor in enumerate(main.tensors):
        tensor.name = tensor.name if number in ports else b"" if number % 2 else b"same"
    odd = Calibrated.__new__(Calibrated)
    odd.__dict__ |= branches.__dict__ | {"folder": tmp_path, "float32": tmp_path / "float32.tflite"}
    odd.float32.write_bytes(graph.write(model))
    odd.data = odd.float32.read_bytes()
    statistics = statistics_file.read(branches.folder / "statistics.npz")
    names = [graph.tensor_name(main.tensors[index]) for index in statistics.tensor_indices]
    statistics_file.write(tmp_path / "statistics.npz", dataclasses.replace(statistics, tensor_names=tuple(names)))
    wanted = kept.island_of(model, next(node for node in listing.nodes(model) if node.op == "ADD").writes)
    assert all(name.startswith("node:") for name in wanted)
    for options in ({"keep_float": wanted}, {"keep_int16": wanted}):
        data, values = odd.quantize("int8", **options)
        told = values["kept_float"] + values.get("kept_int16", []) + values.get("float_instead_of_int16", [])
        assert {node["op"] for node in told} == {"ADD", "LEAKY_RELU"}
        assert min(odd.sqnr(data).values()) > 25


def test_16_bits_need_no_tensorflow_and_give_the_same_bytes_in_another_process(
    branches: Calibrated, tmp_path: Path
) -> None:
    options = {"keep_int16": ["tensor:sum"], "keep_float": ["op:SOFTMAX"], "ranges": "minmax"}
    assert int8.worker(options) == int16x8.WORKER == "litert"
    assert int8.worker({"keep_float": ["stem"]}) == "tensorflow"
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path\n"
        "from quantbuild.actions import quantize; from tiny_models import job\n"
        f"folder, inputs = Path({str(branches.folder)!r}), {{}}\n"
        "for role, name in (('model', 'float32.tflite'), ('statistics', 'statistics.npz')):\n"
        "    inputs[role] = folder / name\n"
        f"for scheme, options in (('int8', {options | {'ranges': 'minmax'}!r}), ('int16x8', {{}})):\n"
        f"    step = job('quantize', Path({str(tmp_path)!r}), inputs, {{'model': scheme}},\n"
        "        {'scheme': scheme, 'options': options})\n"
        "    quantize.run(step)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for scheme, keys in (("int8", options), ("int16x8", {})):
        assert (tmp_path / scheme).read_bytes() == branches.quantize(scheme, **keys)[0]


def test_the_description_lists_nodes_with_their_types(branches: Calibrated) -> None:
    data, _ = branches.quantize("int8", keep_float=["stem"], keep_int16=["left"])
    rows = describe.describe(data)["nodes"]
    found = {row["layer"]: row["dtype"] for row in rows if row["op"] in ("CONV_2D", "ADD")}
    assert found == {"stem": "float32", "left": "int16", "narrow": "int8", "sum": "int8"}
    floats = describe.describe(branches.data)["nodes"]
    assert [row["number"] for row in floats if row["op"] == "SPLIT"] == [None]
    assert floats[0]["weight_bytes"] == (8 * 3 * 3 * 8 + 8) * 4


@pytest.mark.parametrize("keys", [{"keep_float": ["stem"]}, {"keep_int16": ["stem"]}, {"per_tensor_weights": True}])
def test_the_plain_converter_has_no_selective_precision(keys: dict[str, Any]) -> None:
    key = next(iter(keys))
    with pytest.raises(msgspec.ValidationError, match=f'{key}: engine = "tflite" is the plain converter; remove one'):
        msgspec.convert({"engine": "tflite", **keys}, int8.Options)


def test_an_op_that_the_runtime_refuses_is_named_with_the_remedy() -> None:
    error = RuntimeError(
        "SquaredDifference only supports FLOAT32.Node number 21 (SQUARED_DIFFERENCE) failed to invoke."
    )
    assert 'keep it in float with keep_float = ["op:SQUARED_DIFFERENCE"]' in runtime.remedy(error)
    assert (
        runtime.remedy(RuntimeError("Node number 3 (TfLiteXNNPackDelegate) failed to prepare."))
        == "see the op it names"
    )
