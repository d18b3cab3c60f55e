"""The lint of two sets: another scale, layout or order is told, the same source is not; only inputs are looked at."""

from __future__ import annotations

from typing import Any

import lint_data
import numpy as np
import pytest
from lint_data import WRONG_SCALES, colour_pictures, example, facts_of, serious, summary
from test_lint_sets import audio, embeddings, one_category, table, words

from quantbuild.lint import output_rules, pair_rules
from quantbuild.lint.facts import SetFile
from quantbuild.lint.findings import Finding
from quantbuild.lint.judgement import judge

BOTH = pytest.mark.parametrize("name", ["digits", "fashion"])


def compared(calibration: np.ndarray, evaluation: np.ndarray) -> list[Finding]:
    return pair_rules.findings(facts_of(calibration), facts_of(evaluation, name="test"))


@BOTH
def test_the_shipped_sets_go_together(name: str) -> None:
    assert compared(*example(name)) == []


@BOTH
@pytest.mark.parametrize("samples", [10, 30])
def test_a_small_draw_of_the_same_source_goes_with_it(name: str, samples: int) -> None:
    calibration, evaluation = example(name)
    for start in range(0, 200, samples):
        assert compared(calibration[start : start + samples], evaluation) == []


@BOTH
@pytest.mark.parametrize("scale", WRONG_SCALES)
def test_another_normalization_is_an_error(name: str, scale: str) -> None:
    calibration, evaluation = example(name)
    for pair in ((WRONG_SCALES[scale](calibration), evaluation), (calibration, WRONG_SCALES[scale](evaluation))):
        (finding,) = compared(*pair)
        assert (finding.rule, finding.severity) == ("range", "error"), finding
        assert finding.message.startswith('calibration: input "image" goes from ')
        assert finding.message.endswith("prepare both in the same way (scale, mean and std)")


def test_darker_pictures_of_the_same_scale_are_a_warning() -> None:
    calibration, evaluation = example("fashion")
    found = compared(calibration**4, evaluation)
    assert summary(found) == [("range", "warning")]
    assert found[0].message.endswith("draw both from one source")


@BOTH
def test_noise_beside_pictures_is_an_error_whatever_its_distribution(name: str) -> None:
    calibration, evaluation = example(name)
    shuffled = np.random.default_rng(0).permutation(calibration[:200].reshape(-1)).reshape(calibration[:200].shape)
    assert ("noise", "error") in summary(compared(shuffled, evaluation))


def test_turned_pictures_are_told_where_height_and_width_differ() -> None:
    calibration, evaluation = example("digits")
    found = compared(np.ascontiguousarray(np.moveaxis(calibration, 1, 2)), evaluation)
    assert summary(found) == [("layout", "warning")]
    assert "seems to have height and width swapped" in found[0].message


def test_channels_first_data_forced_into_channels_last_is_an_error() -> None:
    pictures = colour_pictures(200)
    forced = np.ascontiguousarray(np.moveaxis(pictures[:80], 3, 1)).reshape(pictures[:80].shape)
    assert ("layout", "error") in summary(compared(forced, pictures[80:]))


def test_colour_pictures_of_one_source_go_together() -> None:
    pictures = colour_pictures(200)
    assert compared(pictures[:80], pictures[80:]) == []
    grey = np.repeat(pictures[:80].mean(axis=3, keepdims=True), 3, axis=3)
    assert serious(compared(grey, pictures[80:])) == []


def test_channels_in_reverse_are_a_warning() -> None:
    pictures = colour_pictures(200)
    found = compared(np.ascontiguousarray(pictures[:80, ..., ::-1]), pictures[80:])
    assert summary(found) == [("channel_order", "warning")]
    assert "(BGR for RGB)" in found[0].message


def test_samples_in_both_sets_are_named() -> None:
    calibration, evaluation = example("digits")
    (finding,) = compared(np.concatenate([calibration[:90], evaluation[5:15]]), evaluation)
    assert (finding.rule, finding.severity) == ("overlap", "warning")
    assert "10 of 100 samples (90, 91, 92, 93, 94 and 5 more) are in test, too" in finding.message
    assert finding.figures["share"] == pytest.approx(0.1)


def test_held_back_samples_count_for_the_overlap_too() -> None:
    from quantbuild.lint.fingerprint import Fingerprint, Port

    calibration, evaluation = example("digits")
    port = Port("image", (1, 8, 8, 1), np.dtype(np.float32))
    fingerprint = Fingerprint("calibration", [port], 60)
    for number in range(60):
        fingerprint.add(number, {"image": calibration[number : number + 1]})
    fingerprint.add_digest(60, {"image": evaluation[:1]})
    (finding,) = pair_rules.findings(fingerprint.facts(), facts_of(evaluation, name="test"))
    assert (finding.rule, finding.figures["samples"]) == ("overlap", [60])


# ---- what is no picture


@pytest.mark.parametrize("make", [audio, table, words, one_category, embeddings])
def test_what_is_no_picture_raises_no_false_alarm(make: Any) -> None:
    values = make()
    for cut in (30, 60):
        assert serious(compared(values[:cut], values[60:])) == []


def test_quieter_recordings_are_no_matter_and_another_scale_is_an_error() -> None:
    clips = audio()
    assert compared(clips[:60] / 3, clips[60:]) == []
    assert summary(compared(clips[:60] * 32768, clips[60:])) == [("range", "error")]


def test_features_that_were_not_standardized_are_an_error() -> None:
    chance = np.random.default_rng(0)
    raw = chance.normal([5.8, 3.0, 3.7, 1.2], [0.8, 0.4, 1.7, 0.7], (200, 4)).astype(np.float32)
    standardized = ((raw - raw.mean(axis=0)) / raw.std(axis=0)).astype(np.float32)
    assert summary(compared(raw[:100], standardized[100:])) == [("range", "error")]
    assert compared(standardized[:100], standardized[100:]) == []


# ---- outputs


def output(**figures: Any) -> dict[str, Any]:
    known = {"name": "y", "elements": 3, "constant_elements": 0, "stuck_elements": 0,
             "at_low": 0.0, "at_high": 0.0, "clipped": 0.0}  # fmt: skip
    return {"outputs": [{**known, **figures}]}


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"constant_elements": 2, "stuck_elements": 1}, []),
        ({"constant_elements": 3, "stuck_elements": 3}, [("constant_output", "error")]),
        ({"constant_elements": 3, "stuck_elements": 0}, [("constant_output", "warning")]),
        ({"constant_elements": 3, "stuck_elements": None, "clipped": None}, [("constant_output", "warning")]),
        ({"clipped": 0.005}, []),
        ({"clipped": 0.02}, [("saturated_output", "warning")]),
        ({"clipped": 0.5}, [("saturated_output", "error")]),
        ({"at_low": 0.9}, []),
    ],
)
def test_dead_and_saturated_outputs_are_told(figures: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert summary(output_rules.findings("m/v", output(**figures))) == expected


@pytest.mark.parametrize(("value", "n", "doubted"), [(0.12, 600, True), (0.13, 600, False), (0.75, 4, False)])
def test_a_float32_that_guesses_is_a_warning_and_counts_against_nobody(value: float, n: int, doubted: bool) -> None:
    """Of 600 guesses among ten classes 72 or more are right in 6 of 100 tries, 78 or more in 1 of 100."""
    float32 = {**output(elements=10), "metric": "top1", "value": value, "n": n}
    evaluations = {"float32": float32, "int8": {**float32, "value": 0.1}}
    known: dict[str, Any] = {"calibration": None, "evaluation": None, "evaluations": evaluations, "calibrated": []}
    found = judge("m", **known, ignored=[])
    assert summary(found.findings) == ([("guessing", "warning")] if doubted else [])
    assert not any(found.against.values())
    assert judge("m", **known, ignored=["guessing"]).findings == []


# ---- what counts against which variant


def test_an_error_of_the_calibration_set_counts_against_the_variants_that_it_shaped() -> None:
    calibration, evaluation = example("digits")
    sets = {
        "calibration": SetFile(schema=1, facts=facts_of(calibration * 255)),
        "evaluation": SetFile(schema=1, facts=facts_of(evaluation, name="test")),
    }
    evaluations = {"float32": output(), "int8": output(), "dynamic": output()}
    found = judge("m", **sets, evaluations=evaluations, calibrated=["int8"], ignored=[])
    assert {variant: summary(ruin) for variant, ruin in found.against.items()} == {
        "float32": [], "int8": [("range", "error")], "dynamic": [],
    }  # fmt: skip
    silent = judge("m", **sets, evaluations=evaluations, calibrated=["int8"], ignored=["range"])
    assert (silent.findings, silent.against["int8"]) == ([], [])


def test_an_error_of_the_evaluation_set_counts_against_every_variant() -> None:
    evaluation = SetFile(schema=1, facts=facts_of(lint_data.zeros(example("digits")[1]), name="test"))
    evaluations = {"int8": output(), "dynamic": output()}
    found = judge("m", calibration=None, evaluation=evaluation, evaluations=evaluations, calibrated=[], ignored=[])
    assert all(("constant", "error") in summary(ruin) for ruin in found.against.values())


def test_what_calibration_found_is_repeated_and_not_judged_again() -> None:
    earlier = Finding(rule="few_samples", severity="warning", subject="c", message="c: few; more")
    calibration = SetFile(schema=1, facts=facts_of(example("digits")[0]), findings=(earlier,))
    found = judge("m", calibration=calibration, evaluation=None, evaluations={}, calibrated=["a"], ignored=[])
    assert (found.earlier, found.findings) == ([earlier], [])
