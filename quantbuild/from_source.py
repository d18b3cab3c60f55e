"""The user's modules are run from their sources, never from compiled files.

Python takes a compiled file for that of a source with the same size and the same second of change. A build that follows
an edit within a second would run the old code under the new code's key. And what compiling leaves beside the sources
is no edit of the user's.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping
from importlib.abc import PathEntryFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, SourceFileLoader
from pathlib import Path


class _FromSource(SourceFileLoader):
    def path_stats(self, path: str) -> Mapping[str, float]:
        """Keep Python from looking for a compiled file, and from writing one."""
        raise OSError(f"{path}: no compiled file of it counts")


@functools.cache
def run_from_source(root: Path, installed: frozenset[str]) -> None:
    """Let modules below `root` be read from their sources from now on; those in the folders `installed` as ever."""
    finder = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_FromSource, SOURCE_SUFFIXES))
    root_name = os.path.abspath(root)  # noqa: PTH100 - lexical, as the entries of sys.path are

    def is_the_users(folder: str) -> bool:
        return _is_below(folder, root_name) and not any(_is_below(folder, place) for place in installed)

    def hook(folder: str) -> PathEntryFinder:
        if not is_the_users(folder):
            raise ImportError
        return finder(folder)

    sys.path_hooks.insert(0, hook)
    for folder in [known for known in sys.path_importer_cache if is_the_users(known)]:
        del sys.path_importer_cache[folder]


def _is_below(path: str, folder: str) -> bool:
    return f"{path}{os.sep}".startswith(f"{folder}{os.sep}")
