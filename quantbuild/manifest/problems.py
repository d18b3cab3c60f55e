"""One problem of a manifest as a value, and the words it is told in."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from quantbuild.manifest.locate import KeyPath

_LISTED = 12
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "a table",
}


class Problem(NamedTuple):
    """What is wrong with one key, and what to do about it. The line is looked up when it is printed."""

    path: KeyPath
    text: str
    """``problem; remedy``."""
    file: str | None = None
    """The manifest, relative to the root; None: whichever has the key."""
    line: int | None = None


def key_text(path: KeyPath) -> str:
    """Return a key as it is written in TOML, e.g. ``model."v1.2".devices[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else quoted(part))
    return text


def quoted(value: object) -> str:
    """Return a value as a manifest writes it."""
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False, default=str)


def kind_of(value: object) -> str:
    """Return what a TOML value is, in words."""
    return _KINDS.get(type(value), "a date or time")


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a name or key is unknown, the nearest known one, and what there is."""
    names = sorted(known)
    near = nearest(name, names)
    remedy = f"did you mean {quoted(near)}? " if near else ""
    if not names:
        return f"unknown {what} {quoted(name)}; there is no {what} yet"
    return f"unknown {what} {quoted(name)}; {remedy}known: {_listed(names)}"


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, with the key it most likely means, else every key there is."""
    near = nearest(key, known)
    return f"unknown key {quoted(key)}; did you mean {quoted(near)}?" if near else unknown("key", key, known)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` most likely means, ignoring case."""
    by_lower = {other.lower(): other for other in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None


def leaves(value: Any, path: KeyPath = ()) -> Iterable[tuple[KeyPath, Any]]:
    """Yield every value of parsed TOML that is neither a table nor a list, with its path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, (*path, index))
    else:
        yield path, value


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
