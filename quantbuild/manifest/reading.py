"""Reads manifest files and merges their tables, before anything is known about what the keys mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import tomli

from quantbuild.manifest.definitions import SCHEMA
from quantbuild.manifest.locate import KeyPath, locate
from quantbuild.manifest.problems import Problem, quoted

FOLDER = "manifests"

_SUBTABLES = frozenset({"variant", "gate"})
"""Tables of a model that may stand in another file than the model's own keys."""


class ManifestFile(NamedTuple):
    """One manifest; `data` is empty where the text is no TOML."""

    name: str
    """Relative to the root, with forward slashes."""
    text: str
    data: dict[str, Any]


def read(root: Path, problems: list[Problem]) -> list[ManifestFile]:
    """Return every manifest under `root`, sorted by name; files whose name begins with a dot are none."""
    names = sorted(path.relative_to(root).as_posix() for path in (root / FOLDER).rglob("*.toml") if path.is_file())
    files = [_read_one(root, name, problems) for name in names if not name.rpartition("/")[2].startswith(".")]
    if not files:
        text = 'no manifest is there; write one ending in .toml, or run "quantbuild init"'
        problems.append(Problem((), text, file=FOLDER))
    return files


def check_schema(files: list[ManifestFile], problems: list[Problem]) -> None:
    """Add a problem for each file that does not say `schema = 1`."""
    for file in files:
        if not file.data:
            continue
        version = file.data.get("schema")
        if version is None:
            text = f'missing key "schema"; write schema = {SCHEMA} at the top of the file'
            problems.append(Problem(("schema",), text, file=file.name, line=1))
        elif version is True or version != SCHEMA:
            text = f"{quoted(version)} is not supported; this quantbuild reads schema = {SCHEMA}"
            problems.append(Problem(("schema",), text, file=file.name))


def merge(files: list[ManifestFile], problems: list[Problem]) -> dict[str, Any]:
    """Return the tables of all files as one; a table that two files have is a problem that names both."""
    merged: dict[str, Any] = {}
    for file in files:
        for key, value in file.data.items():
            if key != "schema":
                _add(merged, (key,), value, Merging(file, files, problems))
    return merged


class Merging(NamedTuple):
    """Which file is being added to which others."""

    file: ManifestFile
    files: list[ManifestFile]
    problems: list[Problem]


def _add(into: dict[str, Any], path: KeyPath, value: Any, merging: Merging) -> None:
    key = str(path[-1])
    if not (isinstance(value, dict) and _spans_files(path)):
        if key in into:
            merging.problems.append(_duplicate(path, merging))
        else:
            into[key] = value
        return
    table = into.setdefault(key, {})
    if not isinstance(table, dict):
        merging.problems.append(_duplicate(path, merging))
        return
    taken = _is_model(path) and table.keys() - _SUBTABLES and value.keys() - _SUBTABLES
    if taken:
        merging.problems.append(_duplicate(path, merging))
    for inner, inner_value in value.items():
        if not taken or inner in _SUBTABLES:
            _add(table, (*path, inner), inner_value, merging)


def _spans_files(path: KeyPath) -> bool:
    """Whether several files may add to this table: a section, a model, a model's variants."""
    is_section = len(path) == 1 and path[0] in ("dataset", "model", "device")
    return is_section or _is_model(path) or (len(path) == 3 and path[0] == "model" and path[2] == "variant")


def _is_model(path: KeyPath) -> bool:
    return len(path) == 2 and path[0] == "model"


def _duplicate(path: KeyPath, merging: Merging) -> Problem:
    """Name the earlier file that has the table; one that writes it out before one that merely implies it."""
    earlier = merging.files[: merging.files.index(merging.file)]
    found = [(other.name, position) for other in earlier if (position := locate(other.text).get(path)) is not None]
    name, position = next((hit for hit in found if hit[1].explicit), found[0])
    return Problem(path, f"{name}:{position.line} has it too; keep one of them", file=merging.file.name)


def _read_one(root: Path, name: str, problems: list[Problem]) -> ManifestFile:
    try:
        content = (root / name).read_bytes()
    except OSError as error:
        problems.append(Problem((), f"{error.strerror}; make it readable", file=name))
        return ManifestFile(name, "", {})
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problems.append(Problem((), "TOML: this is not UTF-8; save the file as UTF-8", file=name, line=line))
        return ManifestFile(name, "", {})
    try:
        return ManifestFile(name, text, tomli.loads(text))
    except tomli.TOMLDecodeError as error:
        words = error.msg[:1].lower() + error.msg[1:]
        text_of = f"TOML: {words} (column {error.colno}); correct the TOML on or before this line"
        problems.append(Problem((), text_of, file=name, line=error.lineno))
        return ManifestFile(name, text, {})
