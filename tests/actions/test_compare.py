"""compare: where two files differ, named part by part."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import job
from tiny_tflite import linear

from quantbuild.actions import compare
from quantbuild.tflite import graph


def differences(first: Path, second: Path) -> list[str]:
    found: list[str] = compare.run(job("compare", first.parent, {"first": first, "second": second}, {}, {}))[
        "differences"
    ]
    return found


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return linear(tmp_path / "a.tflite"), linear(tmp_path / "b.tflite")


def test_equal_files_have_no_difference(pair: tuple[Path, Path]) -> None:
    assert differences(*pair) == []


def test_the_first_offset_and_the_sizes_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"x" * 2_000_000 + b"a")
    (tmp_path / "b.bin").write_bytes(b"x" * 2_000_000 + b"bc")
    head = "2000001 and 2000002 bytes, the first that differs is at offset 2000000"
    assert differences(tmp_path / "a.bin", tmp_path / "b.bin") == [head]


def test_a_file_that_is_the_beginning_of_the_other_differs_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "b.bin").write_bytes(b"abcd")
    assert compare.first_offset(tmp_path / "a.bin", tmp_path / "b.bin") == 3


def test_the_weights_that_differ_are_named_and_counted(tmp_path: Path) -> None:
    weights = np.eye(3, 4, dtype=np.float32)
    first = linear(tmp_path / "a.tflite", weights)
    weights[1, 2] = 0.5
    weights[2, 2] = -1.0
    _, *parts = differences(first, linear(tmp_path / "b.tflite", weights))
    assert parts == ['tensor "weights": 2 of 12 values differ, the first at 6: 0.0 → 0.5']


def test_nan_equals_itself_and_zero_has_a_sign(tmp_path: Path) -> None:
    first, second = np.eye(3, 4, dtype=np.float32), np.eye(3, 4, dtype=np.float32)
    first[0, 0] = second[0, 0] = np.nan
    second[2, 3] = -0.0
    _, *parts = differences(linear(tmp_path / "a.tflite", first), linear(tmp_path / "b.tflite", second))
    assert parts == ['tensor "weights": 1 of 12 values differ, the first at 11: 0.0 → -0.0']


def edited(path: Path, edit: object) -> Path:
    model = graph.read(path.read_bytes())
    edit(model)  # type: ignore[operator]
    target = path.with_name("edited.tflite")
    target.write_bytes(graph.write(model))
    return target


def test_scales_names_and_ops_are_named(tmp_path: Path) -> None:
    first = linear(tmp_path / "a.tflite", int8_io=True)

    def edit(model: graph.ModelT) -> None:
        main = model.subgraphs[0]
        by_name = {graph.tensor_name(tensor): tensor for tensor in main.tensors}
        by_name["image_int8"].quantization.scale = [0.25]
        by_name["scores_int8"].quantization.zeroPoint = [7]
        by_name["scores"].name = b"renamed"
        main.operators[1].builtinOptions.fusedActivationFunction = 1
        model.description = b"now with a description"

    _, *parts = differences(first, edited(first, edit))
    text = "\n".join(parts)
    assert 'tensor "image_int8": scale: 1 of 1 values differ, the first at 0: 0.0625 → 0.25' in text
    assert 'tensor "scores_int8": zero point: 1 of 1 values differ, the first at 0: 5 → 7' in text
    assert 'tensor "scores": renamed to "renamed"' in text
    assert "description:  → now with a description" in text
    assert "op 1 (FULLY_CONNECTED): options" in text
    assert len(parts) == 5


def test_bytes_that_mean_nothing_are_the_layout(tmp_path: Path) -> None:
    first = linear(tmp_path / "a.tflite")
    (tmp_path / "b.tflite").write_bytes(first.read_bytes() + b"\0" * 4)
    assert differences(first, tmp_path / "b.tflite")[1:] == ["every part is equal: only the layout of the file differs"]


@pytest.mark.parametrize("suffix", [".tflite", ".npz", ".json"])
def test_a_damaged_file_is_still_compared_byte_by_byte(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(b"not one")
    (tmp_path / f"b{suffix}").write_bytes(b"nor two")
    head, line = differences(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")
    assert head.endswith("at offset 2")
    assert line.startswith(f"no {suffix} that can be read part by part")


def test_arrays_and_json_entries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", score=np.arange(4.0), index=np.arange(3), gone=np.arange(2))
    np.savez(tmp_path / "b.npz", score=np.array([0.0, 1.0, 2.5, 3.5]), index=np.arange(3), wide=np.arange(2))
    expected = ["gone: present → absent", "score: 2 of 4 values differ, the first at 2: 2.0 → 2.5"]
    assert differences(tmp_path / "a.npz", tmp_path / "b.npz")[1:] == [*expected, "wide: absent → present"]
    # Outputs over a large set do not fit into memory: such an array is told by its first byte.
    monkeypatch.setattr(compare, "MOST_LOADED_BYTES", 10)
    assert "score: differs from byte " in differences(tmp_path / "a.npz", tmp_path / "b.npz")[2]
    for name, value in (("a", 0.5), ("b", 0.75)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"n": 3, "slices": [{"name": "day", "value": value}]}))
    assert differences(tmp_path / "a.json", tmp_path / "b.json")[1:] == ["slices.day.value: 0.5 → 0.75"]


def test_no_more_than_a_dozen_parts_are_told(tmp_path: Path) -> None:
    for name, value in (("a", 0.0), ("b", 1.0)):
        np.savez(tmp_path / f"{name}.npz", **{f"array_{number}": np.full(2, value) for number in range(40)})
    found = differences(tmp_path / "a.npz", tmp_path / "b.npz")
    assert len(found) == 1 + compare.MOST_TOLD + 1
    assert found[-1] == "and 28 more"
