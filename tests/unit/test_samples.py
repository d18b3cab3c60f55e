"""Which samples a step reads: seeded, stratified, the same everywhere."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbuild.datasets import npz
from quantbuild.datasets.samples import draw, hold_back, load
from quantbuild.errors import StepError

SORTED_LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def test_without_a_count_all_samples_keep_their_order() -> None:
    assert draw(5, None, None, 7) == [0, 1, 2, 3, 4]


def test_a_draw_keeps_each_labels_share() -> None:
    chosen = draw(100, SORTED_LABELS, 20, 0)
    assert Counter(SORTED_LABELS[chosen].tolist()) == {0: 12, 1: 6, 2: 2}
    assert len(set(chosen)) == 20


def test_remainders_are_filled_to_the_exact_count() -> None:
    for samples in range(1, 101):
        assert len(set(draw(100, SORTED_LABELS, samples, 0))) == samples


def test_equal_remainders_do_not_always_drop_the_same_classes() -> None:
    labels = np.repeat(np.arange(10), 10)
    seen = {label for seed in range(20) for label in labels[draw(100, labels, 3, seed)].tolist()}
    assert len(seen) == 10


def test_a_draw_depends_on_the_seed_alone() -> None:
    assert draw(100, SORTED_LABELS, 20, 3) == draw(100, SORTED_LABELS, 20, 3)
    assert draw(100, SORTED_LABELS, 20, 3) != draw(100, SORTED_LABELS, 20, 4)


def test_a_draw_is_the_same_with_every_numpy() -> None:
    # Kept from the first run: raw PCG64 output is promised stable; Generator.permutation is not.
    assert draw(10, None, 5, 0) == [3, 2, 1, 8, 6]


def test_labels_that_are_no_classes_give_a_plain_shuffle() -> None:
    plain = draw(10, None, 4, 0)
    assert draw(10, np.linspace(0, 1, 10), 4, 0) == plain
    assert draw(10, np.zeros((10, 2), int), 4, 0) == plain


def test_text_labels_are_classes() -> None:
    labels = np.array(["cat"] * 90 + ["dog"] * 10)
    assert Counter(labels[draw(100, labels, 10, 0)].tolist()) == {"cat": 9, "dog": 1}


def test_a_part_is_held_back_with_each_labels_share() -> None:
    indices = draw(100, SORTED_LABELS, 50, 0)
    kept, held = hold_back(indices, SORTED_LABELS, 0.2, 0)
    assert Counter(SORTED_LABELS[held].tolist()) == {0: 6, 1: 3, 2: 1}
    assert sorted(kept + held) == sorted(indices)
    assert [index for index in indices if index in set(kept)] == kept


def test_either_part_holds_a_sample() -> None:
    assert [len(part) for part in hold_back([4, 8], None, 0.01, 0)] == [1, 1]
    with pytest.raises(StepError, match="cannot be split in two"):
        hold_back([4], None, 0.2, 0)


def dataset(options: dict[str, Any], samples: int | None = None) -> dict[str, Any]:
    return {"loader": "npz", "options": options, "samples": samples, "seed": 0, "name": "digits"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    np.savez(
        tmp_path / "data.npz",
        x=np.arange(24, dtype=np.uint8).reshape(6, 2, 2),
        more=np.ones((6, 1), np.int32),
        y=np.array([[0], [1], [0], [1], [0], [1]]),
        group=np.array(["a", "b", "a", "b", "a", "b"]),
        short=np.zeros(5),
        scalar=np.array(3),
    )
    np.savez(tmp_path / "objects.npz", x=np.array([{}, {}], dtype=object))
    return tmp_path


def test_an_npz_gives_samples_with_a_batch_axis(root: Path) -> None:
    samples, indices = load(dataset({"path": "data.npz", "input": "x", "label": "y", "slice": "group"}), root)
    assert (len(samples), indices) == (6, [0, 1, 2, 3, 4, 5])
    assert samples[1][""].tolist() == [[[4, 5], [6, 7]]]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert samples.slices == ["a", "b", "a", "b", "a", "b"]


def test_several_inputs_are_named(root: Path) -> None:
    samples, _ = load(dataset({"path": "data.npz", "input": {"image": "x", "flag": "more"}}), root)
    assert {name: value.shape for name, value in samples[0].items()} == {"image": (1, 2, 2), "flag": (1, 1)}
    assert samples.labels is None


def test_preprocessing_is_value_minus_mean_over_std(root: Path) -> None:
    options = {"path": "data.npz", "input": "x", "preprocess": {"mean": [1.0, 2.0], "std": 2.0}}
    samples, _ = load(dataset(options), root)
    assert samples[0][""].dtype == np.float32
    assert samples[0][""].tolist() == [[[-0.5, -0.5], [0.5, 0.5]]]


@pytest.mark.parametrize(
    ("options", "samples", "message"),
    [
        ({"input": "z"}, None, "dataset digits: data.npz: no array 'z'; it holds group, more, scalar, short, x, y"),
        ({"input": "x", "label": "short"}, None, "differ in length .x 6, short 5."),
        ({"input": "scalar"}, None, "'scalar' is a single number"),
        ({"input": "x"}, 7, "dataset digits: samples = 7, but it holds 6; lower samples"),
        ({"input": "x", "path": "absent.npz"}, None, "absent.npz: cannot be read"),
        ({"input": "x", "path": "objects.npz"}, None, "'x' holds Python objects"),
    ],
)
def test_an_npz_that_cannot_serve_is_refused(
    root: Path, options: dict[str, Any], samples: int | None, message: str
) -> None:
    with pytest.raises(StepError, match=message):
        load(dataset({"path": "data.npz", **options}, samples), root)


def test_the_files_a_dataset_reads_are_known_without_opening_it(tmp_path: Path) -> None:
    assert npz.files(npz.Options(path="absent.npz", input="x"), tmp_path) == ["absent.npz"]


def test_an_array_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).random((100, 8)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    samples = npz.open_samples(npz.Options(path="d.npz", input="x"), tmp_path)
    with pytest.raises(
        StepError, match=r"^d\.npz: array 'x': cannot be read as \.npz \(.*\); write it with numpy\.savez"
    ):
        samples[0]
