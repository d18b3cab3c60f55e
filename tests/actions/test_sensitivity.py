"""Where an artifact's noise comes from: the harmed layer comes out worst, and what the ops cause adds up."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from selective_models import Calibrated, samples
from tiny_models import job

from quantbuild.actions import equalize, quantize, sensitivity
from quantbuild.errors import StepError
from quantbuild.tflite import feeding, forcing, graph, matching, noise_points
from quantbuild.tflite import sensitivity as measuring

OUTPUTS = {"sensitivity": "sensitivity.json", "sqnr_node_data": "sqnr.json", "noise_node_data": "noise.json"}


def measured(model: Calibrated, data: bytes, **how: Any) -> dict[str, Any]:
    feed = feeding.feeder(graph.read(model.data))
    fed = ((number, feed(number, sample)) for number, sample in enumerate(samples(model.name, 9)))
    return measuring.measure(model.data, data, fed, **how)


def by_layer(found: dict[str, Any], kind: str | None = None) -> dict[str, dict[str, Any]]:
    return {op["layer"]: op for op in found["ops"] if op["layer"] and kind in (None, op["op"])}


def step(model: Calibrated, data: bytes, folder: Path, **parameters: Any) -> Any:
    """A job of the action on that model and an artifact, with the model's samples as the selection set."""
    (folder / "artifact.tflite").write_bytes(data)
    dataset = {"loader": "npz", "options": {"path": "data.npz", "input": "image"}, "samples": None, "seed": 0}
    np.savez(folder / "data.npz", image=np.concatenate([sample["image"] for sample in samples(model.name, 9)]))
    inputs = {"model": model.float32, "artifact": folder / "artifact.tflite"}
    return job(
        "sensitivity", folder, inputs, OUTPUTS, {"dataset": dataset | {"name": "made"}, "samples": 5} | parameters
    )


# ---- what is measured


def test_the_harmed_layer_causes_most_although_its_own_sqnr_is_among_the_best(loud: Calibrated) -> None:
    data, _ = loud.quantize("int8", ranges="minmax")
    found = measured(loud, data)
    worst = found["ops"][0]
    assert (worst["op"], worst["layer"]) == ("CONV_2D", "loud")
    assert worst["noise"] > 2 * found["ops"][1]["noise"]
    assert worst["own_sqnr_db"] > 30  # the channel that later decides is lost in the power of the loud one
    kept = measured(loud, loud.quantize("int8", ranges="minmax", keep_float=["tensor:loud"])[0])
    assert kept["noise"] < found["noise"] / 3
    assert by_layer(kept)["loud"]["noise"] is None


def test_a_layer_whose_weights_are_harmed_comes_out_worst(branches: Calibrated) -> None:
    data, _ = branches.quantize("int8", ranges="minmax")
    model = graph.read(data)
    main = graph.main(model)
    operator = next(o for o, k in zip(main.operators, graph.op_names(model), strict=True) if k == "DEPTHWISE_CONV_2D")
    weights = main.tensors[graph.indices(operator.inputs)[1]]
    model.buffers[weights.buffer].data = np.roll(np.asarray(model.buffers[weights.buffer].data), 1)
    before, after = measured(branches, data), measured(branches, graph.write(model))
    assert before["ops"][0]["layer"] != "right"
    assert after["ops"][0]["layer"] == "right"
    others = {layer: op["own_sqnr_db"] for layer, op in by_layer(after).items() if layer != "right"}
    for layer, own in others.items():  # the harm is not blamed on the layers behind it
        assert own is None or own > 30, layer


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_what_the_ops_cause_one_by_one_adds_up_to_the_noise_of_the_outputs(branches: Calibrated, scheme: str) -> None:
    options = {"ranges": "minmax"} if scheme == "int8" else {}
    found = measured(branches, branches.quantize(scheme, **options)[0])
    # Beside 16-bit activations the rounded weights are all the noise: of two or three ops, and not unrelated.
    most = 1.35 if scheme == "int8" else 2.5
    assert found["noise"] / most < found["noise_sum"] < found["noise"] * most
    assert not found["unmatched_ops"]
    assert not found["unmatched_tensors"]
    assert {output["before"] for output in found["outputs"]} == {None, "SOFTMAX"}
    logits = next(output for output in found["outputs"] if output["name"] == "logits")
    assert logits["sqnr_db"] == pytest.approx(branches.sqnr(branches.quantize(scheme, **options)[0])["logits"], abs=0.5)


def test_ops_that_move_values_add_nothing_and_a_step_is_told_for_each_integer_tensor(branches: Calibrated) -> None:
    found = measured(branches, branches.quantize("int8", ranges="minmax")[0])
    for layer in ("split, split1", "pool"):
        assert (by_layer(found)[layer]["own_rms"], by_layer(found)[layer]["noise"]) == (0, 0)
    tensors = {tensor["name"]: tensor for tensor in found["tensors"]}
    assert tensors["StatefulPartitionedCall:1"]["step"] == pytest.approx(1 / 256)
    for tensor in tensors.values():
        assert tensor["dtype"] == "int8"
        assert 0 < tensor["error_rms"] < tensor["rms"]
        assert tensor["sqnr_db"] == pytest.approx(20 * np.log10(tensor["rms"] / tensor["error_rms"]))
    decibels = [tensor["sqnr_db"] for tensor in found["tensors"]]
    assert decibels == sorted(decibels)


def test_the_rounding_of_the_input_is_an_op_of_its_own(branches: Calibrated) -> None:
    """Its error is that of a uniform distribution over one step: step / √12, but for what is clipped."""
    found = measured(branches, branches.quantize("int8", ranges="minmax")[0])
    casts = [op for op in found["ops"] if op["op"] == "QUANTIZE"]
    assert [op["name"] for op in casts] == ["serving_default_image:0"]
    scale = next(t["step"] for t in found["tensors"] if t["name"] == "serving_default_image:0")
    assert casts[0]["own_rms"] == pytest.approx(scale / np.sqrt(12), rel=0.15)
    given = measured(branches, branches.quantize("int8", ranges="minmax", io="int8")[0])
    rounded = [op for op in given["ops"] if op["op"] == "INPUT"]
    assert [op["own_rms"] for op in rounded] == pytest.approx([casts[0]["own_rms"]], rel=1e-6)


def test_float_islands_have_no_noise_of_their_own_and_casts_between_precisions_have(branches: Calibrated) -> None:
    kept = measured(branches, branches.quantize("int8", ranges="minmax", keep_float=["last:2"])[0])
    assert {op["layer"] for op in kept["ops"] if op["noise"] is None} == {"logits", "scores"}
    assert kept["noise_sum"] == pytest.approx(kept["noise"], rel=0.35)
    mixed = measured(branches, branches.quantize("int8", ranges="minmax", keep_int16=["first:2"])[0])
    assert {op["layer"] for op in mixed["ops"] if op["noise"] is None} == {"leaky"}  # litert-quantizer has no kernel
    casts = {op["dtype"] for op in mixed["ops"] if op["op"] == "QUANTIZE"}
    assert casts == {"int8", "int16"}
    stem = by_layer(mixed)["stem"]
    down = next(op for op in mixed["ops"] if op["op"] == "QUANTIZE" and op["name"] == stem["name"])
    assert (stem["dtype"], down["dtype"]) == ("int16", "int8")


def test_a_loop_is_passed_through(loop: Calibrated) -> None:
    found = measured(loop, loop.quantize("int8", ranges="minmax")[0])
    assert not found["unmatched_ops"]
    assert next(op for op in found["ops"] if op["op"] == "WHILE")["noise"] is None
    assert found["noise_sum"] == pytest.approx(found["noise"], rel=0.35)


def test_how_many_interpreters_run_changes_nothing(branches: Calibrated) -> None:
    data, _ = branches.quantize("int8", ranges="minmax")
    assert measured(branches, data, interpreters=1) == measured(branches, data, interpreters=3)


# ---- what is not matched


def test_an_op_of_another_kind_or_shape_is_unmatched_and_its_noise_counts_with_the_next(branches: Calibrated) -> None:
    data, _ = branches.quantize("int8", ranges="minmax")
    exact = graph.read(branches.data)
    main = graph.main(exact)
    place = graph.op_names(exact).index("MAX_POOL_2D")
    # The float model's own maximum becomes the same op by another name: no op of the artifact is of its kind.
    main.operators[place].opcodeIndex = graph.add_opcode(exact, "AVERAGE_POOL_2D")
    found = matching.match(exact, graph.read(data))
    assert [graph.op_names(graph.read(data))[index] for index in found.unmatched] == ["MAX_POOL_2D"]
    lost = graph.indices(main.operators[place].outputs)[0]
    assert found.unmatched_tensors == (lost,)
    versions = forcing.Versions(exact, graph.read(data), found)
    assert lost not in {found.tensors[version] for version in versions.all()}


def test_what_has_no_counterpart_is_named_and_passed_through(branches: Calibrated) -> None:
    """The float model has an ABS behind a RELU, which changes nothing: as if the quantizer had folded it away."""
    data, _ = branches.quantize("int8", ranges="minmax")
    plain = measured(branches, data)
    exact = graph.read(branches.data)
    main = graph.main(exact)
    relu = graph.indices(main.operators[0].outputs)[0]
    same = graph.add_tensor(main, "folded", graph.shape(main.tensors[relu]))
    for operator in main.operators:
        operator.inputs = [same if tensor == relu else tensor for tensor in graph.indices(operator.inputs)]
    inserted = schema.OperatorT(opcodeIndex=graph.add_opcode(exact, "ABS"), inputs=[relu], outputs=[same])
    inserted.builtinOptionsType, inserted.builtinOptions = schema.BuiltinOptions.AbsOptions, schema.AbsOptionsT()
    main.operators.insert(1, inserted)
    feed = feeding.feeder(exact)
    fed = ((number, feed(number, sample)) for number, sample in enumerate(samples(branches.name, 9)))
    found = measuring.measure(graph.write(exact), data, fed)
    assert [op["op"] for op in found["unmatched_ops"]] == ["SPLIT"]  # it is found by what it reads alone
    # Keras counts the models that a process has made.
    names = [re.sub(r"functional_\d+_1", "functional", name) for name in found["unmatched_tensors"]]
    assert names == ["folded", "functional/split", "functional/split1"]
    assert found["noise"] == pytest.approx(plain["noise"], rel=1e-3)
    assert found["noise_sum"] == pytest.approx(plain["noise_sum"], rel=0.05)
    for layer, op in by_layer(plain).items():
        if op["op"] != "SPLIT":
            assert by_layer(found)[layer]["own_rms"] == pytest.approx(op["own_rms"], rel=1e-3, abs=1e-6), layer


def test_names_that_a_quantizer_made_unique_by_a_digit_do_not_deceive(branches: Calibrated) -> None:
    """A tensor of the artifact is given the name of another float tensor of the same shape."""
    data, _ = branches.quantize("int8", ranges="minmax")
    exact, quantized = graph.read(branches.data), graph.read(data)
    true = matching.match(exact, quantized).operators
    main = graph.main(quantized)
    kinds = graph.op_names(quantized)
    stem, total = kinds.index("CONV_2D"), kinds.index("ADD")
    first, second = (graph.indices(main.operators[place].outputs)[0] for place in (stem, total))
    main.tensors[first].name, main.tensors[second].name = main.tensors[second].name, main.tensors[first].name
    assert matching.match(exact, quantized).operators == true


def test_a_variant_of_another_model_is_refused(branches: Calibrated, loop: Calibrated) -> None:
    with pytest.raises(StepError, match="no output of the variant is one of float32's"):
        noise_points.Measured(graph.read(branches.data), graph.read(loop.data))


def test_a_model_without_a_float_output_is_refused_with_the_key_to_remove(branches: Calibrated) -> None:
    exact, quantized = graph.read(branches.data), graph.read(branches.quantize("int8", ranges="minmax")[0])
    for tensor in graph.indices(graph.main(exact).outputs):
        graph.main(exact).tensors[tensor].type = schema.TensorType.INT32
    with pytest.raises(StepError, match=r"no output of the model holds floats.*remove sensitivity"):
        noise_points.Measured(exact, quantized)


# ---- the action


def test_the_action_writes_the_figures_and_two_files_that_name_nodes_of_the_artifact(
    branches: Calibrated, tmp_path: Path
) -> None:
    data, _ = branches.quantize("int8", ranges="minmax")
    asked = step(branches, data, tmp_path)
    values = sensitivity.run(asked)
    found = json.loads((tmp_path / "sensitivity.json").read_text())
    assert values["samples"] == found["samples"] == 5
    assert values["noise"] == found["noise"] > 0
    model = graph.read(data)
    names = {graph.tensor_name(tensor) for tensor in graph.main(model).tensors}
    sqnr, shares = (json.loads((tmp_path / name).read_text()) for name in ("sqnr.json", "noise.json"))
    assert list(sqnr) == list(shares) == ["main"]
    assert set(sqnr["main"]["results"]) <= names
    assert len(sqnr["main"]["results"]) == len([row for row in found["tensors"] if row["sqnr_db"] is not None])
    places = {str(index) for index, _ in enumerate(graph.main(model).operators)}
    assert set(shares["main"]["results"]) <= places
    assert sum(node["value"] for node in shares["main"]["results"].values()) >= 99.9


def test_only_the_part_held_back_is_looked_at(branches: Calibrated, tmp_path: Path) -> None:
    data, _ = branches.quantize("int8", ranges="minmax")
    held = step(branches, data, tmp_path, samples=99, hold_back={"fraction": 0.25, "seed": 0})
    assert sensitivity.run(held)["samples"] == 3


def test_an_equalized_variant_is_compared_with_the_equalized_float_model(loud: Calibrated, tmp_path: Path) -> None:
    inputs = {"model": loud.float32, "statistics": loud.folder / "statistics.npz"}
    made = job("equalize", tmp_path, inputs, {"model": "equalized.tflite", "report": "r.json"}, {})
    assert equalize.run(made)["groups"] > 0
    asked = {"scheme": "int16x8", "options": {}}
    given = {"model": tmp_path / "equalized.tflite", "statistics": loud.folder / "statistics.npz"}
    quantize.run(job("quantize", tmp_path, given, {"model": "scaled.tflite"}, asked))
    scaled = step(loud, (tmp_path / "scaled.tflite").read_bytes(), tmp_path)
    sensitivity.run(scaled)
    wrong = json.loads((tmp_path / "sensitivity.json").read_text())
    scaled.inputs["statistics"] = str(loud.folder / "statistics.npz")
    sensitivity.run(scaled)
    right = json.loads((tmp_path / "sensitivity.json").read_text())
    assert right["noise"] == pytest.approx(wrong["noise"], rel=1e-3)  # the function is the same
    worst = {name: max(op["own_rms"] for op in found["ops"] if op["own_rms"]) for name, found in
             (("right", right), ("wrong", wrong))}  # fmt: skip
    assert worst["right"] < worst["wrong"]


def test_a_variant_that_was_not_equalized_is_compared_with_float32_although_it_might_have_been(
    loud: Calibrated, tmp_path: Path
) -> None:
    asked = step(loud, loud.quantize("int8", ranges="minmax", keep_float=["tensor:loud"])[0], tmp_path)
    sensitivity.run(asked)
    alone = (tmp_path / "sensitivity.json").read_bytes()
    asked.inputs["statistics"] = str(loud.folder / "statistics.npz")
    sensitivity.run(asked)
    assert (tmp_path / "sensitivity.json").read_bytes() == alone


def test_a_sample_that_does_not_fit_is_named_with_its_dataset(branches: Calibrated, tmp_path: Path) -> None:
    asked = step(branches, branches.quantize("int8", ranges="minmax")[0], tmp_path)
    np.savez(tmp_path / "data.npz", image=np.zeros((6, 4, 4, 8), np.float32))
    with pytest.raises(StepError, match=r"^made .*sample \d+: input 'image' has shape"):
        sensitivity.run(asked)
