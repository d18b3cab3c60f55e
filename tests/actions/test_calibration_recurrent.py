"""Recurrent layers that are not unrolled: calibration around their WHILE op, and int8 from those statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import converted, job

from quantbuild.actions import calibrate, probe, quantize
from quantbuild.metrics import powers, sqnr_db
from quantbuild.tflite import graph, statistics_file
from quantbuild.tflite.runtime import Binding, open_interpreter

CLIPS = 12
SHAPE = (6, 4)
DATASET = {
    "loader": "npz",
    "options": {"path": "data.npz", "input": "clip"},
    "samples": None,
    "seed": 0,
    "name": "clips",
}


def _lstm(layers: Any, clip: Any) -> Any:
    return layers.Dense(3, name="scores")(layers.LSTM(8)(clip))


def _gru(layers: Any, clip: Any) -> Any:
    return layers.Dense(3, name="scores")(layers.GRU(8)(clip))


def _stacked(layers: Any, clip: Any) -> Any:
    """Two loops, the second reading the first's sequence; the bidirectional one drops several results."""
    return layers.Dense(3, name="scores")(
        layers.Bidirectional(layers.GRU(8))(layers.LSTM(8, return_sequences=True)(clip))
    )


@pytest.fixture(scope="module", params=[_lstm, _gru, _stacked])
def recurrent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A folder with float32.tflite, data.npz and its statistics.npz; and what Keras itself makes of each clip."""
    import keras

    keras.utils.set_random_seed(2)
    folder = tmp_path_factory.mktemp("recurrent")
    clip = keras.Input(SHAPE, name="clip")
    network = keras.Model(clip, request.param(keras.layers, clip))
    network.save(folder / "net.keras")
    converted("keras", folder / "net.keras", folder)
    clips = np.random.default_rng(0).standard_normal((CLIPS, *SHAPE)).astype(np.float32)
    np.savez(folder / "data.npz", clip=clips)
    inputs = {"model": folder / "float32.tflite", "data": folder / "data.npz"}
    parameters = {"dataset": DATASET, "hold_back": None, "statistics": "all"}
    calibrate.run(job("calibrate", folder, inputs, {"statistics": "statistics.npz"}, parameters))
    return folder, np.concatenate([network(clips[i : i + 1]).numpy() for i in range(CLIPS)])


def test_what_surrounds_the_loop_is_measured(recurrent: tuple[Path, np.ndarray]) -> None:
    folder, expected = recurrent
    model = graph.read((folder / "float32.tflite").read_bytes())
    assert "WHILE" in graph.op_names(model)
    found = statistics_file.read(folder / "statistics.npz")
    rows = found.rows()
    inputs, outputs = graph.signature_maps(model)
    clips = np.load(folder / "data.npz")["clip"]
    assert found.sample_max[:, rows[inputs["clip"]]].tolist() == clips.max(axis=(1, 2)).tolist()
    np.testing.assert_allclose(found.sample_min[:, rows[outputs["scores"]]], expected.min(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.sample_max[:, rows[outputs["scores"]]], expected.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(found.means(rows[outputs["scores"]]), expected.mean(axis=0), atol=1e-6)


def test_only_results_that_nothing_reads_are_left_out(recurrent: tuple[Path, np.ndarray]) -> None:
    """A WHILE returns its loop invariants and last states too; LiteRT gives one that nothing reads no memory."""
    folder, _ = recurrent
    model = graph.read((folder / "float32.tflite").read_bytes())
    measured = set(statistics_file.read(folder / "statistics.npz").rows())
    main = graph.main(model)
    read = set(graph.consumers(main)) | set(graph.indices(main.outputs))
    left_out = set(graph.activations(model)) - measured
    assert left_out
    assert not left_out & read


@pytest.mark.parametrize("io", ["float32", "int8"])
def test_int8_quantizes_around_the_loop_and_says_what_stays_float(recurrent: tuple[Path, np.ndarray], io: str) -> None:
    """TensorFlow's quantizer leaves a loop's body in float; the artifact runs, and its float ops are all listed."""
    folder, expected = recurrent
    inputs = {"model": folder / "float32.tflite", "statistics": folder / "statistics.npz"}
    parameters = {"scheme": "int8", "options": {"io": io, "ranges": "minmax"}}
    step = job("quantize", folder, inputs, {"model": "quantized.tflite"}, parameters)
    done = quantize.run(step)
    float_ops = [entry["op"] for entry in done["float_ops"]]
    assert {"WHILE", "TANH", "LOGISTIC"} <= set(float_ops)
    bodies = {entry["op"]: entry["subgraph"] for entry in done["float_ops"] if "subgraph" in entry}
    assert {"TANH", "LOGISTIC"} <= set(bodies)
    assert "WHILE" not in bodies  # it is in the main graph, and what it does in its body
    description = job(
        "probe", folder, {"model": folder / "quantized.tflite"}, {"description": "d.json"}, {"runtime": True}
    )
    assert probe.run(description)["inputs"][0]["dtype"] == io
    binding = Binding(open_interpreter(str(folder / "quantized.tflite")))
    clips = np.load(folder / "data.npz")["clip"]
    found = np.concatenate([binding.run({"clip": clip[np.newaxis]})["scores"] for clip in clips])
    ratio = sqnr_db(*powers(expected, found))
    assert ratio is not None
    assert ratio > 30
