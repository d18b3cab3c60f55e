"""The JSON Schema: right manifests pass, and what the loader refuses in one key the schema refuses too."""

from __future__ import annotations

import json

import jsonschema
import pytest
import tomli
from manifest_fakes import GOOD, PLUGINS, problems

from quantbuild.manifest.definitions import Cache, Dataset, Device, Gate, Model, Settings, Variant, written_keys
from quantbuild.manifest.plugins import installed
from quantbuild.manifest.schema import json_schema

SCHEMA = json_schema(PLUGINS)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def test_the_schema_is_a_valid_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_schema_is_plain_json_and_the_same_every_time():
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA
    assert json.dumps(json_schema(PLUGINS)) == json.dumps(SCHEMA)


def test_a_good_manifest_passes():
    assert list(VALIDATOR.iter_errors(tomli.loads(GOOD))) == []


def test_every_key_of_every_definition_is_in_the_schema():
    tables = SCHEMA["$defs"]
    assert set(tables["Gate"]["properties"]) == written_keys(Gate)
    assert set(tables["model"]["properties"]) == written_keys(Model)
    assert set(tables["Cache"]["properties"]) == written_keys(Cache)
    assert set(SCHEMA["properties"]["workspace"]["properties"]) == written_keys(Settings)
    assert set(tables["dataset.arrays"]["properties"]) == {*written_keys(Dataset), "path", "label", "preprocess"}
    assert set(tables["variant.float16"]["properties"]) == written_keys(Variant)
    assert set(tables["device.adb"]["properties"]) == {*written_keys(Device), "serial"}


def test_every_key_of_our_own_tables_says_what_it_means():
    for name in ("Gate", "Cache", "model", "variant.float16", "device.host", "dataset.folder"):
        for key, schema in SCHEMA["$defs"][name]["properties"].items():
            if key not in {"paths", "threads"}:
                assert schema["description"], (name, key)


def test_a_plugins_key_is_described_by_the_text_below_it():
    assert SCHEMA["$defs"]["dataset.arrays"]["properties"]["path"]["description"] == "The file."


def test_the_installed_plugins_are_in_the_schema():
    schema = json_schema()
    for kind, modules in (("dataset", installed().datasets), ("device", installed().runners)):
        assert {f"{kind}.{name}" for name in modules} <= set(schema["$defs"])


SINGLE_MISTAKES = [
    ("schema = 1", ""),
    ("schema = 1", "schema = 2"),
    ("schema = 1", "schema = '1'"),
    ("[device.host]", "[devices.host]"),
    ("[device.host]", "[device.report]"),
    ("[device.host]", "[device.'a b']"),
    ("[device.phone]", "[device.Datasets]"),
    ('loader = "arrays"', ""),
    ('loader = "arrays"', 'loader = "arays"'),
    ('loader = "arrays"', "loader = 1"),
    ("samples = 500", "samples = 0"),
    ("samples = 500", "samples = 1.5"),
    ("samples = 500", "sampels = 500"),
    ("samples = 500", "seed = -1"),
    ("samples = 500", "preprocess = { std = 'x' }"),
    ("samples = 500", "preprocess = { stddev = 1 }"),
    ("samples = 500", "name = 'train'"),
    ('runner = "host"', 'runner = "hots"'),
    ('serial = "123"', ""),
    ('serial = "123"', "serial = 123"),
    ("required = false", "required = 'no'"),
    ('source = "keras"', 'source = "karas"'),
    ('path = "digits.keras"', ""),
    ('path = "digits.keras"', "path = ''"),
    ('path = "digits.keras"', "path = '/digits.keras'"),
    ("labels.txt", "C:/labels.txt"),
    ("[1, 8, 8, 1]", "[1, 0]"),
    ("[1, 8, 8, 1]", "[]"),
    ("[1, 8, 8, 1]", "3"),
    ('"top1"', '"top2"'),
    ('"top1"', '"module:"'),
    ('ship = "int8"', "ship = 3"),
    ('ship = "int8"', 'ship = { low = "int8" }'),
    ('ship = "int8"', "devices = 'host'"),
    ("0.01", "-0.01"),
    ("0.01", "'x'"),
    ("0.35", "0"),
    ("max_size_ratio = 0.35", "confidence = 1"),
    ("max_size_ratio = 0.35", "undecided = 'ignore'"),
    ("max_size_ratio = 0.35", "min_agreement = 1.1"),
    ("max_size_ratio = 0.35", "max_size = 1"),
    ("max_size_ratio = 0.35", "fully_integer = 1"),
    ("host = 1.1", "host = 0"),
    ("host = 2", "host = '2'"),
    ('scheme = "int8"', 'scheme = "int9"'),
    ('scheme = "int8"', ""),
    ('io = "int8"', 'io = "int9"'),
    ('io = "int8"', "gate = { max_sise_ratio = 1 }"),
    ("[device.host]", "[workspace]\ncaches = {}\n[device.host]"),
    ("[device.host]", "[workspace]\ncache = { upload = 'yes' }\n[device.host]"),
    ("[device.host]", "[workspace]\ncache = { remote = 'cache:80' }\n[device.host]"),
]


@pytest.mark.parametrize(("old", "new"), SINGLE_MISTAKES, ids=lambda value: str(value)[:30])
def test_loader_and_schema_both_refuse(tmp_path, old, new):
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    assert problems(tmp_path, bad=bad)
    assert not VALIDATOR.is_valid(tomli.loads(bad))


ONE_WRONG_THING = [
    ("samples = 500", "sampels = 500", "$.dataset.train", "'sampels' was unexpected"),
    ("samples = 500", "samples = '500'", "$.dataset.train.samples", "'500' is not of type 'integer'"),
    ("samples = 500", "preprocess = { std = 'x' }", "$.dataset.train.preprocess.std", "is not of type 'number'"),
    ('loader = "arrays"', 'loader = "arays"', "$.dataset.train.loader", "'arays' is not one of ['arrays', 'folder'"),
    ('loader = "arrays"', "", "$.dataset.train", "'loader' is a required property"),
    ('source = "keras"', "source = 1", "$.model.digits.source", "1 is not one of"),
    ('source = "keras"', 'source = "keras"\nsorce = 1', "$.model.digits", "'sorce' was unexpected"),
    ('ship = "int8"', "ship = 3", "$.model.digits.ship", "3 is not of type 'string', 'object'"),
    ('ship = "int8"', "ship = { default = 3 }", "$.model.digits.ship.default", "3 is not of type 'string'"),
    ('io = "int8"', 'io = "int9"', "$.model.digits.variant.int8.io", "'int9' is not one of"),
    ('io = "int8"', "rnages = 1", "$.model.digits.variant.int8", "'rnages' was unexpected"),
    (
        'io = "int8"',
        "gate.max_size_ratio = 0",
        "$.model.digits.variant.int8.gate.max_size_ratio",
        "exclusiveM|less than",
    ),
    ('runner = "host"', 'runner = "hots"', "$.device.host.runner", "'hots' is not one of"),
    ('serial = "123"', "serial = 123", "$.device.phone.serial", "123 is not of type 'string'"),
    ('serial = "123"', "", "$.device.phone", "'serial' is a required property"),
]


@pytest.mark.parametrize(("old", "new", "place", "words"), ONE_WRONG_THING, ids=lambda value: str(value)[:30])
def test_an_editor_tells_the_one_wrong_thing(old, new, place, words):
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    (error,) = VALIDATOR.iter_errors(tomli.loads(bad))
    assert error.json_path == place
    assert any(part in error.message for part in words.split("|")), error.message
    assert jsonschema.exceptions.best_match([error]) is error


def test_no_table_of_the_installed_plugins_is_a_choice_that_hides_what_is_wrong():
    assert '"anyOf"' not in json.dumps(json_schema())


def test_editors_complete_the_keys_of_plugins_too():
    keys = SCHEMA["$defs"]["dataset"]["properties"]
    assert {"loader", "samples", "path", "preprocess"} <= set(keys)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('ship = "int8"', 'ship = { default = "int8", low_end = "half" }'),
        ('"top1"', '"my.metrics:dice"'),
        ("0.01", "0"),
        ('io = "int8"', "ranges = { mean = [1, 2.5] }"),
        (
            "[device.host]",
            "[workspace]\ncache = { directory = '/c', remote = 'https://c:80', upload = true }\n[device.host]",
        ),
        ("samples = 500", "seed = 7"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_loader_and_schema_both_accept(tmp_path, old, new):
    good = GOOD.replace(old, new, 1)
    assert good != GOOD
    (tmp_path / "my").mkdir()
    assert problems(tmp_path, good=good) == []
    assert VALIDATOR.is_valid(tomli.loads(good))
