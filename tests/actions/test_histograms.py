"""Histograms of calibration: every value counted once, and the same bytes however the work is shared."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wide_models
from wide_models import SIDE

from quantbuild.actions import calibrate
from quantbuild.actions import histograms as action
from quantbuild.errors import StepError
from quantbuild.step import Job
from quantbuild.tflite import calibration, feeding, graph, histograms, histograms_file, ranges, statistics_file
from quantbuild.tflite.histograms_file import BINS, Histograms
from quantbuild.tflite.statistics_file import Statistics

COUNT = 7


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "left": generator.normal(0, 1, (COUNT, SIDE, SIDE)).astype(np.float32),
        "right": generator.uniform(-1, 3, (COUNT, SIDE, SIDE)).astype(np.float32),
        "ids": generator.integers(0, 4, (COUNT, 2)).astype(np.int32),
    }


def feeds_of(model: bytes, named: dict[str, np.ndarray]) -> list[tuple[int, feeding.Feed]]:
    feed = feeding.feeder(graph.read(model))
    count = len(next(iter(named.values())))
    return [(i, feed(i, {name: array[i : i + 1] for name, array in named.items()})) for i in range(count)]


def both(model: bytes, named: dict[str, np.ndarray], **options: Any) -> tuple[Statistics, Histograms]:
    feeds = feeds_of(model, named)
    statistics = calibration.calibrate(model, feeds).statistics
    return statistics, histograms.measure(model, statistics, feeds, **options)


def expected_counts(values: np.ndarray) -> np.ndarray:
    """Count in float64, with searched edges."""
    low, high = float(values.min()), float(values.max())
    width, negative = histograms_file.binning(low, high)
    edges = (np.arange(BINS + 1) - negative) * width
    places = np.clip(np.searchsorted(edges, values.ravel().astype(np.float64), side="right") - 1, 0, BINS - 1)
    return np.bincount(places, minlength=BINS)


def assert_same_counts(found: np.ndarray, expected: np.ndarray) -> None:
    """A value on an edge may fall on either side of it, as float32 rounds."""
    assert found.sum() == expected.sum()
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 3


def test_every_value_of_what_may_be_clipped_is_counted() -> None:
    named = arrays()
    _, found = both(wide_models.mixed(), named)
    rows = wide_models.table_of_rows()[named["ids"]]
    values = {
        "left": named["left"],
        "right": named["right"],
        "sum": named["left"] + named["right"],
        "rows": rows,
        "flat": rows,
    }
    assert set(found.tensor_names) == set(values), "neither integers, nor small tensors, nor outputs"
    for row, name in enumerate(found.tensor_names):
        assert (found.low[row], found.high[row]) == (values[name].min(), values[name].max())
        assert_same_counts(found.counts[row], expected_counts(values[name]))


def test_the_body_of_a_loop_does_not_stand_in_the_way() -> None:
    x = arrays()["left"]
    _, found = both(wide_models.loop(), {"x": x})
    values = {"x": x, "halved": x / 8, "more": x / 8 + 1}
    assert set(found.tensor_names) == set(values)
    for row, name in enumerate(found.tensor_names):
        assert_same_counts(found.counts[row], expected_counts(values[name]))


@pytest.mark.parametrize("interpreters", [2, 3])
def test_the_number_of_interpreters_does_not_change_a_byte(tmp_path: Path, interpreters: int) -> None:
    written = []
    for count in (1, interpreters):
        _, found = both(wide_models.mixed(), arrays(), interpreters=count)
        path = tmp_path / f"{count}.npz"
        histograms_file.write(path, found)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_constant_values_fall_into_one_bin() -> None:
    for value in (0.0, 3.0, -3.0):
        named = {"x": np.full((2, SIDE, SIDE), value, np.float32)}
        _, found = both(wide_models.loop(), named)
        counts = found.counts[found.tensor_names.index("x")]
        assert counts.max() == counts.sum() == 2 * SIDE * SIDE


def test_a_model_of_small_tensors_needs_no_pass() -> None:
    model = wide_models.small()
    feeds = feeds_of(model, {"x": np.ones((2, 2, 4), np.float32)})
    statistics = calibration.calibrate(model, feeds).statistics
    found = histograms.measure(model, statistics, iter(()))
    assert found.tensor_names == ()
    assert found.counts.shape == (0, BINS)


def test_so_many_interpreters_that_what_they_keep_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = histograms.Counter.__init__

    def counted(self: Any, *arguments: Any) -> None:
        opened.append(self)
        original(self, *arguments)

    monkeypatch.setattr(histograms.Counter, "__init__", counted)
    both(wide_models.mixed(), arrays(), interpreters=3)
    assert len(opened) == 3
    opened.clear()
    monkeypatch.setattr(histograms, "MOST_KEPT_BYTES", 1)
    both(wide_models.mixed(), arrays(), interpreters=3)
    assert len(opened) == 1


@pytest.mark.parametrize("bad", [100.0, -100.0, np.nan, np.inf, -np.inf])
def test_a_value_that_calibration_did_not_see_is_told(bad: float) -> None:
    model, named = wide_models.mixed(), arrays()
    feeds = feeds_of(model, named)
    statistics = calibration.calibrate(model, feeds).statistics
    left = graph.signature_maps(graph.read(model))[0]["left"]
    feeds[4][1][left][0, 7, 7] = bad
    with pytest.raises(StepError, match=r'^sample 4: tensor "left" has values beyond its statistics; calibrate again'):
        histograms.measure(model, statistics, feeds)


def test_other_samples_and_other_models_are_refused() -> None:
    model, named = wide_models.mixed(), arrays()
    feeds = feeds_of(model, named)
    statistics = calibration.calibrate(model, feeds).statistics
    with pytest.raises(StepError, match="the samples are not those of the statistics"):
        histograms.measure(model, statistics, feeds[:-1])
    with pytest.raises(StepError, match="no range for tensor"):
        histograms.measure(wide_models.loop(), statistics, feeds)
    infinite = dataclasses.replace(statistics, sample_max=np.full_like(statistics.sample_max, np.inf))
    with pytest.raises(StepError, match="NaN or infinite"):
        histograms.measure(model, infinite, feeds)


def test_the_file_reads_back_as_written(tmp_path: Path) -> None:
    _, found = both(wide_models.mixed(), arrays())
    path = tmp_path / "histograms.npz"
    histograms_file.write(path, found)
    again = histograms_file.read(path)
    assert again.tensor_names == found.tensor_names
    assert np.array_equal(again.counts, found.counts)
    assert np.array_equal(again.tensor_indices, found.tensor_indices)
    row = again.rows[int(found.tensor_indices[2])]
    assert row == 2
    one = again.of(row)
    assert (one.low, one.high) == (min(found.low[row], 0), found.high[row])
    assert np.array_equal(one.counts, found.counts[row])


def step(folder: Path, action_name: str, inputs: dict[str, str], outputs: dict[str, str], more: Any = None) -> Job:
    options = {"path": "data.npz", "input": {name: name for name in arrays()}}
    dataset = {"loader": "npz", "options": options, "samples": None, "seed": 0, "name": "d"}
    return Job(
        step=f"{action_name}:m",
        action=action_name,
        parameters={"dataset": dataset, "hold_back": {"fraction": 0.3, "seed": 0}, **(more or {})},
        inputs={role: str(folder / name) for role, name in inputs.items()},
        outputs={role: str(folder / name) for role, name in outputs.items()},
        root=str(folder),
        scratch=str(folder),
    )


def test_the_action_counts_the_samples_of_the_statistics(tmp_path: Path) -> None:
    named = arrays()
    np.savez(tmp_path / "data.npz", **named)
    (tmp_path / "model.tflite").write_bytes(wide_models.mixed())
    inputs = {"model": "model.tflite", "data": "data.npz"}
    calibrate.run(step(tmp_path, "calibrate", inputs, {"statistics": "s.npz"}, {"statistics": "all"}))
    inputs["statistics"] = "s.npz"
    values = action.run(step(tmp_path, "histograms", inputs, {"histograms": "h.npz"}))
    assert values == {"samples": 5, "tensors": 5}
    found = histograms_file.read(tmp_path / "h.npz")
    statistics = statistics_file.read(tmp_path / "s.npz")
    left = named["left"][statistics.sample_indices]
    assert_same_counts(found.counts[found.tensor_names.index("left")], expected_counts(left))
    chosen = ranges.choose(graph.read(wide_models.mixed()), statistics, "percentile", found)
    assert chosen.keys() == statistics.rows().keys()


def test_the_action_names_set_file_and_sample(tmp_path: Path) -> None:
    named = arrays()
    np.savez(tmp_path / "data.npz", **named)
    (tmp_path / "model.tflite").write_bytes(wide_models.mixed())
    inputs = {"model": "model.tflite", "data": "data.npz"}
    calibrate.run(step(tmp_path, "calibrate", inputs, {"statistics": "s.npz"}, {"statistics": "minmax"}))
    inputs["statistics"] = "s.npz"
    number = int(statistics_file.read(tmp_path / "s.npz").sample_indices[1])
    named["right"][number, 0, 0] = 1e6
    np.savez(tmp_path / "data.npz", **named)
    with pytest.raises(StepError, match=rf'^d \(data\.npz\): sample {number}: tensor "right" has values beyond'):
        action.run(step(tmp_path, "histograms", inputs, {"histograms": "h.npz"}))
    assert not (tmp_path / "h.npz").exists()
