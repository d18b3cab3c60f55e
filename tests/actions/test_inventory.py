"""What a file holds: conversions inside the graph, bytes by tensor, and what its outputs do over many samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_tflite
from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import describe, graph, inventory
from quantbuild.tflite.outputs import Limits, OutputTally, limits


def test_conversions_inside_the_graph_are_named_and_one_stretch_of_float_is_one_pair(tmp_path: Path) -> None:
    about = describe.describe(tiny_tflite.linear(tmp_path / "m.tflite", int8_io=True).read_bytes())
    assert about["conversions"] == {
        "pairs": 1,
        "ops": [
            {"op": "DEQUANTIZE", "name": "image", "from": "int8", "to": "float32"},
            {"op": "QUANTIZE", "name": "scores_int8", "from": "float32", "to": "int8"},
        ],
    }


def test_the_models_own_conversions_and_unpacked_constants_are_left_out(tmp_path: Path) -> None:
    model = graph.read(tiny_tflite.linear(tmp_path / "m.tflite").read_bytes())
    main = graph.main(model)
    unpacked = graph.add_tensor(main, "unpacked", (3, 4))
    code = graph.add_opcode(model, "DEQUANTIZE")
    main.operators.insert(0, schema.OperatorT(opcodeIndex=code, inputs=[1], outputs=[unpacked]))
    assert inventory.conversions(model) == {"pairs": 0, "ops": []}
    border = graph.add_tensor(main, "dequantized", (1, 3))
    scores = graph.indices(main.outputs)[0]
    main.operators.append(schema.OperatorT(opcodeIndex=code, inputs=[scores], outputs=[border]))
    main.outputs = [border]
    assert inventory.conversions(model)["ops"] == []


def test_bytes_are_told_by_tensor_and_shared_constants_count_once(tmp_path: Path) -> None:
    model = graph.read(tiny_tflite.linear(tmp_path / "m.tflite").read_bytes())
    weights = graph.main(model).tensors[1]
    twin = schema.TensorT(name="twin", shape=[3, 4], type=weights.type, buffer=weights.buffer)
    graph.main(model).tensors.append(twin)
    data = graph.write(model)
    found = describe.describe(data)["sizes"]
    assert found == {
        "constant_bytes": 48,
        "other_bytes": len(data) - 48,
        "largest": [{"name": "weights", "dtype": "float32", "bytes": 48, "share": 48 / len(data)}],
    }


def test_limits_are_those_of_the_integers_behind_an_output(tmp_path: Path) -> None:
    inside = tiny_tflite.linear(tmp_path / "float.tflite").read_bytes()
    assert limits(graph.read(inside)) == {}
    outside = tiny_tflite.linear(tmp_path / "int8.tflite", int8_io=True).read_bytes()
    assert limits(graph.read(outside)) == {"scores": Limits((-128 - 5) * 0.5, (127 - 5) * 0.5, 0.5)}


def tally(values: list[list[float]], reference: list[list[float]] | None = None, step: float = 1.0) -> OutputTally:
    found = OutputTally(Limits(-128.0, 127.0, step))
    for place, row in enumerate(values):
        beside = None if reference is None else np.array(reference[place], np.float32)
        found.add(np.array(row, np.float32), beside)
    return found


def test_an_element_that_never_changes_is_stuck_only_where_float32_moves_it() -> None:
    figures = tally([[1, 5, 0], [1, 6, 0]], [[1, 5, 0], [4, 6, 0.02]]).figures()
    assert (figures["elements"], figures["constant_elements"], figures["stuck_elements"]) == (3, 2, 1)


def test_one_sample_tells_nothing_of_what_never_changes() -> None:
    figures = tally([[1, 5]], [[1, 5]]).figures()
    assert (figures["constant_elements"], figures["stuck_elements"]) == (0, None)


@pytest.mark.parametrize(
    ("values", "reference", "at_low", "at_high", "clipped"),
    [
        ([[-128, 127]], [[-128.4, 127.9]], 0.5, 0.5, 0.0),
        ([[-128, 127]], [[-130, 127]], 0.5, 0.5, 0.5),
        ([[0, 1]], [[0, 1]], 0.0, 0.0, 0.0),
    ],
)
def test_a_value_is_clipped_where_float32_lies_more_than_a_step_beyond(
    values: list[list[float]], reference: list[list[float]], at_low: float, at_high: float, clipped: float
) -> None:
    figures = tally(values, reference).figures()
    assert (figures["at_low"], figures["at_high"], figures["clipped"]) == (at_low, at_high, clipped)


def test_an_output_that_is_float_to_its_core_has_no_ends() -> None:
    found = OutputTally(None)
    found.add(np.zeros(3, np.float32))
    assert (found.figures()["at_low"], found.figures()["clipped"]) == (None, None)
