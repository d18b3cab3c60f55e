"""User code reads declared files only: a guard over it, for whatever runs the user's own Python functions.

A step's key covers the files that the manifest declares. Code that read another one would give results that no key
knows of, so reading it is an error while the guard is on. The guard is an audit hook (PEP 578): it sees whatever
Python opens (`open`, `os.open`, `numpy.load`, `sqlite3`, imports, …), not what a C library opens by itself (h5py,
TensorFlow's readers, soundfile given a path) nor what a child process does; docs/manifest.md says so.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from quantbuild.errors import StepError
from quantbuild.from_source import run_from_source

REFERENCE_PATTERN = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
"""``package.module:function``."""

# Where the build's own temporary files are: nothing there outlives the step.
_SCRATCH = "build/.scratch"
_MAGIC = re.compile(r"[*?\[]")


class _Guard:
    """One period in which reads under `root` are checked; keeps the first that was not declared."""

    def __init__(self, root: Path, declared: Sequence[str], place: str, remedy: str = "") -> None:
        self._roots = {os.path.abspath(root), os.path.realpath(root)}  # noqa: PTH100 - Path.resolve is not lexical
        self._place = place
        self._remedy = remedy
        installed = [below for below in map(self._below_root, installed_folders()) if below]
        self._allowed = [_parts(pattern) for pattern in (*declared, _SCRATCH, *installed)]
        self.violation: StepError | None = None

    def check(self, path: str) -> None:
        """Raise StepError if `path` is under the root and not declared."""
        name = self.undeclared(path)
        if name is None:
            return
        error = StepError(
            f'{self._place}: reads "{name}", which is not declared; {self._remedy.format(name)}, '
            "since a result may depend on declared files alone"
        )
        self.violation = self.violation or error
        raise error

    def undeclared(self, path: str) -> str | None:
        """Return `path` relative to the root if it is there and not declared, by its name or by where it leads."""
        names = [name for name in map(self._below_root, _spellings(path)) if name]
        if any(_matches(_parts(name), allowed) for name in names for allowed in self._allowed):
            return None
        return names[0] if names else None

    def _below_root(self, path: str) -> str | None:
        for root in self._roots:
            if path.startswith(root + os.sep):
                return path[len(root) + 1 :].replace(os.sep, "/")
        return None


_active: _Guard | None = None


@contextlib.contextmanager
def only_declared(
    root: Path, declared: Sequence[str], *, place: str, remedy: str = 'add "{}" to its inputs'
) -> Iterator[None]:
    """While it lasts, reading a file under `root` that no pattern of `declared` matches raises StepError.

    Patterns are relative to `root`: a file, a folder (with all below it), or a glob in which ``**`` is any number
    of folders. Code that catches the error does not hide it: it is raised again at the end. Not to be nested.
    `remedy` is what the error advises, with {} for the file.
    """
    global _active  # noqa: PLW0603 - an audit hook is the process's own and can never be removed
    assert _active is None, "one guard at a time"
    _install_hook()
    guard = _active = _Guard(root, declared, place, remedy)
    try:
        yield
    except StepError:
        raise
    except Exception:
        if guard.violation is None:
            raise
    finally:
        _active = None
    if guard.violation is not None:
        raise guard.violation


def module_file(reference: str) -> str:
    """Return the file of ``package.module:function``, relative to the root."""
    return f"{reference.partition(':')[0].replace('.', '/')}.py"


def code_path(reference: str) -> str:
    """Return the file of ``module:function``; of ``package.module:function`` the package's whole folder."""
    package, dot, _ = reference.partition(":")[0].partition(".")
    return package if dot else module_file(reference)


def import_function(reference: str, root: Path, *, place: str) -> Callable[..., Any]:
    """Import ``package.module:function`` from under `root`, anew, and return the function. Raises StepError.

    The modules under `root` that an earlier step imported are dropped first: otherwise the guard would not see
    this step's code read them. Whatever the module raises while it is imported passes through.
    """
    name, _, function = reference.partition(":")
    run_from_source(root, installed_folders())
    _forget_modules(root, name)
    with _on_path(root):
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise StepError(f"{place}: cannot import {name} ({error}); put it under the root or install it") from error
    expected = Path(root, module_file(reference))
    if module.__file__ is None or not expected.is_file() or not expected.samefile(module.__file__):
        raise StepError(f"{place}: {name} is not {module_file(reference)} but an installed module; rename the file")
    found = getattr(module, function, None)
    if not callable(found):
        raise StepError(f"{place}: {module_file(reference)} has no function {function}; name one it has")
    return found  # type: ignore[no-any-return]


def fixed_part(pattern: str) -> str:
    """Return what of a pattern names one path: ``data/clips/**`` gives ``data/clips``, an exact file itself.

    A step's inputs follow from the manifest alone, so a pattern stands for the folder it begins with, whose whole
    tree is digested: a file that is added or removed there is noticed, if at times one too many.
    """
    parts = pattern.split("/")
    magic = next((place for place, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
    return "/".join(parts[:magic])


def pattern_problem(pattern: str) -> str | None:
    """Return what is wrong with a declared pattern, with the remedy; None where nothing is."""
    if pattern.startswith("/") or re.match(r"[A-Za-z]:|\\", pattern) or ".." in pattern.split("/"):
        return f'"{pattern}" is not below the root; write it relative to the workspace root'
    if fixed_part(pattern) in ("", "."):
        return f'"{pattern}" stands for the whole workspace; begin it with a folder'
    return None


@contextlib.contextmanager
def _on_path(root: Path) -> Iterator[None]:
    """Let `root` be the last place that modules are looked for in. It stays one while the worker lives."""
    importlib.invalidate_caches()
    if str(root) not in sys.path:
        sys.path.append(str(root))
        try:
            yield
        finally:
            sys.path.remove(str(root))
    else:
        yield


def _forget_modules(root: Path, name: str) -> None:
    """Drop what was imported from below `root`, and a module of that name from another workspace."""
    guard = _Guard(root, (), "")
    elsewhere = tuple(f"{folder}{os.sep}" for folder in installed_folders())
    for known, module in list(sys.modules.items()):
        # A package without an __init__.py has no file.
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if known == "__main__" or not isinstance(file, str):
            continue
        same_name = known == name or name.startswith(f"{known}.")
        if guard.undeclared(file) or (same_name and not file.startswith(elsewhere)):
            del sys.modules[known]


@functools.cache
def installed_folders() -> frozenset[str]:
    """Return where installed code lies: it may be below a root, as an environment in .venv or quantbuild's checkout."""
    folders = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), str(Path(__file__).parent)}
    return frozenset(os.path.abspath(folder) for folder in folders)  # noqa: PTH100


@functools.cache
def _install_hook() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active is None:
        return
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or not _reads(flags):
            return  # a descriptor was checked when it was opened
        for place in _meant(os.fsdecode(path), by_os_open=mode is None):
            if not os.path.isdir(place):  # noqa: PTH112 - a text is at hand, and this runs for every file opened
                _active.check(place)
    elif event == "sqlite3.connect":
        database = os.fsdecode(arguments[0])
        if database not in ("", ":memory:"):
            _active.check(unquote(urlsplit(database).path) if database.startswith("file:") else database)


def _reads(flags: int) -> bool:
    """Whether a file opened so gives what it held before."""
    only_written = (flags & (os.O_WRONLY | os.O_RDWR)) == os.O_WRONLY
    new = os.O_CREAT | os.O_EXCL
    folder = flags & getattr(os, "O_DIRECTORY", 0)
    return not (only_written or folder or flags & os.O_TRUNC or flags & new == new)


def _meant(path: str, *, by_os_open: bool) -> list[str]:
    """Return the paths that an event's path can stand for.

    `os.open` has `dir_fd`, which the event does not tell: `shutil.rmtree` and with it `TemporaryDirectory` name what
    lies in a folder outside the root by its bare name. So a relative path is looked for in every open folder.
    """
    if not by_os_open or os.path.isabs(path):  # noqa: PTH117 - as above
        return [path]
    places = [path, *(os.path.join(folder, path) for folder in _open_folders())]  # noqa: PTH118 - as above
    return [place for place in places if os.path.lexists(place)] or [path]


def _open_folders() -> list[str]:
    """Return the folders this process has descriptors of; none where there is no /proc."""
    found = []
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - as above
            with contextlib.suppress(OSError):
                folder = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - as above
                if os.path.isdir(folder):  # noqa: PTH112 - as above
                    found.append(folder)
    return found


def _spellings(path: str) -> tuple[str, str]:
    """Return the path as it is written and the one its links lead to; of a .pyc, its source's."""
    if path.endswith(".pyc"):
        with contextlib.suppress(ValueError, NotImplementedError):
            path = importlib.util.source_from_cache(path)
    return os.path.abspath(path), os.path.realpath(path)  # noqa: PTH100 - Path.resolve is not lexical


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _matches(name: list[str], pattern: list[str]) -> bool:
    """Whether a declared pattern matches a file, itself or as one below a folder."""
    if not pattern:
        return True
    if not name:
        return False
    first, *rest = pattern
    if first == "**":
        return _matches(name, rest) or _matches(name[1:], pattern)
    return (name[0] == first or fnmatch.fnmatchcase(name[0], first)) and _matches(name[1:], rest)
