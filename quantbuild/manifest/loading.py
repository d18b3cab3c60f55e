"""Loads the manifests of a workspace: validated data, or every problem at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.building import build
from quantbuild.manifest.context import Context
from quantbuild.manifest.definitions import Cache, Workspace
from quantbuild.manifest.locate import KeyPath, Position, locate
from quantbuild.manifest.plugins import Plugins, installed
from quantbuild.manifest.problems import Problem, key_text, quoted
from quantbuild.manifest.reading import ManifestFile, check_schema, merge, read

CACHE_VARIABLES = {
    "directory": "QUANTBUILD_CACHE_DIR",
    "remote": "QUANTBUILD_CACHE_REMOTE",
    "upload": "QUANTBUILD_CACHE_UPLOAD",
}
"""Environment variables that override `[workspace] cache`; QUANTBUILD_CACHE_TOKEN is read where it is sent."""

_SWITCHES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def load(
    root: Path,
    *,
    plugins: Plugins | None = None,
    environ: Mapping[str, str] | None = None,
    check_files: bool = True,
) -> Workspace:
    """Return what the manifests under `root` say.

    `plugins` defaults to the installed ones, `environ` to the process's. Without `check_files` nothing but the
    manifests themselves need exist. Raises ManifestErrors with every problem, one line each.
    """
    problems: list[Problem] = []
    files = read(root, problems)
    context = Context(
        root=root,
        plugins=plugins or installed(),
        problems=problems,
        check_files=check_files,
        check_references=not problems,
    )
    check_schema(files, problems)
    built = build(merge(files, problems), context)
    cache = _with_environment(built.settings.cache, os.environ if environ is None else environ, problems)
    if problems:
        raise ManifestErrors(_lines(problems, files))
    return Workspace(
        root=root,
        datasets=built.datasets,
        models=built.models,
        devices=built.devices,
        cache=cache,
        files=tuple(file.name for file in files),
    )


def cache_of_environment(environ: Mapping[str, str] | None = None) -> Cache:
    """Return the cache settings that hold outside a workspace: the environment's alone. Raises ManifestErrors."""
    problems: list[Problem] = []
    cache = _with_environment(Cache(), os.environ if environ is None else environ, problems)
    if problems:
        raise ManifestErrors(_lines(problems, []))
    return cache


def _with_environment(cache: Cache, environ: Mapping[str, str], problems: list[Problem]) -> Cache:
    """Return the cache settings with the environment over them; an empty variable is no variable."""
    written = {key: environ[name] for key, name in CACHE_VARIABLES.items() if environ.get(name)}
    changes: dict[str, str | bool] = dict(written)
    if "upload" in written:
        switch = _SWITCHES.get(written["upload"].lower())
        if switch is None:
            text = f"{quoted(written['upload'])} is neither on nor off; write 1 or 0"
            problems.append(Problem((CACHE_VARIABLES["upload"],), text, file="environment"))
        changes["upload"] = bool(switch)
    if not written.get("remote", "http://").startswith(("http://", "https://")):
        text = f"{quoted(written['remote'])} is no address; write one such as http://cache.example:8080"
        problems.append(Problem((CACHE_VARIABLES["remote"],), text, file="environment"))
    return structs.replace(cache, **changes)


def _lines(problems: list[Problem], files: list[ManifestFile]) -> list[str]:
    """Return each problem as ``FILE:LINE: key: problem; remedy``, in the order of the files and their lines."""
    positions = {file.name: locate(file.text) if file.data else {} for file in files}
    placed = []
    for problem in problems:
        file, line = _place(problem, positions)
        key = f"{key_text(problem.path)}: " if problem.path else ""
        place = f"{file}:{line}" if file in positions else file
        placed.append((file, line, f"{place}: {key}{problem.text}"))
    return [text for _, _, text in sorted(dict.fromkeys(placed), key=lambda item: item[:2])]


def _place(problem: Problem, positions: Mapping[str, Mapping[KeyPath, Position]]) -> tuple[str, int]:
    """Return file and line of the longest part of the key that is written anywhere."""
    candidates = {problem.file: positions.get(problem.file, {})} if problem.file is not None else positions
    if problem.line is not None and problem.file is not None:
        return problem.file, problem.line
    for length in range(len(problem.path), 0, -1):
        found = [
            (name, known[problem.path[:length]]) for name, known in candidates.items() if problem.path[:length] in known
        ]
        if found:
            name, position = next((hit for hit in found if hit[1].explicit), found[0])
            return name, position.line
    return next(iter(candidates), ""), 1
