"""rank: rounding one activation alone, and which one harms the outputs most."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tiny_models import job
from wide_models import Builder

from quantbuild.actions import calibrate, rank
from quantbuild.tflite import graph, rounding
from quantbuild.tflite.runtime import Binding, open_interpreter

CHANNELS = 4


def two_ways() -> tuple[bytes, dict[str, int]]:
    """x → a = x + x → b = a · 0.5, c = a + b; the outputs are a, which ops read too, and c."""
    build = Builder()
    x = build.input("x", 1, CHANNELS)
    a = build.add(x, x, "a", 1, CHANNELS)
    half = build.constant(np.array(0.5, np.float32))
    b = build.op("MUL", [a, half], [build.tensor("b", 1, CHANNELS)], schema.MulOptionsT())
    c = build.add(a, b, "c", 1, CHANNELS)
    return build.finish(a, c), {"x": x, "a": a, "b": b, "c": c}


def outputs(model: bytes, x: np.ndarray) -> list[np.ndarray]:
    return list(Binding(open_interpreter(model)).run({"": x}).values())


def to_8_bits(values: np.ndarray, low: float, high: float) -> np.ndarray:
    scale, zero_point = rounding.scale_of(low, high)
    return (np.clip(np.round(values / scale) + zero_point, -128, 127) - zero_point) * scale


@pytest.mark.parametrize("name", ["x", "a", "b", "c"])
def test_all_that_reads_a_rounded_tensor_gets_the_rounded_values(name: str) -> None:
    model, tensors = two_ways()
    x = np.array([[-0.77, 0.1234, 0.5, 3.0]], np.float32)
    low, high = -2.0, 4.1
    found = outputs(rounding.rounded(model, tensors[name], low, high), x)

    def seen(tensor: str, values: np.ndarray) -> np.ndarray:
        return to_8_bits(values, low, high) if tensor == name else values

    a = seen("a", 2 * seen("x", x))
    c = seen("c", a + seen("b", a / 2))
    for one, other in zip(found, (a, c), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert not np.array_equal(found[1], outputs(model, x)[1])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 3.0), (-3.0, 0.0), (0.5, 3.0), (-3.0, -0.5)])
def test_zero_is_exact_and_the_ends_of_the_range_are_held(low: float, high: float) -> None:
    scale, zero_point = rounding.scale_of(low, high)
    assert -128 <= zero_point <= 127
    assert (127 - zero_point) * scale >= max(high, 0) - scale
    assert (-128 - zero_point) * scale <= min(low, 0) + scale


def by_class(folder: Path) -> dict[str, Any]:
    """x → quiet = x · 1, loud = x · m → out = quiet + loud / 100: the loud one harms the outputs of one class alone.

    Calibration samples are sorted by class, as folders of pictures are; in the last class the values are large.
    """
    build = Builder()
    x = build.input("x", 1, CHANNELS)

    def times(given: int, factor: list[float], name: str) -> int:
        value = build.constant(np.array([factor], np.float32))
        return build.op("MUL", [given, value], [build.tensor(name, 1, CHANNELS)], schema.MulOptionsT())

    quiet = times(times(x, [1, 1, 0, 0], "small"), [100, 100, 1, 1], "quiet")
    loud = times(times(x, [0, 0, 1, 1], "large"), [1, 1, 100, 100], "loud")
    (folder / "model.tflite").write_bytes(build.finish(build.add(quiet, loud, "out", 1, CHANNELS)))
    values = np.random.default_rng(0).standard_normal((200, 1, CHANNELS)).astype(np.float32)
    values[:100, :, 2:] = 0  # the first class has nothing that is loud
    values[100:, :, 2:] *= 50
    labels = np.repeat(np.arange(2), 100)
    np.savez(folder / "data.npz", x=values[:, 0], y=labels)
    options = {"path": "data.npz", "input": "x", "label": "y"}
    return {"name": "sorted", "loader": "npz", "options": options, "samples": None, "seed": 0}


def ranked(folder: Path, ranges: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The step's values and units for the model of `by_class`, whose files stand in `folder` afterwards."""
    dataset, hold_back = by_class(folder), {"fraction": 0.2, "seed": 0}
    files = {"model": folder / "model.tflite", "data": folder / "data.npz"}
    parameters: dict[str, Any] = {"dataset": dataset, "hold_back": hold_back}
    calibrate.run(
        job("calibrate", folder, files, {"statistics": "statistics.npz"}, {**parameters, "statistics": "all"})
    )
    inputs = {**files, "statistics": folder / "statistics.npz"}
    values = rank.run(
        job("rank", folder, inputs, {"ranking": "ranking.json"}, {**parameters, "options": {"ranges": ranges}})
    )
    return values, json.loads((folder / "ranking.json").read_text())["units"]


def test_ranges_may_be_a_table_as_a_step_holds_them(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("table", "name")]
    for folder in folders:
        folder.mkdir()
    table, name = (
        ranked(folder, ranges)[1]
        for folder, ranges in zip(folders, ({"method": "quantile", "quantile": 1.0}, "minmax"), strict=True)
    )
    assert table == name


def test_the_ranking_looks_at_every_class_of_a_sorted_set(tmp_path: Path) -> None:
    values, units = ranked(tmp_path, "minmax")
    noise = {unit["tensor"]: unit["noise"] for unit in units}
    assert values["units"] == len(units) == len(noise)
    assert set(noise) == {"x", "small", "large", "quiet", "loud", "out"}
    assert noise["large"] > 0
    assert noise["loud"] > 0
    assert [unit["noise"] for unit in units] == sorted(noise.values(), reverse=True)
    model = graph.read((tmp_path / "model.tflite").read_bytes())
    assert all(unit["nodes"] for unit in units)
    assert {node for unit in units for node in unit["nodes"]} == {
        f"node:{number}" for number in range(len(graph.main(model).operators))
    }
