"""Op versions and the oldest runtime: TensorFlow's own tables, and never less than what the types ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_tflite
from ai_edge_litert import schema_py_generated as schema
from tensorflow_versioning import Oracle
from tiny_models import converted

from quantbuild import release
from quantbuild.tflite import describe, graph, versions, weights
from quantbuild.tflite.runtime import Binding, open_interpreter

BEYOND = 3
"""Versions after the last known one, which must not be known to TensorFlow either."""


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture(scope="module", params=["net", "pair", "words"])
def float32(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return converted("keras", models / f"{request.param}.keras", tmp_path_factory.mktemp(request.param))


def made(float32: bytes, scheme: str) -> bytes:
    """The artifact as litert-quantizer leaves it, its versions not yet looked at."""
    from litert_quantizer import recipe

    from quantbuild.schemes import float16

    recipes = {
        "dynamic": recipe.dynamic_wi8_afp32,
        "weight_only": recipe.weight_only_wi8_afp32,
        "float16": float16._recipe,
    }
    return weights.quantize(float32, recipes[scheme]())


def needed(data: bytes) -> dict[str, int]:
    found: dict[str, int] = {}
    for entry in versions.op_versions(graph.read(data)):
        found[entry["op"]] = max(found.get(entry["op"], 0), entry["version"])
    return found


def test_the_runtime_table_is_the_installed_tensorflows(oracle: Oracle) -> None:
    """A newer TensorFlow that knows more fails here: versions.json is then to be read anew."""
    names = [name for name in vars(schema.BuiltinOperator) if name.isupper() and name != "CUSTOM"]
    table = versions.tables().runtime
    assert set(table) <= set(names)
    for name in names:
        known = table.get(name, ())
        assert tuple(oracle.runtime(name, version + 1) for version in range(len(known) + BEYOND)) == (
            *known, *[None] * BEYOND,
        ), name  # fmt: skip


@pytest.mark.parametrize("scheme", ["dynamic", "weight_only", "float16"])
def test_the_versions_needed_are_those_that_tensorflow_would_write(oracle: Oracle, float32: bytes, scheme: str) -> None:
    data = made(float32, scheme)
    assert needed(data) == oracle.versions(data)
    assert needed(float32) == oracle.versions(float32)


def test_an_artifact_is_stamped_with_the_versions_and_the_runtime_it_needs(float32: bytes) -> None:
    raw = made(float32, "dynamic")
    stamped = versions.stamp(raw)
    assert versions.stamp(stamped) is stamped
    codes = {graph.op_name(graph.read(stamped), schema.OperatorT(opcodeIndex=place)): code.version
             for place, code in enumerate(graph.read(stamped).operatorCodes)}  # fmt: skip
    assert codes["FULLY_CONNECTED"] == 12
    about = describe.describe(stamped)
    assert about["minimal_runtime"] == about["noted_runtime"] == "2.17.0"
    assert about["runtime_unknown"] == []
    # The numbers are the same: only what an older runtime may make of it differs.
    for data in (raw, stamped):
        assert describe.describe(data)["minimal_runtime"] == "2.17.0"
    sample = {port.name: np.ones(port.shape, port.dtype) for port in Binding(open_interpreter(raw)).inputs}
    first, second = (Binding(open_interpreter(data)).run(sample) for data in (raw, stamped))
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_what_the_converter_wrote_is_left_as_it_is(float32: bytes) -> None:
    assert versions.stamp(float32) is float32
    assert describe.describe(float32)["noted_runtime"] == describe.describe(float32)["minimal_runtime"]


def test_a_custom_op_leaves_the_runtime_unknown_and_is_named(tmp_path: Path) -> None:
    data = with_custom_op(tiny_tflite.linear(tmp_path / "m.tflite").read_bytes(), "FlexErf")
    about = describe.describe(data)
    assert (about["minimal_runtime"], about["runtime_unknown"]) == (None, ["FlexErf"])
    assert about["custom_ops"] == [{"op": "FlexErf", "count": 1, "flex": True}]
    assert {"op": "FlexErf", "version": 1, "count": 1, "runtime": None} in about["op_versions"]


def test_a_version_that_the_table_lacks_is_unknown_and_not_guessed(tmp_path: Path) -> None:
    model = graph.read(tiny_tflite.linear(tmp_path / "m.tflite").read_bytes())
    model.operatorCodes[0].version = 99
    about = describe.describe(graph.write(model))
    assert (about["minimal_runtime"], about["runtime_unknown"]) == (None, ["FULLY_CONNECTED 99"])


def test_a_type_below_eight_bits_that_no_rule_is_about_is_unknown(tmp_path: Path) -> None:
    model = graph.read(tiny_tflite.linear(tmp_path / "m.tflite").read_bytes())
    graph.main(model).tensors[1].type = schema.TensorType.INT4
    found = versions.op_versions(model)
    assert found == [{"op": "FULLY_CONNECTED", "version": None, "count": 1, "runtime": None}]
    assert versions.unknown(found) == ["FULLY_CONNECTED of INT4"]


def test_the_newest_op_decides_and_versions_are_compared_as_numbers() -> None:
    found = [
        {"op": "A", "version": 1, "count": 1, "runtime": "2.9.0"},
        {"op": "B", "version": 1, "count": 1, "runtime": "2.10.1"},
    ]
    assert versions.minimal_runtime(found) == "2.10.1"
    assert versions.minimal_runtime([]) is None
    assert release.numbers("2.14") == release.numbers("2.14.0") < release.numbers("2.14.4")


def with_custom_op(data: bytes, name: str) -> bytes:
    model = graph.read(data)
    custom = schema.BuiltinOperator.CUSTOM
    model.operatorCodes.append(
        schema.OperatorCodeT(builtinCode=custom, deprecatedBuiltinCode=custom, customCode=name, version=1)
    )
    main = graph.main(model)
    result = graph.add_tensor(main, "custom", (1, 3))
    main.operators.append(
        schema.OperatorT(opcodeIndex=len(model.operatorCodes) - 1, inputs=graph.indices(main.outputs), outputs=[result])
    )
    return graph.write(model)
