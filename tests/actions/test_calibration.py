"""Calibration on small real networks: equal to reading every tensor, whatever the cores, and never fooled by NaN."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbuild.actions import calibrate as action
from quantbuild.datasets import samples
from quantbuild.errors import StepError
from quantbuild.step import Job
from quantbuild.tflite import calibration, feeding, graph, instrumentation, statistics_file
from quantbuild.tflite.calibration import Calibration
from quantbuild.tflite.feeding import Feed
from quantbuild.tflite.readers import AllTensors

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibration-models")
    program = Path(__file__).with_name("calibration_models.py")
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, program, folder], check=True, env=environment, capture_output=True, timeout=300)
    return folder


def _model(models: Path, name: str) -> bytes:
    return (models / f"{name}.tflite").read_bytes()


def _calibrate(model: bytes, samples: list[Any], **options: Any) -> Calibration:
    feed = feeding.feeder(graph.read(model))
    named = [sample if isinstance(sample, dict) else {"": sample} for sample in samples]
    return calibration.calibrate(model, [(i, feed(i, sample)) for i, sample in enumerate(named)], **options)


def _rows(count: int, width: int = 6, low: float = -1.0) -> list[np.ndarray]:
    return list(np.random.default_rng(0).uniform(low, 1, (count, 1, width)).astype(np.float32))


@pytest.fixture(scope="session")
def images(models: Path) -> list[np.ndarray]:
    return list(np.load(models / "residual-samples.npy"))


def _read_all(model: bytes, samples: list[np.ndarray]) -> tuple[AllTensors, list[Any]]:
    measured = instrumentation.layout(graph.read(model))
    reader = AllTensors(model, measured, "all")
    tensor = graph.indices(graph.main(graph.read(model)).inputs)[0]
    return reader, [reader.read({tensor: sample}) for sample in samples]


@pytest.mark.parametrize("name", ["residual", "scalar", "embedding"])
def test_ranges_are_bit_equal_to_reading_every_tensor(models: Path, images: list[np.ndarray], name: str) -> None:
    ids = [np.array([[i, 3, 9 - i]], np.int32) for i in range(4)]
    samples = {"residual": images, "scalar": _rows(4), "embedding": ids}[name]
    model = _model(models, name)
    result = _calibrate(model, samples)
    _, readings = _read_all(model, samples)
    found = result.statistics
    assert result.route == "in-graph"
    assert result.reason is None
    assert np.array_equal(found.sample_min, [reading.minima for reading in readings])
    assert np.array_equal(found.sample_max, [reading.maxima for reading in readings])
    power = np.mean([reading.powers for reading in readings], axis=0)
    np.testing.assert_allclose(found.power, power, rtol=1e-5)
    assert np.array_equal(found.channel_min, np.min([reading.channel_minima for reading in readings], axis=0))
    assert np.array_equal(found.channel_max, np.max([reading.channel_maxima for reading in readings], axis=0))
    rms = np.repeat(np.sqrt(power), np.diff(found.channel_offsets))
    error = np.abs(found.channel_mean - np.mean([reading.means for reading in readings], axis=0))
    assert (error <= 1e-5 * rms).all()


def test_every_activation_is_measured_once_with_its_channels(models: Path, images: list[np.ndarray]) -> None:
    model = _model(models, "residual")
    found = _calibrate(model, images[:2]).statistics
    parsed = graph.read(model)
    assert found.tensor_indices.tolist() == graph.activations(parsed)
    assert found.tensor_indices[0] == graph.indices(graph.main(parsed).inputs)[0]
    shapes = [graph.shape(graph.main(parsed).tensors[t]) for t in found.tensor_indices]
    assert [found.means(row).size for row in range(len(shapes))] == [shape[-1] for shape in shapes]
    assert found.rows()[int(found.tensor_indices[3])] == 3
    np.testing.assert_allclose(found.means(0), np.mean(images[:2], axis=(0, 1, 2, 3)), atol=1e-6)
    assert np.array_equal(found.magnitudes(0), np.abs(images[:2]).max(axis=(0, 1, 2, 3)))


@pytest.mark.parametrize("interpreters", [2, 3])
def test_the_number_of_interpreters_does_not_change_a_byte(
    models: Path, images: list[np.ndarray], tmp_path: Path, interpreters: int
) -> None:
    model = _model(models, "residual")
    written = []
    for count in (1, interpreters):
        path = tmp_path / f"{count}.npz"
        statistics_file.write(path, _calibrate(model, images, interpreters=count).statistics)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}, "no time of writing"


def test_the_file_reads_back_as_written(models: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    statistics = _calibrate(_model(models, "residual"), images).statistics
    path = tmp_path / "statistics.npz"
    statistics_file.write(path, statistics)
    again = statistics_file.read(path)
    assert again.tensor_names == statistics.tensor_names
    assert np.array_equal(again.channel_mean, statistics.channel_mean)
    low, high = again.minmax()
    assert np.array_equal(low, statistics.sample_min.min(axis=0))
    assert np.array_equal(high, statistics.sample_max.max(axis=0))


def test_nan_inside_the_network_is_found_and_named(models: Path) -> None:
    samples = _rows(6, low=0.1)
    samples[4][0, 2] = -1
    model = _model(models, "hides_nan")
    reader, _ = _read_all(model, [])
    values = list(reader.values({graph.indices(graph.main(graph.read(model)).inputs)[0]: samples[4]}))
    assert np.isfinite(values[-1]).all(), "the output alone would not show it"
    for interpreters in (1, 3):
        with pytest.raises(StepError, match=r'^sample 4: tensor "Sqrt" \(float32\) holds NaN in 1 of 6'):
            _calibrate(model, samples, interpreters=interpreters)


def test_the_first_bad_sample_is_reported_however_many_there_are(models: Path) -> None:
    samples = _rows(9, low=0.1)
    for bad in (2, 3, 7):
        samples[bad][0, 0] = -1
    with pytest.raises(StepError, match=r"^sample 2: "):
        _calibrate(_model(models, "hides_nan"), samples, interpreters=3)


def test_finite_values_whose_squares_overflow_are_no_error(models: Path) -> None:
    found = _calibrate(_model(models, "huge"), _rows(3)).statistics
    assert np.isfinite(found.power).all()
    assert found.power[1] > np.finfo(np.float32).max


def test_constant_and_zero_samples_give_their_own_value(models: Path) -> None:
    zeros, twos = np.zeros((1, 6), np.float32), np.full((1, 6), 2, np.float32)
    found = _calibrate(_model(models, "scalar"), [zeros, -zeros, twos]).statistics
    assert found.sample_min[:, 0].tolist() == found.sample_max[:, 0].tolist() == [0, 0, 2]
    assert not np.signbit(found.sample_min).any(), "-0 is written as 0"
    assert found.power[0] == pytest.approx(4 / 3)


def test_several_inputs_are_bound_by_name(models: Path) -> None:
    model = _model(models, "two_inputs")
    sample = {"second": np.full((1, 3), 7, np.float32), "first": np.full((1, 4), -5, np.float32)}
    found = _calibrate(model, [sample]).statistics
    inputs, _ = graph.signature_maps(graph.read(model))
    rows = found.rows()
    assert {name: float(found.sample_min[0, rows[t]]) for name, t in inputs.items()} == {
        "first": -5,
        "second": 7,
    }


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ({"first": np.zeros((1, 4))}, "no array for input 'second'"),
        ({"first": np.zeros((1, 4)), "second": np.zeros(3)}, "lacks the batch axis of 1"),
        ({"first": np.zeros((1, 5)), "second": np.zeros((1, 3))}, r"shape \[1, 5\], the model takes \[1, 4\]"),
        ({"first": np.full((1, 4), np.nan), "second": np.zeros((1, 3))}, "holds NaN or infinity"),
        ({"first": np.full((1, 4), "a"), "second": np.zeros((1, 3))}, "give numbers"),
    ],
)
def test_a_sample_that_does_not_fit_is_refused_by_number(
    models: Path, sample: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(StepError, match=rf"^sample 0: .*{problem}"):
        _calibrate(_model(models, "two_inputs"), [sample])


def test_integer_inputs_refuse_fractions(models: Path) -> None:
    with pytest.raises(StepError, match=r"^sample 0: input 'ids' takes int32, the sample's float64 does not fit"):
        _calibrate(_model(models, "embedding"), [np.array([[0.5, 1, 2]])])


def test_control_flow_reads_all_tensors_and_says_so(models: Path) -> None:
    samples = _rows(3)
    result = _calibrate(_model(models, "loop"), samples)
    assert result.route == "all-tensors"
    assert "WHILE" in (result.reason or "")
    assert result.statistics.sample_max[:, 0].tolist() == [float(sample.max()) for sample in samples]


def test_a_refused_edit_reads_all_tensors_and_says_so(
    models: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(models, "residual")
    expected = _calibrate(model, images).statistics
    monkeypatch.setattr(graph, "write", lambda _: model[: len(model) // 2])
    result = _calibrate(model, images)
    assert result.route == "all-tensors"
    assert "refuses the edited graph" in (result.reason or "")
    assert np.array_equal(result.statistics.sample_min, expected.sample_min)
    np.testing.assert_allclose(result.statistics.power, expected.power, rtol=1e-5)


def test_samples_are_streamed(models: Path) -> None:
    made: list[weakref.ref[np.ndarray]] = []
    most = 0

    def feeds() -> Iterator[tuple[int, Feed]]:
        nonlocal most
        for number in range(60):
            value = np.full((1, 6), number, np.float32)
            made.append(weakref.ref(value))
            most = max(most, sum(reference() is not None for reference in made))
            yield number, {0: value}
            del value

    calibration.calibrate(_model(models, "scalar"), feeds(), interpreters=2)
    assert most <= 8


def test_no_sample_is_an_error(models: Path) -> None:
    with pytest.raises(StepError, match="gave no sample"):
        _calibrate(_model(models, "scalar"), [])


def test_the_converter_s_own_ranges_are_wrong_where_it_computes_in_place(
    models: Path, images: list[np.ndarray]
) -> None:
    """tensorflow#127842. When this fails, the converter has been corrected: say so in the notes."""
    _, readings = _read_all(_model(models, "residual"), images)
    low = np.min([reading.minima for reading in readings], axis=0)
    high = np.max([reading.maxima for reading in readings], axis=0)
    calibrated = graph.main(graph.read(_model(models, "residual-converter"))).tensors
    ours = _calibrate(_model(models, "residual"), images).statistics
    wrong = []
    for row, tensor in enumerate(ours.tensor_indices):
        theirs = calibrated[tensor].quantization
        if not np.allclose((theirs.min[0], theirs.max[0]), (low[row], high[row]), rtol=1e-3, atol=1e-6):
            wrong.append(int(tensor))
    main = graph.main(graph.read(_model(models, "residual")))
    names = graph.op_names(graph.read(_model(models, "residual")))
    in_place = {
        tensor
        for operator, name in zip(main.operators, names, strict=True)
        if name in {"ADD", "MUL"}
        for tensor in graph.indices(operator.inputs)
    }
    assert wrong
    assert set(wrong) <= in_place
    assert np.array_equal(ours.minmax()[0], low)
    assert np.array_equal(ours.minmax()[1], high)


def test_the_action_leaves_out_what_is_held_back(models: Path, images: list[np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.concatenate(images), y=np.arange(12) % 3)
    options = {"path": "data.npz", "input": "x", "label": "y"}
    dataset = {"loader": "npz", "options": options, "samples": 10, "seed": 0, "name": "d"}
    job = Job(
        step="calibrate:m",
        action="calibrate",
        parameters={"dataset": dataset, "hold_back": {"fraction": 0.2, "seed": 0}, "statistics": "all"},
        inputs={"model": str(models / "residual.tflite"), "data": str(tmp_path / "data.npz")},
        outputs={"statistics": str(tmp_path / "statistics.npz")},
        root=str(tmp_path),
        scratch=str(tmp_path),
    )
    values = action.run(job)
    found = statistics_file.read(tmp_path / "statistics.npz")
    assert values == {
        "samples": 8,
        "held_back": 2,
        "tensors": len(found.tensor_names),
        "route": "in-graph",
        "route_reason": None,
    }
    assert len(found.sample_indices) == 8
    first = images[int(found.sample_indices[0])]
    assert found.sample_min[0, 0] == first.min()


@pytest.mark.parametrize("number", [0, 1])
def test_a_nan_in_any_drawn_sample_names_set_file_and_sample(
    models: Path, images: list[np.ndarray], tmp_path: Path, number: int
) -> None:
    """Sample 0 is kept for the ranges and another is held back for choices: neither may be unsound."""
    data = np.concatenate(images)
    kept, held = samples.hold_back(list(range(10)), np.arange(12) % 3, fraction=0.2, seed=0)
    bad = (kept, held)[number][0]
    data[bad, 0, 0, 0] = np.nan
    np.savez(tmp_path / "data.npz", x=data[:10], y=np.arange(10) % 3)
    dataset = {"loader": "npz", "options": {"path": "data.npz", "input": "x", "label": "y"}, "samples": None, "seed": 0}
    job = Job(
        step="calibrate:m",
        action="calibrate",
        parameters={
            "dataset": {**dataset, "name": "d"},
            "hold_back": {"fraction": 0.2, "seed": 0},
            "statistics": "all",
        },
        inputs={"model": str(models / "residual.tflite"), "data": str(tmp_path / "data.npz")},
        outputs={"statistics": str(tmp_path / "statistics.npz")},
        root=str(tmp_path),
        scratch=str(tmp_path),
    )
    with pytest.raises(StepError, match=rf"^d \(data\.npz\): sample {bad}: .*NaN"):
        action.run(job)
