"""The search for mixed precision in a real build: what it reads, what it repeats, what it does where it fails."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import harmed
import pytest
from workspace import DEVICE, Workspace, write_workspace

SETS = ("calibration", "selection", "test")
MANIFEST = (
    "schema = 1\n"
    + "".join(f'[dataset.{name}]\nloader = "npz"\npath = "{name}.npz"\ninput = "x"\nlabel = "y"\n' for name in SETS)
    + DEVICE
    + """
[model.m]
source = "keras"
path = "model.keras"
calibration = "calibration"
selection = "selection"
evaluation = "test"
metric = "top1"
lint_ignore = ["noise"]
[model.m.variant]
int8 = { scheme = "int8", keep_float = ["scores"] }
mixed = { scheme = "mixed", search = { max_accuracy_loss = 0.1 } }
"""
)
DYING_METRIC = """import os, signal
def top1(outputs, label):
    with open(os.environ["CALLS"], "ab") as file:
        file.write(b".")
        calls = file.tell()
    if calls == int(os.environ["DIES_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(outputs["scores"].argmax() == label)
top1.higher_is_better = True
"""
LIMIT = "max_accuracy_loss = 0.1"

# Neither labels nor a selection set: the outputs' agreement counts, on a part of the calibration set that is held back.
# And a model of one output alone.
WITHOUT_LABELS = """schema = 1
[dataset.calibration]
loader = "npz"
path = "calibration.npz"
input = "x"
[dataset.test]
loader = "npz"
path = "test.npz"
input = "x"
[model.m]
source = "keras"
path = "model.keras"
calibration = "calibration"
evaluation = "test"
lint_ignore = ["noise"]
[model.m.variant]
int8 = { scheme = "int8" }
strict = { scheme = "mixed", search = { max_accuracy_loss = 0.1 } }
loose = { scheme = "mixed", search = { max_accuracy_loss = 0.9 } }
[model.number]
source = "keras"
path = "number.keras"
calibration = "calibration"
lint_ignore = ["noise"]
variant.int8.scheme = "int8"
"""
NUMBER = """
number = keras.Sequential([keras.Input((8, 8, 4), name="x"), layers.Flatten(), layers.Dense(1)])
number.save("number.keras")
"""


@pytest.fixture(scope="module")
def models(make_models: Callable[[str], Path]) -> Path:
    return make_models(harmed.script() + NUMBER)


@pytest.fixture(scope="module")
def searched(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose search was done."""
    root = tmp_path_factory.mktemp("mixed") / "workspace"
    workspace = write_workspace(shutil.copytree(models, root), MANIFEST)
    workspace.doit("check")
    return workspace


def search(workspace: Workspace, variant: str = "mixed") -> dict[str, Any]:
    found: dict[str, Any] = record(workspace.root / "build/m" / variant / "model.tflite.record.json")["values"][
        "search"
    ]
    return found


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_bytes())["result"]
    return found


def trials(workspace: Workspace, status: str) -> set[str]:
    return {step["id"] for step in workspace.last_run()["trials"]["steps"] if step["status"] == status}


def test_the_harmed_activations_alone_leave_int8_and_the_limit_is_met(searched: Workspace) -> None:
    found = search(searched)
    assert found["verdict"] == "pass"
    assert found["trials"][0]["loss"] > 0.1
    loud = {unit["tensor"].rpartition("conv_")[2][0] for unit in found["islands"]}
    assert loud == {"1", "3"}
    assert [each["verdict"] for each in found["confirmations"]][-1] == "pass"
    kept = record(searched.root / "build/m/mixed/model.tflite.record.json")["values"]["kept_float"]
    assert 0 < len(kept) < 8
    front = [(row["size_bytes"], row["sqnr_db"]) for row in found["trials"] if row["front"]]
    assert len(front) > 1
    assert sorted(front) == sorted(front, key=lambda point: point[1])


def test_no_trial_reads_the_evaluation_set(searched: Workspace) -> None:
    digest = hashlib.sha256((searched.root / "test.npz").read_bytes()).hexdigest()
    readers = []
    records = list((searched.root / "build/m/.trials").rglob("*.record.json"))
    for path in records:
        step = json.loads(path.read_bytes())["step"]
        preimage = record(path)["preimage"]
        if digest in preimage["inputs"].values() or '"test"' in json.dumps(preimage["parameters"]):
            readers.append(step)
    assert len(records) > 10
    assert len(readers) == len(search(searched)["confirmations"])
    assert all(step.startswith("confirm:") for step in readers)


def test_a_changed_limit_searches_again_from_what_is_known(searched: Workspace, tmp_path: Path) -> None:
    workspace = searched.copied(tmp_path / "limit")
    known = {row["id"] for row in searched.last_run()["trials"]["steps"]}
    workspace.edit(LIMIT, "max_accuracy_loss = 0.09")
    workspace.doit("check")
    assert "quantize:m/mixed" in workspace.steps("executed")
    counted = workspace.last_run()["trials"]
    assert not trials(workspace, "executed") & known
    assert counted["up_to_date"] > 10
    assert counted["executed"] == len(trials(workspace, "executed"))


def test_other_nodes_kept_in_float_do_not_calibrate_again(searched: Workspace, tmp_path: Path) -> None:
    workspace = searched.copied(tmp_path / "kept")
    workspace.edit('keep_float = ["scores"]', 'keep_float = ["conv_5", "scores"]')
    workspace.doit("quantize")
    assert workspace.steps("executed") == {"quantize:m/int8", "dist"}
    assert not any("calibrate" in step for step in trials(workspace, "executed"))


def test_the_budget_holds_and_a_limit_that_cannot_be_met_fails_its_gate(searched: Workspace, tmp_path: Path) -> None:
    workspace = searched.copied(tmp_path / "budget")
    workspace.edit(LIMIT, "max_accuracy_loss = 0.001, trials = 5")
    output = workspace.doit("check", code=1)
    told = re.search(r"gate failed: m/mixed: search\.max_accuracy_loss: (.*)", output)
    assert told is not None
    assert re.match(
        r"loss \S+ of 120 selection samples is beyond 0.001; best found: \S+ of 5 artifacts tried", told.group(1)
    )
    found = search(workspace)
    assert len(found["trials"]) == 5
    assert found["verdict"] == "fail"
    assert found["confirmations"] == []
    suite = ET.parse(workspace.root / "build/report/junit.xml").getroot()
    (case,) = suite.findall(".//testcase[@name='search.max_accuracy_loss']")
    assert case.find("failure") is not None
    workspace.doit("report", code=1)
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    variant = next(each for each in report["models"][0]["variants"] if each["name"] == "mixed")
    (gate,) = variant["gates"]
    assert (gate["name"], gate["limit"], gate["verdict"]) == ("search.max_accuracy_loss", 0.001, "fail")
    assert gate["value"] == found["best"]["loss"] == next(r["loss"] for r in found["trials"] if r["chosen"])
    assert variant["verdict"] == "fail"
    page = (workspace.root / "build/report/index.html").read_text()
    assert "is the best that the search found" in page
    lock = json.loads((workspace.root / "dist/quantbuild.lock.json").read_bytes())
    assert '"fail"' in json.dumps(lock)


def test_what_too_few_evaluation_samples_cannot_decide_is_told_as_undecided(
    searched: Workspace, tmp_path: Path
) -> None:
    workspace = searched.copied(tmp_path / "undecided")
    workspace.edit('path = "test.npz"', 'path = "test.npz"\nsamples = 12')
    workspace.doit("check")
    assert search(workspace)["verdict"] == "undecided"
    check = json.loads((workspace.root / "build/report/check.json").read_bytes())
    gates = {each["name"]: each["gates"] for each in check["models"][0]["variants"]}
    assert [(row["name"], row["verdict"], row["fails"]) for row in gates["mixed"]] == [
        ("search.max_accuracy_loss", "undecided", False)
    ]
    workspace.edit("[model.m.variant]", '[model.m.gate]\nundecided = "fail"\n[model.m.variant]')
    assert "gate failed: m/mixed: search.max_accuracy_loss" in workspace.doit("check", code=1)


def test_the_objective_latency_is_measured_on_its_device(searched: Workspace, tmp_path: Path) -> None:
    workspace = searched.copied(tmp_path / "latency")
    workspace.edit(LIMIT, 'max_accuracy_loss = 0.5, objective = "latency", device = "host"')
    workspace.doit("quantize")
    found = search(workspace)
    measured = [row for row in found["trials"] if row["latency_ratio"] is not None]
    assert len(measured) == sum(step.startswith("measure:") for step in trials(workspace, "executed")) > 1
    assert all(row["loss"] <= 0.5 for row in measured)
    chosen = next(row for row in found["trials"] if row["chosen"])
    if len(found["confirmations"]) == 1:
        assert chosen["latency_ratio"] <= 1.05 * min(row["latency_ratio"] for row in measured)
    workspace.doit("quantize")
    assert workspace.last_run()["executed"] == 0
    told = workspace.quantbuild("verify", "m/mixed")  # the choice follows from the latencies that were measured
    assert "m/mixed  reproducible" in told
    assert "equal to the one in build/" in told


def test_a_trial_that_the_machine_failed_does_not_lose_the_search_and_what_it_found_stands_for_one_build_alone(
    searched: Workspace, tmp_path: Path
) -> None:
    workspace = searched.copied(tmp_path / "died")
    (workspace.root / "dying.py").write_text(DYING_METRIC)
    workspace.edit('metric = "top1"', 'metric = "dying:top1"')
    known = [row for row in search(searched)["trials"] if not row["kept"]]
    looks = 1 + len(known) + 1  # float32, int8 throughout, one activation out of int8; the next look dies
    workspace.environment |= {"CALLS": str(tmp_path / "calls"), "DIES_AT": str(400 + looks * 120 + 60)}
    told = workspace.doit("quantize:m/mixed")
    found = search(workspace)
    assert found["verdict"] == "pass"
    assert [row["error"] is not None for row in found["trials"]].count(True) == 1
    assert found["left_out"] == []
    assert found["provisional"].startswith("the machine failed 1 trial (")
    assert f"quantize:m/mixed: {found['provisional']}" in told
    explained = workspace.quantbuild("explain", "quantize:m/mixed")
    assert "provisional: the machine failed 1 trial (" in explained
    workspace.doit("quantize:m/mixed")
    assert "quantize:m/mixed" in workspace.steps("executed")
    assert search(workspace)["provisional"] is None
    workspace.doit("quantize:m/mixed")
    assert workspace.last_run()["executed"] == workspace.last_run()["trials"]["executed"] == 0


def test_without_labels_a_search_meets_its_limit_and_nothing_is_done_twice(models: Path, tmp_path: Path) -> None:
    workspace = write_workspace(shutil.copytree(models, tmp_path / "without"), WITHOUT_LABELS)
    workspace.doit("report")
    report = json.loads((workspace.root / "build/report/report.json").read_text())
    models = {model["name"]: {each["name"]: each for each in model["variants"]} for model in report["models"]}
    found = models["m"]
    strict, loose = found["strict"]["search"], found["loose"]["search"]
    size = {name: each["artifact"]["size_bytes"] for name, each in found.items()}

    assert found["int8"]["accuracy"]["loss"] > 0.1, "the model is harmless; make its channels more uneven"
    assert strict["verdict"] == loose["verdict"] == "pass"
    assert strict["islands"] != [] == loose["islands"]
    assert found["strict"]["accuracy"]["loss_high"] <= 0.1
    assert found["strict"]["accuracy"]["sqnr_db"] > found["int8"]["accuracy"]["sqnr_db"] + 10
    assert size["loose"] <= size["int8"] < size["strict"] < size["float32"]
    for search in (strict, loose):
        assert len(search["trials"]) <= 16
        assert [each["error"] for each in search["trials"] if each["error"]] == []
        assert [each["limit"] for each in search["confirmations"]] == [0.9 if search is loose else 0.1]
    assert [each["error"] for each in models["number"].values()] == [None, None]

    again = workspace.doit("report")
    assert "0 executed, 0 restored" in again.splitlines()[-1]
