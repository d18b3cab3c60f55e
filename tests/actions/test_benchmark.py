"""The host runner measures fresh processes in turn and says so when they do not agree."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_tflite import linear, rectified

from quantbuild.actions import benchmark
from quantbuild.errors import StepError
from quantbuild.runners import host, host_process
from quantbuild.step import Job

SHORT = {"processes": 2, "runs": 20, "seconds": 0.01, "warmup_seconds": 0.01}


def job_for(root: Path, options: dict[str, Any], *, reference: bool = True) -> Job:
    inputs = {"model": str(linear(root / "model.tflite", int8_io=True))}
    if reference:
        inputs["reference"] = str(linear(root / "float32.tflite"))
    return Job(
        step="benchmark:m/a@host",
        action="benchmark",
        parameters={"runner": "host", "options": options},
        inputs=inputs,
        outputs={"result": str(root / "result.json"), "samples": str(root / "samples.npz")},
        root=str(root),
        scratch=str(root),
    )


def process(milliseconds: list[float], memory: int | None = 1000) -> dict[str, Any]:
    samples = np.array([value * 1e6 for value in milliseconds]).astype(np.int64)
    return {"samples": samples, "memory_bytes": memory, "load_ms": 1.0, "first_ms": 1.0, "warmup_runs": 10}


def test_a_real_model_is_measured(tmp_path: Path) -> None:
    benchmark.run(job_for(tmp_path, SHORT))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] in {"measured", "unstable"}
    latency = result["latency_ms"]
    assert 0 < latency["min"] <= latency["p50"] <= latency["p90"]
    assert latency["n"] == sum(found["n"] for found in result["processes"]) >= 40
    assert len(result["processes"]) == len(result["reference_processes"]) == 2
    assert result["latency_ratio"] > 0
    assert result["runtime"]["name"] == "ai-edge-litert"
    assert result["provenance"]["python"]


def test_every_sample_is_kept_where_there_is_a_place_for_them(tmp_path: Path) -> None:
    benchmark.run(job_for(tmp_path, SHORT))
    result = json.loads((tmp_path / "result.json").read_text())
    with np.load(tmp_path / "samples.npz") as kept:
        assert sorted(kept.files) == ["model.0", "model.1", "reference.0", "reference.1"]
        assert len(kept["model.1"]) == result["processes"][1]["n"]


def test_without_a_reference_there_is_no_ratio(tmp_path: Path) -> None:
    benchmark.run(job_for(tmp_path, SHORT, reference=False))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["latency_ratio"], result["memory_ratio"]) == (None, None)


def test_more_threads_than_cpus_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="threads = 4096, but this process may use"):
        benchmark.run(job_for(tmp_path, {**SHORT, "threads": 4096}))


def test_a_model_that_does_not_load_fails_with_its_message(tmp_path: Path) -> None:
    job = job_for(tmp_path, SHORT)
    (tmp_path / "model.tflite").write_bytes(b"nothing at all")
    with pytest.raises(StepError, match="the measuring process ended with 1: ValueError"):
        benchmark.run(job)


def test_a_slow_model_stops_at_the_limit(tmp_path: Path) -> None:
    options = {**SHORT, "processes": 1, "runs": 10**9, "max_seconds": 0.05}
    benchmark.run(job_for(tmp_path, options, reference=False))
    assert json.loads((tmp_path / "result.json").read_text())["latency_ms"]["n"] < 10**6


def test_the_headline_is_the_median_of_the_processes() -> None:
    rounds = {"model": [process([1.0] * 9), process([1.01] * 9), process([1.02] * 9)], "reference": []}
    found = host.summary(rounds)
    assert found["latency_ms"]["p50"] == pytest.approx(1.01)
    assert found["latency_ms"]["min"] == pytest.approx(1.0)
    assert found["status"] == "measured"


def test_p99_needs_a_thousand_samples() -> None:
    few = host.summary({"model": [process([1.0] * 400)] * 2, "reference": []})
    enough = host.summary({"model": [process([1.0] * 500)] * 2, "reference": []})
    assert few["latency_ms"]["p99"] is None
    assert enough["latency_ms"]["p99"] == pytest.approx(1.0)


def test_ratios_are_of_neighbours_so_that_a_drift_cancels() -> None:
    rounds = {
        "model": [process([value]) for value in (1.0, 2.0, 4.0)],
        "reference": [process([value * 2]) for value in (1.0, 2.0, 4.0)],
    }
    found = host.summary(rounds)
    assert found["latency_ratio"] == pytest.approx(0.5)
    assert found["memory_ratio"] == 1.0
    assert found["status"] == "unstable"


def test_memory_that_was_not_measured_is_null() -> None:
    found = host.summary({"model": [process([1.0], None)], "reference": [process([1.0])]})
    assert (found["peak_memory_bytes"], found["memory_ratio"]) == (None, None)


def test_an_unstable_measurement_is_repeated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[1.0], [1.2], [1.0], [1.01]])
    monkeypatch.setattr(host, "_process", lambda *_: process(next(answers)))
    result = host.benchmark(job_for(tmp_path, SHORT, reference=False))
    assert (result["status"], result["provenance"]["attempts"]) == ("measured", 2)


def test_a_fingerprint_names_the_cpu() -> None:
    assert set(host.fingerprint(host.Options())) == {"cpu", "cpus"}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_memory_is_the_models_not_the_runtimes(tmp_path: Path) -> None:
    big = linear(tmp_path / "big.tflite", np.ones((1024, 4096), np.float32))
    job = job_for(tmp_path, {**SHORT, "processes": 1}, reference=False)
    benchmark.run(Job(**{**{f: getattr(job, f) for f in job.__struct_fields__}, "inputs": {"model": str(big)}}))
    memory = json.loads((tmp_path / "result.json").read_text())["peak_memory_bytes"]
    # 16 MiB of weights, mapped and perhaps packed once more; the imports alone would be 40 MiB more.
    assert 14 * 2**20 < memory < 40 * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_making_a_large_input_is_no_memory_of_the_models(tmp_path: Path) -> None:
    job = job_for(tmp_path, SHORT, reference=False)
    rectified(Path(job.inputs["model"]), [1, 1024, 1024, 3])
    benchmark.run(job)
    memory = json.loads((tmp_path / "result.json").read_text())["peak_memory_bytes"]
    both = 2 * 4 * 3 * 2**20  # input and output, float32
    assert both <= memory < 1.5 * both


def test_an_input_is_a_ramp_over_its_range(tmp_path: Path) -> None:
    for path, expected in (
        (rectified(tmp_path / "a.tflite", [1, 20, 30]), (np.arange(600) % 251 / 250).astype(np.float32)),
        (linear(tmp_path / "b.tflite", int8_io=True), np.arange(-125, -121).astype(np.int8)),
        (rectified(tmp_path / "c.tflite", [1, 3]), (np.arange(3) / 250).astype(np.float32)),
    ):
        interpreter = host_process.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        host_process._fill(interpreter)
        filled = interpreter.get_tensor(interpreter.get_input_details()[0]["index"])
        assert np.array_equal(filled.reshape(-1), expected)
