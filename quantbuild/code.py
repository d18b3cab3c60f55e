"""Digests of quantbuild's own code: a step's key covers the modules that implement its action, transitively.

A module's data lies beside it under its name, as NAME.json, and counts as part of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from quantbuild import aside
from quantbuild.digests import sha256_of_bytes, sha256_of_file

PACKAGE = "quantbuild"
PACKAGE_FOLDER = Path(__file__).parent
TEMPLATE_USER = "quantbuild.report.page"


class _Module(msgspec.Struct):
    size: int
    mtime_ns: int
    sha256: str
    imports: tuple[str, ...]


class CodeDigests:
    """The digest of any set of modules with all they import inside the package."""

    def __init__(self, cache_file: Path, folder: Path = PACKAGE_FOLDER) -> None:
        self._cache_file = cache_file
        self._folder = folder
        self._known = _load(cache_file)
        self._checked: dict[str, _Module | None] = {}
        self._memo: dict[tuple[str, ...], str] = {}
        self._changed = False

    def digest(self, modules: Iterable[str]) -> str:
        """Return the sha256 over the sorted names and digests of `modules` and of what they import."""
        roots = tuple(modules)
        if roots not in self._memo:
            lines = [f"{name} {sha256}\n" for name, sha256 in sorted(self.closure(roots).items())]
            self._memo[roots] = sha256_of_bytes("".join(lines).encode())
        return self._memo[roots]

    def closure(self, roots: Iterable[str]) -> dict[str, str]:
        """Return module name to sha256 for `roots` and everything they import inside the package."""
        found: dict[str, str] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            module = self._module(name)
            if name == TEMPLATE_USER:
                found |= self._templates()
            if module is not None:
                found[name] = module.sha256
                found |= self._data(name)
                waiting.extend(module.imports)
        return found

    def save(self) -> None:
        """Write the cache if a module was read anew."""
        if not self._changed:
            return
        aside.replace(self._cache_file, msgspec.msgpack.encode(self._known))
        self._changed = False

    def _module(self, name: str) -> _Module | None:
        if name not in self._checked:
            self._checked[name] = self._read(name)
        return self._checked[name]

    def _read(self, name: str) -> _Module | None:
        path = self._path(name)
        if path is None:
            return None
        status = path.stat()
        known = self._known.get(name)
        if known is not None and known.size == status.st_size and known.mtime_ns == status.st_mtime_ns:
            return known
        source = path.read_bytes()
        imports = tuple(sorted(_imports(source, name)))
        module = _Module(status.st_size, status.st_mtime_ns, sha256_of_bytes(source), imports)
        self._known[name] = module
        self._changed = True
        return module

    def _templates(self) -> dict[str, str]:
        """Return path to sha256 of the files that the page is made from: they are code as much as modules are."""
        from quantbuild.report.page import template_files, templates_folder

        folder = templates_folder(self._folder)
        return {str(path.relative_to(folder)): sha256_of_file(path) for path in template_files(folder)}

    def _data(self, name: str) -> dict[str, str]:
        path = self._folder.joinpath(*name.split(".")[1:]).with_suffix(".json")
        return {f"{name}.json": sha256_of_file(path)} if path.is_file() else {}

    def _path(self, name: str) -> Path | None:
        stem = self._folder.joinpath(*name.split(".")[1:])
        for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            if path.is_file():
                return path
        return None


def package_stamp(folder: Path = PACKAGE_FOLDER) -> str:
    """Return a digest of the names, sizes and times of all the package's files and of the report's templates."""
    from quantbuild.report.page import templates_folder

    lines = []
    for top in {str(folder), str(templates_folder(folder))}:
        for path, _, names in os.walk(top):
            for name in names:
                if not name.endswith(".pyc"):
                    status = os.stat(f"{path}/{name}")  # noqa: PTH116 - at the start of every build
                    lines.append(f"{path}/{name} {status.st_size} {status.st_mtime_ns}")
    return sha256_of_bytes("\n".join(sorted(lines)).encode())


def _imports(source: bytes, name: str) -> set[str]:
    """Return the package's modules named in any import of `source`, inside functions too."""
    import ast  # only when a module was edited

    found: set[str] = set()
    for node in ast.walk(ast.parse(source, filename=name)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            # `from quantbuild.tflite import graph` names a module, not an attribute.
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {module for module in found if module.startswith(f"{PACKAGE}.")}


def _load(cache_file: Path) -> dict[str, _Module]:
    try:
        return msgspec.msgpack.decode(cache_file.read_bytes(), type=dict[str, _Module])
    except (FileNotFoundError, ValueError):
        return {}
