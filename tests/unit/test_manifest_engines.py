"""A variant that the plain converter makes: what it cannot do is told when manifests are read, not by the build."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.loading import load

MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
[model.m]
source = "{source}"
path = "model.file"
calibration = "data"
[model.m.variant.v]
scheme = "int8"
{keys}
"""


def lines(root: Path, source: str, keys: str) -> list[str]:
    (root / "manifests").mkdir()
    (root / "manifests/m.toml").write_text(MANIFEST.format(source=source, keys=keys))
    for name in ("data.npz", "model.file"):
        (root / name).touch()
    try:
        load(root, environ={})
    except ManifestErrors as error:
        return error.lines
    return []


@pytest.mark.parametrize("source", ["keras", "saved_model"])
def test_the_plain_converter_starts_from_what_tensorflow_reads(tmp_path: Path, source: str) -> None:
    assert lines(tmp_path, source, 'engine = "tflite"') == []


def test_the_plain_converter_does_not_start_from_a_tflite(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, "tflite", 'engine = "tflite"')
    assert line == (
        'manifests/m.toml:12: model.m.variant.v.engine: the plain converter cannot start from source = "tflite"; '
        'use engine = "quantbuild"'
    )


def test_the_plain_converter_knows_its_own_ranges_only(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, "keras", 'engine = "tflite"\nranges = "sample_mean"')
    assert 'model.m.variant.v.ranges: engine = "tflite" takes its own minima and maxima' in line


def test_a_tflite_goes_through_the_own_engine(tmp_path: Path) -> None:
    assert lines(tmp_path, "tflite", 'ranges = "sample_mean"') == []
