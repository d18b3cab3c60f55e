"""Calibration on pictures holds a few of them at a time: memory does not grow with the set."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "streaming.py"


@pytest.fixture(scope="module")
def streaming() -> ModuleType:
    spec = importlib.util.spec_from_file_location("streaming", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_memory_grows_by_little_of_what_the_pictures_hold(streaming: ModuleType, tmp_path: Path) -> None:
    few, many = 40, 400
    streaming.write_model(tmp_path / "float32.tflite")
    peaks = []
    for count in (few, many):
        folder = tmp_path / f"pictures_{count}"
        streaming.write_pictures(folder, count)
        peaks.append(streaming.calibrate_apart(tmp_path / "float32.tflite", folder)["peak_bytes"])
    decoded = (many - few) * streaming.SIDE**2 * 3 * 4
    assert peaks[1] - peaks[0] < decoded / 10
