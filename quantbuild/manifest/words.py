"""Says in words what a key accepts, from the same type that validates it."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import inspect

from quantbuild.manifest.problems import quoted

_KINDS: list[tuple[tuple[type, ...], set[type]]] = [
    ((inspect.BoolType,), {bool}),
    ((inspect.IntType,), {int}),
    ((inspect.FloatType,), {int, float}),
    ((inspect.StrType,), {str}),
    ((inspect.DictType, inspect.StructType), {dict}),
    ((inspect.ListType, inspect.VarTupleType, inspect.TupleType), {list}),
]


class Accepted(NamedTuple):
    """Python types of the TOML values a key takes, and the names it takes if it takes only those."""

    kinds: frozenset[type]
    names: tuple[str, ...]


def type_words(expected: Any) -> str:
    """Return e.g. ``a whole number of at least 1`` for the Python type `expected`."""
    return _words(inspect.type_info(expected))


def accepted_kinds(expected: Any) -> Accepted:
    """Return what kinds of TOML values `expected` takes."""
    kinds: set[type] = set()
    names: list[str] = []
    for option in _options(inspect.type_info(expected)):
        kinds.update(_kinds(option))
        if isinstance(option, inspect.LiteralType):
            names.extend(str(value) for value in option.values)
        elif isinstance(option, inspect.Metadata) and option.extra:
            names.extend(option.extra.get("known", ()))
    return Accepted(frozenset(kinds), tuple(names))


def _options(info: inspect.Type) -> list[inspect.Type]:
    """Return the members of a union other than null, which TOML cannot write."""
    if isinstance(info, inspect.Metadata) and not (info.extra and "words" in info.extra):
        return _options(info.type)
    if isinstance(info, inspect.UnionType):
        return [inner for option in info.types for inner in _options(option)]
    return [] if isinstance(info, inspect.NoneType) else [info]


def _words(info: inspect.Type) -> str:
    options = _options(info)
    if len(options) != 1:
        return " or ".join(_words(option) for option in options) or "nothing"
    return _one(options[0])


def _one(info: inspect.Type) -> str:
    if isinstance(info, inspect.Metadata):
        return str((info.extra or {})["words"])
    if isinstance(info, inspect.LiteralType):
        return _alternatives([quoted(value) for value in info.values])
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return ("a whole number" if isinstance(info, inspect.IntType) else "a number") + _bounds(info)
    if isinstance(info, inspect.StrType):
        return "a text" + (f" that matches {info.pattern}" if info.pattern else "")
    return _container_words(info)


def _container_words(info: inspect.Type) -> str:
    if isinstance(info, inspect.DictType):
        return f"a table with {_plural(info.value_type)} by name"
    if isinstance(info, inspect.StructType):
        return "a table with " + ", ".join(field.encode_name for field in info.fields)
    if isinstance(info, inspect.ListType | inspect.VarTupleType):
        return f"a list of {_plural(info.item_type)}"
    if isinstance(info, inspect.TupleType):
        return "a list of " + ", ".join(_words(item) for item in info.item_types)
    return "true or false" if isinstance(info, inspect.BoolType) else "a value"


def _kinds(info: inspect.Type) -> set[type]:
    if isinstance(info, inspect.Metadata):
        return _kinds(info.type)
    if isinstance(info, inspect.LiteralType):
        return {type(value) for value in info.values}
    return next((kinds for types, kinds in _KINDS if isinstance(info, types)), set())


def _plural(info: inspect.Type) -> str:
    words = _words(info)
    for singular, plural in (
        ("a whole number", "whole numbers"),
        ("a number", "numbers"),
        ("a text", "texts"),
    ):
        if words.startswith(singular):
            return plural + words.removeprefix(singular)
    return words.replace("a list of", "lists of", 1).replace("a table", "tables", 1)


def _bounds(info: inspect.IntType | inspect.FloatType) -> str:
    low = f"of at least {info.ge:g}" if info.ge is not None else f"above {info.gt:g}" if info.gt is not None else ""
    high = f"at most {info.le:g}" if info.le is not None else f"below {info.lt:g}" if info.lt is not None else ""
    joined = " and ".join(part for part in (low, high) if part)
    return f" {joined}" if joined else ""


def _alternatives(texts: list[str]) -> str:
    return " or ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
