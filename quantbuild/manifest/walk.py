"""Converts one table; where that fails, walks it and tells every problem it has, not the first alone."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Struct, structs

from quantbuild.manifest.definitions import GIVEN
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.problems import Problem, kind_of, leaves, nearest, quoted, unknown, unknown_key
from quantbuild.manifest.words import accepted_kinds, type_words

Definition = TypeVar("Definition", bound=Struct)

_KEY_FIRST = re.compile(r"([A-Za-z_]\w*): (.*)", re.DOTALL)


def convert(
    table: dict[str, Any],
    definition: type[Definition],
    path: KeyPath,
    problems: list[Problem],
    *,
    given: Mapping[str, Any] | None = None,
    beside: Collection[str] = (),
) -> Definition | None:
    """Return `table` as `definition`, or None and every problem it has in `problems`.

    `given` are fields that are no keys of the table (see `GIVEN`) or are already converted;
    `beside` are keys of the same table that another definition takes, for "did you mean" only.
    """
    hidden = GIVEN if given else frozenset()
    if hidden.isdisjoint(table):
        try:
            converted = msgspec.convert({**table, **given} if given else table, definition)
        except msgspec.ValidationError as error:
            message = str(error)
        else:
            return None if _has_infinities(table, given or (), path, problems) else converted
    else:
        message = "a key of this table has a reserved name; remove it"
    _walk_table(table, definition, path, problems, hidden=hidden, skip=given or (), beside=beside, message=message)
    return None


def _has_infinities(table: dict[str, Any], skip: Collection[str], path: KeyPath, problems: list[Problem]) -> bool:
    """Refuse inf and nan: a step's key is made from JSON, where each would be the same as a value left out."""
    own = {key: value for key, value in table.items() if key not in skip}
    found = [(*path, *inner) for inner, value in leaves(own) if isinstance(value, float) and not math.isfinite(value)]
    problems.extend(Problem(place, "is not a finite number; write one, or leave the key out") for place in found)
    return bool(found)


def _walk_table(
    table: dict[str, Any],
    definition: type[Struct],
    path: KeyPath,
    problems: list[Problem],
    *,
    hidden: Collection[str] = (),
    skip: Collection[str] = (),
    beside: Collection[str] = (),
    message: str,
) -> None:
    before = len(problems)
    fields = {key.encode_name: key for key in structs.fields(definition) if key.name not in hidden}
    own = {*fields, _tag(definition) or ""} - {""}
    problems.extend(Problem((*path, key), unknown_key(key, {*own, *beside})) for key in table if key not in own)
    for key, field in fields.items():
        if key in skip:
            continue
        if key in table:
            walk_value(table[key], field.type, (*path, key), problems)
        elif field.required:
            words = type_words(field.type)
            problems.append(Problem(path, f"missing key {quoted(key)}; add {key}, {words}"))
    if len(problems) == before:
        problems.append(_of_whole(message, path, fields))


def walk_value(value: Any, expected: Any, path: KeyPath, problems: list[Problem]) -> None:
    """Add every problem of one value, which should be of the Python type `expected`."""
    if _converts(value, expected):
        return
    before = len(problems)
    inner = _container_for(value, expected) or _tagged_for(value, expected, path, problems)
    if inner is not None and isinstance(value, dict):
        if isinstance(inner, type) and issubclass(inner, Struct):
            _walk_table(value, inner, path, problems, message=_message(value, inner))
            return
        for key, item in value.items():
            walk_value(item, typing.get_args(inner)[1], (*path, key), problems)
    elif inner is not None:
        for index, item in enumerate(value):
            walk_value(item, typing.get_args(inner)[0], (*path, index), problems)
    if len(problems) == before:
        problems.append(Problem(path, _leaf_text(value, expected)))


def _converts(value: Any, expected: Any) -> bool:
    return _message(value, expected) == ""


def _message(value: Any, expected: Any) -> str:
    try:
        msgspec.convert(value, expected)
    except msgspec.ValidationError as error:
        return str(error)
    return ""


def _container_for(value: Any, expected: Any) -> Any | None:
    """Return the one table or list type in `expected` that can hold `value`, without annotations."""
    candidates = [kind for kind in _members(expected) if _holds(kind, value)]
    return candidates[0] if len(candidates) == 1 else None


def _tagged_for(value: Any, expected: Any, path: KeyPath, problems: list[Problem]) -> type[Struct] | None:
    """Return the one of several tables that `value`'s tag names; note a tag that is missing or names none."""
    tables = {member.__struct_config__.tag: member for member in _members(expected) if _tag(member)}
    if not isinstance(value, dict) or len(tables) < 2:
        return None
    key = _tag(next(iter(tables.values()))) or ""
    named = value.get(key)
    if not isinstance(named, str):
        problems.append(Problem(path, f"names no {key}; add {key}, one of {', '.join(sorted(tables))}"))
    elif named not in tables:
        problems.append(Problem((*path, key), unknown(key, named, tables)))
    return tables.get(named)


def _tag(kind: Any) -> str | None:
    """Return the key that tells a table from the others that may stand in its place."""
    return kind.__struct_config__.tag_field if isinstance(kind, type) and issubclass(kind, Struct) else None


def _members(expected: Any) -> list[Any]:
    origin = typing.get_origin(expected)
    if origin is Annotated:
        return _members(typing.get_args(expected)[0])
    if origin in (typing.Union, UnionType):
        return [member for option in typing.get_args(expected) for member in _members(option)]
    return [expected]


def _holds(kind: Any, value: Any) -> bool:
    origin = typing.get_origin(kind)
    if isinstance(value, dict):
        return origin is dict or (isinstance(kind, type) and issubclass(kind, Struct))
    if isinstance(value, list):
        return origin in (list, tuple, frozenset, set)
    return False


def _leaf_text(value: Any, expected: Any) -> str:
    words = type_words(expected)
    known = accepted_kinds(expected)
    if isinstance(value, str) and known.names:
        near = nearest(value, known.names)
        hint = f"did you mean {quoted(near)}? " if near else ""
        return f"unknown value {quoted(value)}; {hint}write {words}"
    if type(value) in known.kinds:
        own_words = re.sub(r" - at `.*`$", "", _message(value, expected))
        if not own_words.startswith(("Expected", "Invalid", "Object")) and ";" in own_words:
            return own_words  # a plug-in's own check
        return f"{_shown(value)} is not allowed; write {words}"
    return f"{_shown(value)} is {kind_of(value)}; write {words}"


def _shown(value: Any) -> str:
    text = quoted(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _of_whole(message: str, path: KeyPath, fields: Mapping[str, Any]) -> Problem:
    """Place the message of a definition's own check, which may begin with the key it is about."""
    text = re.sub(r" - at `.*`$", "", message)
    named = _KEY_FIRST.fullmatch(text)
    if named and named[1] in fields:
        return Problem((*path, named[1]), named[2])
    return Problem(path, text if ";" in text else f"{text}; see docs/manifest.md")
