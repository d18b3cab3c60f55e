"""calibrate and check look at the shipped examples' samples: sound ones pass, ruined ones fail by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_models import converted, job

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import lint_data
from lint_data import EXAMPLES, WRONG_SCALES

from quantbuild import sarif
from quantbuild.actions import calibrate, check, evaluate
from quantbuild.errors import StepError
from quantbuild.lint import facts, findings, pair_rules, set_rules
from quantbuild.manifest.loading import load
from quantbuild.plan import plan
from quantbuild.tflite import graph, lint_view

Ruin = Any


class Example:
    """A shipped model, and its calibration and evaluation pictures to be spoilt."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        converted("keras", EXAMPLES / name / "model.keras", folder)
        self.calibration, self.evaluation = lint_data.example(name)

    def dataset(self, name: str, pictures: np.ndarray) -> dict[str, Any]:
        np.savez(self.folder / f"{name}.npz", x=pictures)
        options = {"path": f"{name}.npz", "input": "x"}
        return {"loader": "npz", "options": options, "samples": None, "seed": 0, "name": name}

    def calibrate(self, pictures: np.ndarray, *ignored: str) -> tuple[dict[str, Any], Path]:
        dataset = self.dataset("calibration", pictures)
        parameters = {"dataset": dataset, "hold_back": {"fraction": 0.2, "seed": 0}, "statistics": "all"}
        parameters["lint"] = {"ignore": list(ignored)}
        inputs = {"model": self.folder / "float32.tflite"}
        outputs = {"statistics": "statistics.npz", "samples": "calibration_samples.json"}
        step = job("calibrate", self.folder, inputs, outputs, parameters)
        Path(step.outputs["samples"]).unlink(missing_ok=True)
        return calibrate.run(step), Path(step.outputs["samples"])

    def evaluated(self, pictures: np.ndarray) -> dict[str, Path]:
        parameters = {"dataset": self.dataset("test", pictures), "metric": "agreement", "fingerprint": True}
        outputs = {"evaluation": "evaluation.json", "samples": "samples.npz", "inputs": "evaluation_inputs.json"}
        step = job("evaluate", self.folder, {"model": self.folder / "float32.tflite"}, outputs, parameters)
        evaluate.run(step)
        return {role: Path(path) for role, path in step.outputs.items()}

    def checked(self, calibration: np.ndarray, evaluation: np.ndarray, *ignored: str) -> dict[str, Any]:
        """What check writes of a model whose int8 variant is calibrated, and whose dynamic one is not."""
        _, samples = self.calibrate(calibration, *ignored)
        made = self.evaluated(evaluation)
        variants = [
            {"name": name, "scheme": name, "gate": {}, "error": None, "cause": None}
            for name in ("float32", "int8", "dynamic")
        ]
        model = {"name": "m", "metric": "agreement", "variants": variants}
        model["lint"] = {"ignore": list(ignored), "calibrated": ["int8"]}
        inputs = {"m:calibration_samples": samples, "m:evaluation_samples": made["inputs"]}
        for variant in ("float32", "int8", "dynamic"):
            inputs |= {f"m/{variant}:evaluation": made["evaluation"], f"m/{variant}:samples": made["samples"]}
        outputs = {"gates": "gates.json", "junit": "junit.xml"}
        step = job("check", self.folder, inputs, outputs, {"models": [model]})
        values = check.run(step)
        written: dict[str, Any] = json.loads(Path(step.outputs["gates"]).read_bytes())
        junit = Path(step.outputs["junit"]).read_text()
        return {**written, "values": values, "sarif": sarif.log(written["models"], {}), "junit": junit}


@pytest.fixture(scope="module", params=["digits", "fashion"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Example:
    return Example(request.param, tmp_path_factory.mktemp(request.param))


def test_a_shipped_example_has_no_finding(example: Example) -> None:
    values, _ = example.calibrate(example.calibration)
    assert values["lint"] == []
    found = example.checked(example.calibration, example.evaluation[:1000])
    assert found["models"][0]["lint"] == found["failed"] == found["values"]["lint"] == []


def test_the_sets_that_the_shipped_manifests_name_have_neither_error_nor_warning(example: Example) -> None:
    """With labels, `preprocess` and all evaluation samples: the steps as they are planned."""
    planned = {step.id: step for step in plan(load(EXAMPLES.parent, environ={}, check_files=False))}
    files, found = {}, []
    for action, run, role in (("calibrate", calibrate.run, "samples"), ("evaluate", evaluate.run, "inputs")):
        step = planned[f"{action}:{example.name}" + ("/float32" if action == "evaluate" else "")]
        outputs = {each: f"shipped_{action}_{each}" for each in step.outputs}
        shipped = job(action, example.folder, {"model": example.folder / "float32.tflite"}, outputs, step.parameters)
        found += run(msgspec.structs.replace(shipped, root=str(EXAMPLES.parent))).get("lint", [])
        files[action] = facts.read(shipped.outputs[role])
    calibration, evaluation = files["calibrate"].facts, files["evaluate"].facts
    assert (calibration.samples, evaluation.samples) == {"digits": (240, 600), "fashion": (400, 10_000)}[example.name]
    found += findings.as_data([*pair_rules.findings(calibration, evaluation), *set_rules.findings(evaluation)])
    assert [each for each in found if each["severity"] != "info"] == []


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lint_data.noise, "looks like random noise"),
        (lint_data.normal_noise, "looks like random noise"),
        (lint_data.byte_noise, "looks like random noise"),
        (lint_data.zeros, "holds nothing but zeros in every sample"),
        (lambda x: np.moveaxis(x, 3, 1), r"has shape \[1, 1, .*check the dataset's shape and layout"),
        (lambda x: x[:, 0], "has shape .*the model takes"),
    ],
    ids=["uniform", "normal", "bytes", "zeros", "channels first", "an axis lost"],
)
def test_calibrating_on_ruined_samples_fails(example: Example, spoilt: Ruin, message: str) -> None:
    with pytest.raises(StepError, match=rf"^calibration \(calibration\.npz\): .*{message}"):
        example.calibrate(np.ascontiguousarray(spoilt(example.calibration)))
    assert not (example.folder / "calibration_samples.json").exists()


def test_an_ignored_rule_is_silent(example: Example) -> None:
    values, _ = example.calibrate(lint_data.noise(example.calibration), "noise")
    assert [found["rule"] for found in values["lint"]] == []


@pytest.mark.parametrize("scale", WRONG_SCALES)
def test_a_wrong_normalization_fails_the_calibrated_variants(example: Example, scale: str) -> None:
    found = example.checked(WRONG_SCALES[scale](example.calibration), example.evaluation[:1000])
    assert [(row["variant"], row["gate"], row["verdict"]) for row in found["failed"]] == [("int8", "lint", "fail")]
    assert found["failed"][0]["message"].startswith('lint: calibration (calibration.npz): input "image" goes from ')
    assert found["values"]["verdicts"] == {"m/float32": None, "m/int8": "fail", "m/dynamic": None}
    assert [each["rule"] for each in found["values"]["lint"]] == ["range"]
    (result, lint) = found["sarif"]["runs"][0]["results"]
    assert (result["ruleId"], lint["ruleId"], lint["level"]) == ("lint", "lint.range", "error")
    rules = {rule["id"] for rule in found["sarif"]["runs"][0]["tool"]["driver"]["rules"]}
    assert {"lint", "lint.range"} <= rules
    assert '<failure type="fail" message="lint: calibration' in found["junit"]


def test_a_warning_fails_nothing_and_is_kept(example: Example) -> None:
    mixed = np.concatenate([example.calibration[:100], example.evaluation[:50]])
    found = example.checked(mixed, example.evaluation[:1000])
    assert found["failed"] == []
    assert [(each["rule"], each["severity"]) for each in found["models"][0]["lint"]] == [("overlap", "warning")]


def test_few_samples_are_a_warning_of_the_calibrate_step(example: Example) -> None:
    values, _ = example.calibrate(example.calibration[:30])
    assert [(each["rule"], each["severity"]) for each in values["lint"]] == [("few_samples", "warning")]
    assert "ranges are taken from 24 samples" in values["lint"][0]["message"]


def test_the_facts_are_the_same_bytes_each_time(example: Example) -> None:
    first = example.calibrate(example.calibration)[1].read_bytes()
    assert example.calibrate(example.calibration)[1].read_bytes() == first


# ---- the model's own first layers


@pytest.fixture(scope="module")
def scaling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that scales its pixels, 0 to 255, itself; before a convolution that pads this stays apart from it."""
    import keras

    folder = tmp_path_factory.mktemp("scaling")
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3), name="image")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(image)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, padding="same", activation="relu")(scaled))
    keras.Model(image, keras.layers.Dense(5, name="scores")(pooled)).save(folder / "net.keras")
    converted("keras", folder / "net.keras", folder)
    return folder


def test_the_first_layers_are_read_from_the_graph(scaling: Path) -> None:
    model = graph.read((scaling / "float32.tflite").read_bytes())
    found = lint_view.scaling(model, graph.indices(graph.main(model).inputs)[0])
    assert found == pytest.approx((1 / 127.5, -1.0))
    assert lint_view.classes(model) == 5


def test_pictures_that_were_scaled_twice_fail(scaling: Path) -> None:
    pictures = lint_data.colour_pictures(60, 16)
    step_of = {0: "scaled", 1: "pixels"}
    for place, values in enumerate((pictures, pictures * 255)):
        np.savez(scaling / "data.npz", x=values, y=np.zeros(60, np.int64))
        dataset = {"loader": "npz", "options": {"path": "data.npz", "input": "x", "label": "y"}, "samples": None,
                   "seed": 0, "name": step_of[place]}  # fmt: skip
        parameters = {"dataset": dataset, "hold_back": None, "statistics": "all", "lint": {"ignore": []}}
        outputs = {"statistics": "statistics.npz", "samples": "samples.json"}
        step = job("calibrate", scaling, {"model": scaling / "float32.tflite"}, outputs, parameters)
        if place == 0:
            with pytest.raises(StepError, match=r"the model itself multiplies it by 0\.007843"):
                calibrate.run(step)
        else:  # all of one class, which is worth a word
            rules = [found["rule"] for found in calibrate.run(step)["lint"]]
            assert rules == ["labels", "few_samples"]
