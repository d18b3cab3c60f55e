"""The range methods in a manifest: one normal form, one message for each mistake, nothing heavy to read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
import tomli
from jsonschema import Draft202012Validator

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.loading import load
from quantbuild.manifest.schema import json_schema
from quantbuild.schemes.int8 import Options, needs
from quantbuild.tflite import range_options
from quantbuild.tflite.range_options import MinMax, Name, Percentile, Quantile

MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
[model.m]
source = "tflite"
path = "m.tflite"
calibration = "data"
[model.m.variant.v]
scheme = "int8"
ranges = {ranges}
"""


def ranges_of(root: Path, text: str) -> object:
    (root / "manifests").mkdir(exist_ok=True)
    (root / "manifests/m.toml").write_text(MANIFEST.format(ranges=text))
    for name in ("data.npz", "m.tflite"):
        (root / name).touch()
    options = load(root, environ={}).models["m"].variants["v"].options
    return msgspec.to_builtins(options)["ranges"]


def problem(root: Path, text: str) -> str:
    with pytest.raises(ManifestErrors) as caught:
        ranges_of(root, text)
    (line,) = caught.value.lines
    return line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"minmax"', "minmax"),
        ('{ method = "minmax" }', "minmax"),
        ('{ method = "quantile", quantile = 1 }', "minmax"),
        ('{ method = "percentile", percentile = 100 }', "minmax"),
        ('"sample_mean"', "sample_mean"),
        ('"mse"', "mse"),
        ('"median"', {"method": "quantile", "quantile": 0.5}),
        ('{ method = "median" }', {"method": "quantile", "quantile": 0.5}),
        ('"quantile"', {"method": "quantile", "quantile": 0.9}),
        ('{ method = "quantile", quantile = 0.9 }', {"method": "quantile", "quantile": 0.9}),
        ('"moving_average"', {"method": "moving_average", "momentum": 0.95}),
        ('"percentile"', {"method": "percentile", "percentile": 99.99}),
        ('{ method = "percentile", percentile = 99 }', {"method": "percentile", "percentile": 99.0}),
        ('"kl"', {"method": "kl", "bins": 2048}),
        ('{ method = "kl", bins = 512 }', {"method": "kl", "bins": 512}),
    ],
)
def test_equal_meaning_gives_equal_parameters(tmp_path, text, expected):
    assert ranges_of(tmp_path, text) == expected


@pytest.mark.parametrize("name", get_args(Name))
def test_a_worker_reads_back_what_was_planned(name):
    options = Options(ranges=name)
    planned = msgspec.to_builtins(options)
    assert msgspec.convert(planned, Options) == options
    assert range_options.normalize(options.ranges) == range_options.normalize(name)


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ('"percentil"', "ranges", 'unknown value "percentil"; did you mean "percentile"? write "auto", "minmax", '),
        ("3", "ranges", "3 is a whole number; write "),
        ('{ method = "percentil" }', "ranges.method", 'unknown method "percentil"; did you mean "percentile"?'),
        ("{ percentile = 99 }", "ranges", "names no method; add method, one of auto, kl, median, "),
        ('{ method = "percentile", percentile = 200 }', "ranges.percentile", "write a number above 50 and at most 100"),
        ('{ method = "percentile", percentil = 99 }', "ranges.percentil", 'did you mean "percentile"?'),
        ('{ method = "kl", bins = 100 }', "ranges.bins", "100 is not allowed; write 512, 1024 or 2048"),
        ('{ method = "minmax", bins = 512 }', "ranges.bins", 'unknown key "bins"; known: method'),
        ('{ method = "moving_average", momentum = 1 }', "ranges.momentum", "at least 0 and below 1"),
        ('{ method = "quantile", quantile = 0.1 }', "ranges.quantile", "at least 0.5 and at most 1"),
    ],
)
def test_a_mistake_is_told_at_its_place(tmp_path, text, place, words):
    line = problem(tmp_path, text)
    assert f"model.m.variant.v.{place}: " in line
    assert words in line


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('"kl"', True),
        ('{ method = "kl" }', True),
        ('{ method = "percentile", percentile = 99.9 }', True),
        ('"percentil"', False),
        ('{ method = "kl", percentile = 99.9 }', False),
        ('{ method = "percentile", percentile = 101 }', False),
        ("{ percentile = 99 }", False),
    ],
)
def test_the_schema_agrees(text, valid):
    validator = Draft202012Validator(json_schema())
    assert validator.is_valid(tomli.loads(MANIFEST.format(ranges=text))) is valid


@pytest.mark.parametrize("name", get_args(Name))
def test_a_second_pass_is_asked_for_only_by_what_reads_histograms(name):
    expected = name in {"percentile", "mse", "kl"}
    assert range_options.needs_histograms(name) is expected
    assert ("calibration" in needs(Options(ranges=name))) is expected
    assert "statistics" in needs(Options(ranges=name))
    assert not range_options.needs_histograms(Percentile(percentile=100))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("minmax", "minmax"),
        (MinMax(), "minmax"),
        ("percentile", "percentile 99.99"),
        (Quantile(quantile=0.75), "quantile 0.75"),
        ("kl", "kl 2048"),
    ],
)
def test_words_for_people(choice, expected):
    assert range_options.words(choice) == expected


def test_every_option_is_documented_in_the_schema():
    schema = json_schema()["$defs"]
    for kind in get_args(range_options.Table):
        table = schema[f"variant.int8.{kind.__name__}"]
        assert table["description"]
        assert all("description" in key for name, key in table["properties"].items() if name != "method")


def test_the_options_are_read_without_numpy():
    code = "import sys, quantbuild.tflite.range_options; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_method_is_in_the_docs_with_its_options_and_their_defaults():
    document = (Path(__file__).parents[2] / "docs/manifest.md").read_text(encoding="utf-8")
    section = document.partition("#### `ranges` of `int8`")[2].partition("\n### ")[0]
    rows = {line.split("|")[1].strip(): line.split("|")[2] for line in section.splitlines() if line.startswith("| `")}
    assert set(rows) == {f"`{name}`" for name in get_args(Name)}
    for kind in get_args(range_options.Table):
        options = rows[f"`{kind.__struct_config__.tag}`"]
        expected = [f"`{field.name} = {field.default}`" for field in msgspec.structs.fields(kind)]
        assert [option for option in expected if option not in options] == []
        assert expected or not options.strip()
