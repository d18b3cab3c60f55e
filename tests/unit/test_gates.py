"""Gates judge figures: what passes, fails, stays undecided or was not measured, and what is written about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from quantbuild import gates, sample_file
from quantbuild.actions import check
from quantbuild.step import Job


def evaluated(scores: list[float], baseline: list[float], **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    ours, theirs = np.array(scores, float), np.array(baseline, float)
    evaluation = {
        "metric": "top1", "higher_is_better": True, "n": len(scores), "value": ours.mean(), "baseline": theirs.mean(),
        "agreement": 0.97, "agreed": 97, "sqnr_db": 21.5, "slices": [], **changes,
    }  # fmt: skip
    return evaluation, {"score": ours, "baseline_score": theirs}


def judged(gate: dict[str, Any], **measured: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"accuracy": None, "size_ratio": None, "float_ops": None, "devices": {}}
    (row,) = gates.judge(gate, **{**known, **measured})
    return row


def test_loss_is_how_much_worse_than_float32() -> None:
    block = gates.accuracy(*evaluated([1] * 90 + [0] * 10, [1] * 95 + [0] * 5), {}, reference=False)
    assert block["loss"] == pytest.approx(0.05)
    assert block["loss_low"] < 0.05 < block["loss_high"]
    lower = gates.accuracy(*evaluated([3.0, 2.0], [1.0, 1.0], higher_is_better=False), {}, reference=False)
    assert lower["loss"] == pytest.approx(1.5)
    assert lower["loss_low"] <= 1.5 <= lower["loss_high"]


@pytest.mark.parametrize("right", [83, 99, 100])
def test_one_sample_of_a_hundred_is_within_a_limit_of_one_point(right: int) -> None:
    """As binary numbers 0.83 − 0.82 is more than 0.01."""
    baseline, scores = ([1] * hits + [0] * (100 - hits) for hits in (right, right - 1))
    assert gates.accuracy(*evaluated(scores, baseline), {}, reference=False)["loss"] == 0.01


def test_float32_loses_nothing_by_definition() -> None:
    block = gates.accuracy(*evaluated([1, 0], [1, 0]), {"max_accuracy_loss": 0.01}, reference=True)
    assert (block["loss"], block["loss_low"], block["loss_high"], block["verdict"]) == (0, 0, 0, "pass")


def test_an_equal_variant_is_not_known_to_lose_nothing() -> None:
    block = gates.accuracy(*evaluated([1] * 100, [1] * 100), {"max_accuracy_loss": 0.01}, reference=False)
    assert block["loss"] == 0
    assert block["loss_low"] < 0 < block["loss_high"]
    assert block["verdict"] == "undecided"


@pytest.mark.parametrize(("wrong", "limit", "expected"), [(0, 0.1, "pass"), (30, 0.1, "fail"), (9, 0.1, "undecided")])
def test_the_loss_is_judged_by_its_interval(wrong: int, limit: float, expected: str) -> None:
    scores = [0.0] * wrong + [1.0] * (100 - wrong)
    gate = {"max_accuracy_loss": limit}
    block = gates.accuracy(*evaluated(scores, [1.0] * 100), gate, reference=False)
    assert block["verdict"] == expected
    assert judged(gate, accuracy=block)["verdict"] == expected


def test_an_undecided_loss_tells_how_many_samples_would_roughly_decide_it() -> None:
    gate = {"max_accuracy_loss": 0.1}
    block = gates.accuracy(*evaluated([0.0] * 7 + [1.0] * 93, [1.0] * 100), gate, reference=False)
    row = judged(gate, accuracy=block)
    expected = 100 * ((block["loss_high"] - 0.07) / 0.03) ** 2
    assert expected <= row["samples_to_decide"] < expected + 10
    assert row["message"].endswith(
        f"; about {row['samples_to_decide']} samples like these would decide it (an estimate)"
    )
    decided = judged({"max_accuracy_loss": 0.5}, accuracy={**block, "verdict": "pass"})
    assert decided["samples_to_decide"] is None
    assert "would decide" not in decided["message"]


def test_more_confidence_is_a_wider_interval() -> None:
    pair = evaluated([0] * 5 + [1] * 95, [1] * 100)
    narrow = gates.accuracy(*pair, {"confidence": 0.8}, reference=False)
    wide = gates.accuracy(*pair, {"confidence": 0.99}, reference=False)
    assert wide["loss_low"] < narrow["loss_low"] < narrow["loss_high"] < wide["loss_high"]


def test_agreement_as_the_metric_never_gains() -> None:
    block = gates.accuracy(*evaluated([1] * 98 + [0] * 2, [1] * 100, metric="agreement"), {}, reference=False)
    assert block["loss"] == pytest.approx(0.02)
    # Clopper and Pearson for 2 of 100
    assert (block["loss_low"], block["loss_high"]) == pytest.approx((0.00243, 0.07038), abs=1e-5)


def test_sqnr_as_the_metric_has_no_loss() -> None:
    evaluation, _ = evaluated([1], [1], metric="sqnr", value=21.5)
    block = gates.accuracy({**evaluation, "baseline": None}, {}, {}, reference=False)
    assert (block["value"], block["loss"], block["loss_low"], block["verdict"]) == (21.5, None, None, "not_measured")


def test_slices_have_their_own_intervals() -> None:
    evaluation, samples = evaluated([1, 0] * 20, [1, 1] * 20)
    evaluation["slices"] = [{"name": "dark", "n": 20, "value": 0.0, "baseline": 1.0}]
    samples["slice"] = np.array([1, 0] * 20)
    (found,) = gates.accuracy(evaluation, samples, {}, reference=False)["slices"]
    assert found["loss"] == 1.0
    assert 0.6 < found["loss_low"] < found["loss_high"] == 1.0


def sliced(gate: dict[str, Any], *, reference: bool = False, **wrong: int) -> dict[str, Any]:
    """An accuracy block of slices of 100 samples each, on which float32 is right and a variant so often wrong."""
    scores = np.concatenate([np.repeat([0.0, 1.0], [count, 100 - count]) for count in wrong.values()])
    evaluation, samples = evaluated(scores.tolist(), [1.0] * len(scores))
    samples["slice"] = np.repeat(np.arange(len(wrong)), 100)
    evaluation["slices"] = [
        {"name": name, "n": 100, "value": 1 - count / 100, "baseline": 1.0} for name, count in wrong.items()
    ]
    return gates.accuracy(evaluation, samples, gate, reference=reference)


@pytest.mark.parametrize(
    ("wrong", "verdict", "named"),
    [
        ({"day": 0, "dusk": 1, "night": 0}, "pass", "dusk"),
        ({"day": 0, "dusk": 12, "night": 1}, "undecided", "dusk"),
        ({"day": 40, "dusk": 12, "night": 50}, "fail", "night"),
    ],
)
def test_the_worst_slice_decides_and_is_named(wrong: dict[str, int], verdict: str, named: str) -> None:
    gate = {"max_slice_loss": 0.1}
    row = judged(gate, accuracy=sliced(gate, **wrong))
    assert (row["verdict"], row["slice"], row["value"]) == (verdict, named, pytest.approx(wrong[named] / 100))
    assert row["message"].startswith(f"max_slice_loss: slice {named}: loss {wrong[named] / 100:.4g} [")
    assert row["message"].partition("; about ")[0].endswith("of 100 samples is " + {
        "pass": "within 0.1 (the worst of 3)",
        "fail": "beyond 0.1 (the worst of 3)",
        "undecided": "not decided against 0.1 (the worst of 3)",
    }[verdict])  # fmt: skip


def test_a_small_loss_overall_hides_no_slice() -> None:
    gate = {"max_accuracy_loss": 0.2, "max_slice_loss": 0.2}
    block = sliced(gate, day=0, night=40)
    assert [(row["name"], row["verdict"]) for row in gates.judge(
        gate, accuracy=block, size_ratio=None, float_ops=None, devices={}
    )] == [("max_accuracy_loss", "undecided"), ("max_slice_loss", "fail")]  # fmt: skip
    assert [found["verdict"] for found in block["slices"]] == ["pass", "fail"]


def test_the_probability_of_error_is_divided_among_the_slices() -> None:
    alone = sliced({"confidence": 0.99}, day=5)["slices"][0]
    among_five = sliced({"confidence": 0.95}, day=5, b=0, c=0, d=0, e=0)["slices"][0]
    assert (among_five["loss_low"], among_five["loss_high"]) == pytest.approx((alone["loss_low"], alone["loss_high"]))


def test_float32_loses_nothing_on_any_slice() -> None:
    (found,) = sliced({"max_slice_loss": 0.0}, reference=True, day=0)["slices"]
    assert (found["loss"], found["loss_low"], found["loss_high"], found["verdict"]) == (0, 0, 0, "pass")


def test_without_slices_a_gate_on_them_is_not_measured() -> None:
    row = judged({"max_slice_loss": 0.1}, accuracy={**ACCURACY, "slices": []})
    assert (row["verdict"], row["slice"]) == ("not_measured", None)
    assert row["message"] == "max_slice_loss: not measured: the evaluation set has no slices"
    assert judged({"max_slice_loss": 0.1})["verdict"] == "not_measured"


SAME_AS_FLOAT32 = {"agreement": 1.0, "sqnr_db": None, "loss": 0.0, "verdict": "pass", "n": 100}
ACCURACY = {"agreement": 0.97, "sqnr_db": 21.5, "loss": 0.0, "verdict": "pass", "n": 100}


@pytest.mark.parametrize(
    ("gate", "measured", "verdict", "message"),
    [
        ({"min_agreement": 0.98}, {"accuracy": ACCURACY}, "fail", "min_agreement: 0.97 < 0.98"),
        ({"min_agreement": 0.97}, {"accuracy": ACCURACY}, "pass", "min_agreement: 0.97 ≥ 0.97"),
        ({"min_sqnr_db": 20}, {"accuracy": ACCURACY}, "pass", "min_sqnr_db: 21.5 ≥ 20"),
        ({"min_sqnr_db": 20}, {"accuracy": SAME_AS_FLOAT32}, "pass", "min_sqnr_db: outputs are identical"),
        ({"min_sqnr_db": 20}, {}, "not_measured", "min_sqnr_db: not measured"),
        ({"max_size_ratio": 0.01}, {"size_ratio": 0.29412}, "fail", "max_size_ratio: 0.2941 > 0.01"),
        ({"max_size_ratio": 0.35}, {"size_ratio": 0.29412}, "pass", "max_size_ratio: 0.2941 ≤ 0.35"),
        ({"fully_integer": True}, {"float_ops": []}, "pass", "fully_integer: no float op is left"),
        ({"fully_integer": True}, {"float_ops": [{"op": "EXP"}] * 2}, "fail", "fully_integer: 2 float ops are left (E"),
        ({"fully_integer": True}, {}, "not_measured", "fully_integer: not measured"),
    ],
)  # fmt: skip
def test_a_gate_says_its_figure_and_limit(
    gate: dict[str, Any], measured: dict[str, Any], verdict: str, message: str
) -> None:
    row = judged(gate, **measured)
    assert row["verdict"] == verdict
    assert row["message"].startswith(message)


@pytest.mark.parametrize(
    ("status", "ratio", "expected"),
    [
        ("measured", 0.9, "pass"),
        ("measured", 1.2, "fail"),
        ("unstable", 1.2, "undecided"),
        ("not_measured", None, "not_measured"),
    ],
)
def test_latency_is_judged_only_when_it_is_steady(status: str, ratio: float | None, expected: str) -> None:
    row = judged({"max_latency_ratio": {"host": 1.1}}, devices={"host": {"status": status, "latency_ratio": ratio}})
    assert (row["name"], row["device"], row["verdict"]) == ("max_latency_ratio", "host", expected)


def test_a_device_without_a_result_is_not_measured() -> None:
    row = judged({"max_peak_memory_ratio": {"phone": 0.6}})
    assert (row["device"], row["value"], row["verdict"]) == ("phone", None, "not_measured")


def test_a_gate_that_is_not_set_has_no_row() -> None:
    unset = {"fully_integer": False, "max_size_ratio": None, "confidence": 0.9, "undecided": "fail"}
    assert gates.judge(unset, accuracy=None, size_ratio=1.0, float_ops=[], devices={}) == []


def test_undecided_fails_only_where_the_manifest_says_so() -> None:
    row = {"verdict": "undecided"}
    assert not gates.fails(row, {})
    assert gates.fails(row, {"undecided": "fail"})
    assert not gates.fails({"verdict": "not_measured"}, {"undecided": "fail"})


FAILED = {"step": "calibrate:m", "message": "sample 3 holds NaN", "log": "build/.logs/calibrate.m.log"}


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A model with float32, a variant that is too large and undecided, and one whose step failed."""
    evaluation, samples = evaluated([1] * 99 + [0], [1] * 100)
    inputs = {}

    def add(role: str, content: dict[str, Any]) -> None:
        path = tmp_path / f"{len(inputs)}.json"
        path.write_text(json.dumps(content))
        inputs[role] = str(path)

    add("m/float32:description", {"size_bytes": 1000, "float_ops": [{"op": "CONV_2D", "name": "c"}]})
    add("m/a:description", {"size_bytes": 300, "float_ops": []})
    add("m/a:evaluation", {**evaluation, "value": 0.99, "baseline": 1.0})
    add("m/a@host:result", {"status": "measured", "latency_ratio": 0.5, "memory_ratio": 0.5})
    sample_file.write(str(tmp_path / "samples.npz"), samples, {})
    inputs["m/a:samples"] = str(tmp_path / "samples.npz")
    limits = {"max_accuracy_loss": 0.02, "max_size_ratio": 0.01, "fully_integer": True}
    gate = {**limits, "max_latency_ratio": {"host": 1.1}}
    variants = [
        {"name": "float32", "scheme": "float32", "gate": gate, "error": None, "cause": None},
        {"name": "a", "scheme": "int8", "gate": gate, "error": None, "cause": None},
        {"name": "b", "scheme": "int8", "gate": gate, "error": "blocked by calibrate:m", "cause": FAILED},
    ]
    return Job(
        step="check",
        action="check",
        parameters={
            "models": [
                {"name": "m", "metric": "top1", "lint": {"ignore": [], "calibrated": ["a", "b"]}, "variants": variants}
            ]
        },
        inputs=inputs,
        outputs={role: str(tmp_path / role) for role in ("gates", "junit")},
        root=str(tmp_path),
        scratch=str(tmp_path),
    )


def test_check_judges_every_variant(job: Job) -> None:
    values = check.run(job)
    written = json.loads(Path(job.outputs["gates"]).read_text())
    assert values["failed"] == written["failed"]
    float32, a, b = written["models"][0]["variants"]
    assert (float32["gates"], float32["accuracy"]) == ([], None)
    assert {row["name"]: row["verdict"] for row in a["gates"]} == {
        "max_accuracy_loss": "undecided",
        "max_size_ratio": "fail",
        "max_latency_ratio": "pass",
        "fully_integer": "pass",
    }
    assert {row["verdict"] for row in b["gates"]} == {"not_measured"}
    assert [(row["model"], row["variant"], row["gate"], row["limit"], row["value"]) for row in written["failed"]] == [
        ("m", "a", "max_size_ratio", 0.01, 0.3)
    ]


def test_junit_has_a_case_per_gate_and_an_error_per_failed_step(job: Job) -> None:
    check.run(job)
    (suite,) = ET.parse(job.outputs["junit"]).getroot()
    assert {part: suite.get(part) for part in ("tests", "failures", "errors", "skipped")} == {
        "tests": "9", "failures": "1", "errors": "1", "skipped": "5",
    }  # fmt: skip
    (failure,) = suite.findall("testcase/failure")
    assert failure.get("message") == "max_size_ratio: 0.3 > 0.01"
    (error,) = suite.findall("testcase/error")
    assert error.get("message") == "blocked by calibrate:m: sample 3 holds NaN"
    assert error.text == "step calibrate:m; log: build/.logs/calibrate.m.log"


def test_check_writes_the_same_bytes_each_time(job: Job) -> None:
    check.run(job)
    first = [Path(path).read_bytes() for path in job.outputs.values()]
    check.run(job)
    assert [Path(path).read_bytes() for path in job.outputs.values()] == first
