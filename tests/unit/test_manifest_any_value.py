"""Whatever stands in a manifest, the loader answers with problems, never with a crash, and agrees with the schema."""

from __future__ import annotations

import copy
import datetime
import math
from pathlib import Path

import jsonschema
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st
from manifest_fakes import GOOD, PLUGINS

from quantbuild.manifest.building import build
from quantbuild.manifest.context import Context
from quantbuild.manifest.locate import locate
from quantbuild.manifest.schema import json_schema

DATA = tomli.loads(GOOD)
PLACES = sorted((path for path in locate(GOOD) if path != ("schema",)), key=str)
VALIDATOR = jsonschema.Draft202012Validator(json_schema(PLUGINS))

ODD = st.one_of(
    st.sampled_from(
        [0, -1, 1, 2.5, math.nan, math.inf, True, False, "", "int8", "train", "host", "x" * 99, "/a", "a\nb"]
    ),
    st.sampled_from([[], [1], ["host"], [[]], {}, {"host": 1}, {"default": "int8"}, {"scheme": "int8"}, {"": {}}]),
    st.just(datetime.date(2024, 2, 29)),
)


def _found(data):
    context = Context(root=Path(), plugins=PLUGINS, problems=[], check_files=False, check_references=True)
    build({key: value for key, value in data.items() if key != "schema"}, context)
    return context.problems


def _container(data, path):
    for part in path[:-1]:
        data = data[part]
    return data


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), ODD)
def test_any_value_anywhere_is_judged_and_what_the_schema_refuses_the_loader_refuses(path, value):
    data = copy.deepcopy(DATA)
    _container(data, path)[path[-1]] = value
    found = _found(data)
    assert all("; " in problem.text for problem in found)
    is_date = isinstance(value, datetime.date)  # JSON has no dates, so the schema cannot tell them from texts
    if not is_date and not VALIDATOR.is_valid(data):
        assert found


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([path for path in PLACES if isinstance(path[-1], str)]), st.text(max_size=6), ODD)
def test_any_key_anywhere_is_judged_and_what_the_schema_refuses_the_loader_refuses(path, key, value):
    data = copy.deepcopy(DATA)
    _container(data, path).setdefault(key, value)
    found = _found(data)
    assert all("; " in problem.text for problem in found)
    if not isinstance(value, datetime.date) and not VALIDATOR.is_valid(data):
        assert found


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PLACES))
def test_a_key_left_out_anywhere_is_judged_and_what_the_schema_refuses_the_loader_refuses(path):
    data = copy.deepcopy(DATA)
    del _container(data, path)[path[-1]]
    if not VALIDATOR.is_valid(data):
        assert _found(data)
