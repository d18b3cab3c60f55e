"""The lint of one set: noise, constants, doubles and too few samples are told; sound sets of every kind are silent."""

from __future__ import annotations

from typing import Any

import lint_data
import numpy as np
import pytest
from lint_data import example, facts_of, serious, summary

from quantbuild.lint import facts as facts_file
from quantbuild.lint import set_rules
from quantbuild.lint.fingerprint import digest, kind_of

BOTH = pytest.mark.parametrize("name", ["digits", "fashion"])


@BOTH
def test_a_shipped_example_has_no_finding_at_all(name: str) -> None:
    for pictures in example(name):
        found = facts_of(pictures)
        assert set_rules.findings(found) + set_rules.few_samples(found) == []


@BOTH
@pytest.mark.parametrize("generator", [lint_data.noise, lint_data.normal_noise, lint_data.byte_noise])
@pytest.mark.parametrize("samples", [20, 300])
def test_random_numbers_for_pictures_are_an_error(name: str, generator: Any, samples: int) -> None:
    (finding,) = set_rules.findings(facts_of(generator(example(name)[0][:samples])))
    assert (finding.rule, finding.severity) == ("noise", "error")
    assert 'calibration: input "image" looks like random noise: ' in finding.message
    assert finding.message.endswith("give it real samples, read in the model's layout")


@BOTH
def test_pictures_whose_pixels_were_shuffled_are_a_warning(name: str) -> None:
    """They have no neighbours in common, but no random generator draws from such a distribution."""
    pictures = example(name)[0][:100].reshape(100, -1)
    shuffled = pictures[:, np.random.default_rng(0).permutation(pictures.shape[1])].reshape(
        example(name)[0][:100].shape
    )
    found = serious(set_rules.findings(facts_of(shuffled)))
    assert set(found) <= {("noise", "warning")}


@BOTH
def test_all_zeros_are_an_error(name: str) -> None:
    found = set_rules.findings(facts_of(lint_data.zeros(example(name)[0])))
    assert ("constant", "error") in summary(found)
    assert any('input "image" holds nothing but zeros in every sample' in finding.message for finding in found)


def test_the_same_sample_again_and_again_is_an_error() -> None:
    pictures = np.repeat(example("digits")[0][:1], 50, axis=0)
    assert summary(set_rules.findings(facts_of(pictures))) == [("duplicates", "error")]


@pytest.mark.parametrize(("repeated", "severity"), [(2, "info"), (20, "warning")])
def test_doubles_are_named_and_weigh_by_their_share(repeated: int, severity: str) -> None:
    pictures = example("digits")[0][:100]
    (finding,) = set_rules.findings(facts_of(np.concatenate([pictures, pictures[:repeated]])))
    assert (finding.rule, finding.severity) == ("duplicates", severity)
    assert f"{repeated} of {100 + repeated} samples are doubles of others (0 and 100, 1 and 101" in finding.message


@pytest.mark.parametrize(("blank", "severity"), [(1, "info"), (30, "warning")])
def test_blank_samples_are_named_and_weigh_by_their_share(blank: int, severity: str) -> None:
    pictures = example("fashion")[0][:100].copy()
    pictures[7 : 7 + blank] = 1
    found = [finding for finding in set_rules.findings(facts_of(pictures)) if finding.rule == "constant"]
    assert [finding.severity for finding in found] == [severity]
    assert f"holds one value throughout in {blank} of 100 samples (7" in found[0].message


@pytest.mark.parametrize(("samples", "expected"), [(10, "warning"), (49, "warning"), (50, "info"), (100, None)])
def test_few_samples_are_told(samples: int, expected: str | None) -> None:
    found = set_rules.few_samples(facts_of(example("digits")[0][:samples]))
    assert [finding.severity for finding in found] == ([] if expected is None else [expected])


def test_the_head_of_a_sorted_set_is_told_by_its_classes() -> None:
    facts = facts_of(example("digits")[0][:100])
    (finding,) = set_rules.missing_classes(facts, [0] * 60 + [1] * 40, 10)
    assert "its 100 samples are of 2 of the model's 10 classes, as at the beginning of a sorted set" in finding.message
    assert set_rules.missing_classes(facts, [number % 10 for number in range(100)], 10) == []
    # Fifty samples cannot show a thousand classes.
    assert set_rules.missing_classes(facts, list(range(50)), 1000) == []


# ---- no false alarm


def audio() -> np.ndarray:
    """Speech-like: bursts of harmonics of changing loudness between silences, full scale 1."""
    chance = np.random.default_rng(1)
    time = np.arange(4000) / 8000
    clips = []
    for _ in range(120):
        pitch, loud = chance.uniform(90, 300), chance.uniform(0.05, 0.9)
        voice = sum(np.sin(2 * np.pi * pitch * k * time + chance.uniform(0, 6)) / k for k in range(1, 8))
        clips.append(loud * voice / 3 * (np.sin(2 * np.pi * 3 * time) > 0) + chance.normal(size=4000) * 0.002)
    return np.stack(clips).astype(np.float32)


def table() -> np.ndarray:
    """A row of features: some with long tails, a flag, a category, one that never changes."""
    chance = np.random.default_rng(2)
    columns = [
        chance.normal(size=(120, 4)), chance.lognormal(3, 1.5, (120, 2)), chance.integers(0, 2, (120, 1)),
        chance.integers(0, 5, (120, 1)), np.ones((120, 1)),
    ]  # fmt: skip
    return np.concatenate(columns, axis=1).astype(np.float32)


def words() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 30, (120, 6)).astype(np.int32)


def one_category() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 4, (120, 1)).astype(np.int32)


def embeddings() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((120, 64, 32)).astype(np.float32)


@pytest.mark.parametrize("make", [audio, table, words, one_category, embeddings])
def test_what_is_no_picture_raises_no_false_alarm(make: Any) -> None:
    facts = facts_of(make(), names=("x",))
    assert serious([*set_rules.findings(facts), *set_rules.few_samples(facts)]) == []


def test_a_mask_that_never_changes_beside_other_inputs_is_no_error() -> None:
    """Such as the token types of one sentence; of floats it is worth a look."""
    ones = np.ones((120, 6), np.int32)
    assert serious(set_rules.findings(facts_of(words(), ones, names=("ids", "mask")))) == []
    states = np.zeros((120, 16), np.float32)
    found = serious(set_rules.findings(facts_of(audio(), states, names=("clip", "state"))))
    assert found == [("constant", "warning")]


# ---- the facts themselves


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [
        ((1, 28, 28, 1), "float32", "image_nhwc"),
        ((1, 3, 224, 224), "float32", "image_nchw"),
        ((1, 224, 224, 3), "uint8", "image_nhwc"),
        ((1, 14, 14, 512), "float32", "numbers"),
        ((1, 49, 40, 1), "float32", "image_nhwc"),
        ((1, 7, 7, 3), "float32", "numbers"),
        ((1, 16000), "float32", "numbers"),
        ((1, 128), "int32", "integers"),
    ],
)
def test_pictures_are_known_by_their_shape(shape: tuple[int, ...], dtype: str, kind: str) -> None:
    assert kind_of(shape, np.dtype(dtype)) == kind


def test_channels_first_and_last_give_the_same_figures() -> None:
    pictures = lint_data.colour_pictures(20)
    last = facts_of(pictures).inputs[0].image
    first = facts_of(np.ascontiguousarray(np.moveaxis(pictures, 3, 1))).inputs[0].image
    assert last == first
    assert last is not None
    assert (len(last.channel_mean), last.down > 0.9, last.first_minus_last > 0) == (3, True, True)


def test_the_correlation_of_neighbours_is_that_of_their_values() -> None:
    """An autoregressive picture has the correlation it is made with."""
    chance = np.random.default_rng(5)
    picture = chance.standard_normal((200, 40, 40))
    for column in range(1, 40):
        picture[:, :, column] = 0.8 * picture[:, :, column - 1] + 0.6 * picture[:, :, column]
    image = facts_of(picture[..., None].astype(np.float32)).inputs[0].image
    assert image is not None
    assert image.across == pytest.approx(0.8, abs=0.02)
    assert image.down == pytest.approx(0.0, abs=0.02)


def test_a_digest_is_of_values_type_and_shape_whatever_the_order_of_inputs() -> None:
    a, b = np.arange(4, dtype=np.float32), np.ones(3, np.int32)
    assert digest({"a": a, "b": b}) == digest({"b": b, "a": a})
    others = [
        {"a": a.astype(np.float64), "b": b},
        {"a": a.reshape(2, 2), "b": b},
        {"a": a + 1, "b": b},
        {"c": a, "b": b},
    ]
    assert len({digest(each) for each in [{"a": a, "b": b}, *others]}) == 5


def test_figures_are_of_a_part_of_a_large_set_and_digests_of_all() -> None:
    facts = facts_of(example("fashion")[1][:2000])
    assert (facts.samples, facts.looked_at, len(facts.digests)) == (2000, 500, 2000)


def test_a_file_of_facts_is_read_as_it_was_written(tmp_path: Any) -> None:
    facts = facts_of(example("digits")[0][:20])
    found = set_rules.few_samples(facts)
    facts_file.write(str(tmp_path / "facts.json"), facts, found)
    read = facts_file.read(str(tmp_path / "facts.json"))
    assert (read.facts, list(read.findings)) == (facts, found)
