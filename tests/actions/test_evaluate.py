"""float32 and a variant see the same samples in the same order, and what is kept lets their losses be paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tflite import IDENTITY, linear

from quantbuild import sample_file
from quantbuild.actions import evaluate
from quantbuild.errors import StepError
from quantbuild.step import Job

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1])
IMAGES = np.eye(4, dtype=np.float32)[LABELS] * 4
WRONG_FOR_2 = np.array([[1, 0, 1.5, 0], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32)


class Workspace:
    """A dataset, models, and the evaluate step run on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.arrays: dict[str, np.ndarray] = {"x": IMAGES, "y": LABELS}
        self.options: dict[str, Any] = {"path": "data.npz", "input": "x", "label": "y"}
        self.metric = "top1"
        self.parameters: dict[str, Any] = {}

    def evaluate(self, name: str, model: Path, baseline: Path | None = None) -> dict[str, Any]:
        np.savez(self.root / "data.npz", **self.arrays)
        scratch = self.root / name
        scratch.mkdir(exist_ok=True)
        dataset = {"loader": "npz", "options": self.options, "samples": None, "seed": 0, "name": "test"}
        inputs = {"model": str(model)} | ({"baseline": str(baseline)} if baseline else {})
        job = Job(
            step=f"evaluate:m/{name}",
            action="evaluate",
            parameters={"dataset": dataset, "metric": self.metric, **self.parameters},
            inputs=inputs,
            outputs={"evaluation": str(scratch / "evaluation.json"), "samples": str(scratch / "samples.npz")},
            root=str(self.root),
            scratch=str(scratch),
        )
        evaluate.run(job)
        result: dict[str, Any] = json.loads((scratch / "evaluation.json").read_text())
        return result

    def samples(self, name: str) -> dict[str, np.ndarray]:
        return sample_file.read(str(self.root / name / "samples.npz"))

    def pair(self, variant: Path) -> dict[str, Any]:
        self.evaluate("float32", linear(self.root / "float32.tflite"))
        return self.evaluate("variant", variant, self.root / "float32" / "samples.npz")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def test_float32_is_its_own_baseline(workspace: Workspace) -> None:
    result = workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))
    assert (result["value"], result["baseline"], result["n"]) == (1.0, 1.0, 8)
    assert (result["agreement"], result["sqnr_db"], result["flipped"]) == (1.0, None, [])


def test_flips_are_paired_counted_and_named(workspace: Workspace) -> None:
    result = workspace.pair(linear(workspace.root / "v.tflite", WRONG_FOR_2))
    assert result["value"] == pytest.approx(6 / 8)
    assert result["baseline"] == 1.0
    assert result["pairs"] == {
        "both_right": 6, "only_float32_right": 2, "only_variant_right": 0, "both_wrong": 0,
    }  # fmt: skip
    assert (result["agreement"], result["agreed"], result["flipped"]) == (6 / 8, 6, [2, 5])


def test_the_counts_are_those_of_the_per_sample_arrays(workspace: Workspace) -> None:
    workspace.pair(linear(workspace.root / "v.tflite", WRONG_FOR_2))
    kept = workspace.samples("variant")
    assert kept["index"].tolist() == list(range(8))
    assert kept["prediction"].tolist() == [0, 1, 0, 0, 1, 0, 0, 1]
    assert kept["score"].tolist() == [1, 1, 0, 1, 1, 0, 1, 1]
    assert kept["baseline_score"].tolist() == [1] * 8
    assert kept["agreement"].tolist() == kept["score"].tolist()


def test_sqnr_is_over_all_samples_and_null_where_identical(workspace: Workspace) -> None:
    result = workspace.pair(linear(workspace.root / "v.tflite", IDENTITY * 1.5))
    # noise is half the signal in amplitude: 10·log10(1 / 0.25)
    assert result["sqnr_db"] == pytest.approx(6.0206, abs=1e-4)
    same = workspace.pair(linear(workspace.root / "float32.tflite"))
    assert (same["sqnr_db"], same["agreement"]) == (None, 1.0)


def test_an_int8_model_is_compared_in_real_values(workspace: Workspace) -> None:
    result = workspace.pair(linear(workspace.root / "v.tflite", int8_io=True))
    assert result["value"] == 1.0
    assert result["sqnr_db"] is None or result["sqnr_db"] > 20


def test_what_the_outputs_do_is_told_beside_float32(workspace: Workspace) -> None:
    float32 = workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))
    (figures,) = float32["outputs"]
    assert (figures["name"], figures["elements"], figures["constant_elements"]) == ("scores", 3, 0)
    assert (figures["stuck_elements"], figures["at_low"]) == (None, None)
    (figures,) = workspace.pair(linear(workspace.root / "v.tflite", WRONG_FOR_2 * 0))["outputs"]
    assert (figures["constant_elements"], figures["stuck_elements"], figures["clipped"]) == (3, 3, None)
    # Its range is −66.5 to 61: the scores of 80 are cut off.
    (figures,) = workspace.pair(linear(workspace.root / "v.tflite", IDENTITY * 20, int8_io=True))["outputs"]
    assert figures["at_high"] == pytest.approx(1 / 3)
    assert figures["clipped"] == 0.0  # float32's own scores are 4


def test_bytes_are_the_same_each_time(workspace: Workspace) -> None:
    model = linear(workspace.root / "v.tflite", WRONG_FOR_2)
    workspace.pair(model)
    first = {p.name: p.read_bytes() for p in (workspace.root / "variant").iterdir()}
    workspace.pair(model)
    assert {p.name: p.read_bytes() for p in (workspace.root / "variant").iterdir()} == first
    assert sorted(first) == ["evaluation.json", "samples.npz"]


def test_without_labels_agreement_is_the_figure(workspace: Workspace) -> None:
    del workspace.options["label"]
    workspace.metric = "agreement"
    result = workspace.pair(linear(workspace.root / "v.tflite", WRONG_FOR_2))
    assert (result["value"], result["baseline"]) == (6 / 8, 1.0)


def test_without_labels_top1_is_refused_with_a_remedy(workspace: Workspace) -> None:
    del workspace.options["label"]
    with pytest.raises(StepError, match=r'dataset test: metric top1 needs labels; .*"agreement"'):
        workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))


def test_sqnr_as_the_metric_has_no_baseline(workspace: Workspace) -> None:
    workspace.metric = "sqnr"
    result = workspace.pair(linear(workspace.root / "v.tflite", IDENTITY * 1.5))
    assert (result["value"], result["baseline"], result["pairs"]) == (result["sqnr_db"], None, None)
    assert "score" not in workspace.samples("variant")


def test_mae_takes_a_label_per_output_number(workspace: Workspace) -> None:
    workspace.arrays["y"] = IMAGES[:, :3] + 0.5
    workspace.metric = "mae"
    result = workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))
    assert result["value"] == pytest.approx(0.5)
    assert result["higher_is_better"] is False


def test_slices_have_their_own_figures(workspace: Workspace) -> None:
    workspace.arrays["group"] = np.array(["dark", "light"] * 4)
    workspace.options["slice"] = "group"
    result = workspace.pair(linear(workspace.root / "v.tflite", WRONG_FOR_2))
    assert result["slices"] == [
        {"name": "dark", "n": 4, "value": 0.75, "baseline": 1.0},
        {"name": "light", "n": 4, "value": 0.75, "baseline": 1.0},
    ]
    assert workspace.samples("variant")["slice"].tolist() == [0, 1] * 4


def test_a_metric_of_the_users_scores_each_sample(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "margin_metric.py").write_text(
        "def score(outputs, label):\n"
        "    return outputs['scores'][0, label] - 1\n"
        "score.higher_is_better = True\n"
    )  # fmt: skip
    workspace.metric = "margin_metric:score"
    result = workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))
    assert result["value"] == pytest.approx(3.0)
    assert result["pairs"] is None


def test_only_the_part_held_back_is_run_when_asked(workspace: Workspace) -> None:
    workspace.parameters = {"hold_back": {"fraction": 0.25, "seed": 0}}
    result = workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))
    assert result["n"] == 2


def test_a_label_that_is_no_class_names_its_sample(workspace: Workspace) -> None:
    workspace.arrays["y"] = LABELS + np.array([0, 0, 0, 9, 0, 0, 0, 0])
    with pytest.raises(StepError, match=r"^test \(data\.npz\): sample 3: label 9 is no class of an output of 3"):
        workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))


def test_a_sample_with_nan_is_named_with_its_set_and_file(workspace: Workspace) -> None:
    workspace.arrays["x"] = IMAGES.copy()
    workspace.arrays["x"][5, 0] = np.nan
    with pytest.raises(StepError, match=r"^test \(data\.npz\): sample 5: input 'image' \(float32\) holds NaN"):
        workspace.evaluate("float32", linear(workspace.root / "float32.tflite"))


def test_models_with_other_outputs_are_not_compared(workspace: Workspace) -> None:
    with pytest.raises(StepError, match="are not float32's"):
        workspace.pair(linear(workspace.root / "v.tflite", np.eye(2, 4, dtype=np.float32)))
