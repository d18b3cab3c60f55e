"""Selective precision in a real build: what is kept is in the report; another choice rebuilds one variant alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace, write_workspace

DIGITS = Path(__file__).parents[2] / "examples" / "digits"

MANIFEST = """schema = 1
[dataset.calibration]
loader = "npz"
path = "digits.npz"
input = "x_calibration"
label = "y_calibration"
[dataset.test]
loader = "npz"
path = "digits.npz"
input = "x_test"
label = "y_test"
samples = 200
[model.digits]
source = "keras"
path = "model.keras"
calibration = "calibration"
evaluation = "test"
metric = "top1"
gate = { max_accuracy_loss = 0.05 }
[model.digits.variant]
kept = { scheme = "int8", keep_float = ["stem", "op:SOFTMAX"], sensitivity = 2 }
sixteen = { scheme = "int8", io = "int8", keep_int16 = ["tensor:block_6_add"], keep_float = ["first:1"] }
int16x8 = { scheme = "int16x8", sensitivity = true }
weights = { scheme = "weight_only" }
four = { scheme = "weight_only", bits = 4 }
"""
VARIANTS = ("kept", "sixteen", "int16x8", "weights", "four")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write_workspace(tmp_path_factory.mktemp("selective") / "workspace", MANIFEST)
    for name in ("digits.npz", "model.keras"):
        shutil.copy(DIGITS / name, workspace.root)
    workspace.doit("report")
    return workspace


def reported(workspace: Workspace) -> dict[str, dict[str, Any]]:
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    return {variant["name"]: variant for variant in report["models"][0]["variants"]}


def test_every_variant_is_built_judged_and_told_with_what_stayed_float(built: Workspace) -> None:
    variants = reported(built)
    for name in VARIANTS:
        assert variants[name]["verdict"] in ("pass", "undecided"), name
        assert variants[name]["accuracy"]["n"] == 200
    artifacts = {name: variant["artifact"] for name, variant in variants.items()}
    kept = artifacts["kept"]["kept_float"]
    assert [node["layer"] for node in kept] == ["stem_relu, stem_norm/batchnorm, stem", "probabilities"]
    told = {(entry["op"], entry["name"]) for entry in artifacts["kept"]["float_ops"]}
    assert {(node["op"], node["name"]) for node in kept} <= told
    assert {entry["op"] for entry in artifacts["kept"]["float_ops"]} == {"CONV_2D", "DEQUANTIZE", "QUANTIZE", "SOFTMAX"}
    assert [node["layer"] for node in artifacts["sixteen"]["kept_int16"]] == ["block_6_add", "pool"]
    assert artifacts["int16x8"]["float_ops"] == []
    assert artifacts["weights"]["quantized_by"]["left_float"] == []
    left = artifacts["four"]["quantized_by"]["left_float"]
    assert {entry["op"] for entry in left} == {"DEPTHWISE_CONV_2D"}
    assert artifacts["four"]["size_bytes"] < artifacts["weights"]["size_bytes"] < artifacts["float32"]["size_bytes"] / 3
    page = (built.root / "build/report/index.html").read_text()
    assert "Kept in float" in page
    assert "Kept at 16 bits" in page


def test_the_report_tells_where_noise_comes_from_for_the_variants_that_ask_for_it(built: Workspace) -> None:
    tasks = {line.split()[0] for line in built.doit("list", "--all").splitlines()}
    asked = {"sensitivity:digits/kept", "sensitivity:digits/int16x8"}
    assert {task for task in tasks if task.startswith("sensitivity")} == {"sensitivity", *asked}
    found = {name: variant["sensitivity"] for name, variant in reported(built).items()}
    assert {name for name, each in found.items() if each is not None} == {"kept", "int16x8"}
    assert (found["kept"]["samples"], found["int16x8"]["samples"]) == (2, 4)
    for each in found.values():
        if each is not None:
            assert each["ops"][0]["noise"] > 0
            assert not each["unmatched_ops"]
            assert all((built.root / path).is_file() for path in each["node_data"].values())
    kept = [op["op"] for op in found["kept"]["ops"] if op["noise"] is None]
    assert kept == ["CONV_2D", "SOFTMAX"]
    page = (built.root / "build/report/index.html").read_text()
    assert page.count("Where its noise comes from") == 2


def test_another_number_of_samples_takes_noise_apart_anew_and_nothing_else(built: Workspace, tmp_path: Path) -> None:
    workspace = built.copied(tmp_path / "counted")
    workspace.edit("sensitivity = 2", "sensitivity = 3")
    workspace.doit("report")
    assert workspace.steps("executed") == {"sensitivity:digits/kept", "report"}
    workspace.edit("sensitivity = 3", "sensitivity = false")
    workspace.doit("report")
    assert workspace.steps("executed") == {"report"}
    assert reported(workspace)["kept"]["sensitivity"] is None


def test_a_scheme_that_rounds_no_activation_has_no_noise_to_take_apart(built: Workspace, tmp_path: Path) -> None:
    workspace = built.copied(tmp_path / "refused")
    workspace.edit('{ scheme = "weight_only" }', '{ scheme = "weight_only", sensitivity = true }')
    output = workspace.doit("report", code=2)
    assert 'model.digits.variant.weights.sensitivity: "weight_only" leaves activations in float' in output


def test_nodes_lists_the_converted_model_and_an_artifact(built: Workspace) -> None:
    lines = built.quantbuild("nodes", "digits").splitlines()
    assert len(lines) == 20  # a line of headings and 19 nodes
    assert lines[-1].split()[:3] == ["19", "SOFTMAX", "probabilities"]
    nodes = json.loads(built.quantbuild("nodes", "digits/sixteen", "--json"))["nodes"]
    types = {node["layer"]: node["dtype"] for node in nodes if node["op"] in ("ADD", "FULLY_CONNECTED")}
    assert types == {"block_3_add": "int8", "block_5_add": "int8", "block_6_add": "int16", "logits": "int8"}


def test_another_pattern_rebuilds_its_variant_alone_and_one_that_means_nothing_fails_alone(
    built: Workspace, tmp_path: Path
) -> None:
    workspace = built.copied(tmp_path / "edited")
    workspace.edit('keep_float = ["stem", "op:SOFTMAX"]', 'keep_float = ["re:^logits$", "last:1"]')
    workspace.doit("quantize")
    assert workspace.steps("executed") == {"quantize:digits/kept", "dist"}
    workspace.edit('keep_float = ["re:^logits$", "last:1"]', 'keep_float = ["logit"]')
    output = workspace.doit("quantize", code=1)
    assert 'keep_float: "logit" means no node of the model; the nearest names are "logits"' in output
    assert workspace.steps("failed") == {"quantize:digits/kept"}
    assert not (workspace.root / "dist/digits/kept.tflite").exists()
    assert (workspace.root / "dist/digits/sixteen.tflite").exists()
    workspace.edit('keep_float = ["logit"]', 'keep_float = ["first:0"]')
    output = workspace.doit("quantize", code=2)
    assert 'm.toml:21: model.digits.variant.kept.keep_float: "first:0": "0" is no count; write a whole' in output
