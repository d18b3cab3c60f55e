"""What a killed build leaves behind, and taking it away; after a build that ended well there is nothing to look for.

Below build/ every step looks after its own files. In dist/ a variant may stand that was published just before the kill
and that no manifest names any more: so what may stand there is noted before a publication begins.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from quantbuild import aside

STATE_FOLDER = "build/.state"
SCRATCH_FOLDER = "build/.scratch"
DIST_RECORD = f"{STATE_FOLDER}/dist.record.json"
PUBLISHED = f"{STATE_FOLDER}/published.json"

# What `aside` writes to; in dist/ there may be files of the user's.
_ASIDE = {"build": re.compile(r".+\.\d+\.tmp"), "dist": re.compile(r".+\.(tflite|json|d|txt)\.\d+\.tmp")}
# Only what a publication writes: whoever alters the note must not have other files removed.
_PUBLISHED_PATH = re.compile(r"dist/[A-Za-z0-9][^/]*(/[A-Za-z0-9][^/]*)?")


class Noted(NamedTuple):
    """The paths that may stand in dist/, and whether the last publication came to its end."""

    paths: frozenset[str]
    complete: bool


def sweep(root: Path) -> None:
    """Take away what a killed build was writing; the workspace's lock must be held.

    A publication that was cut short makes the dist step stale, which then takes away what it had put there.
    """
    shutil.rmtree(root / SCRATCH_FOLDER, ignore_errors=True)
    for folder, pattern in _ASIDE.items():
        for path in (root / folder).rglob("*.tmp"):
            if pattern.fullmatch(path.name) and path.is_file():
                with contextlib.suppress(OSError):
                    path.unlink()
    if not noted(root).complete:
        (root / DIST_RECORD).unlink(missing_ok=True)


def noted(root: Path) -> Noted:
    """Return what was noted of dist/; no paths where there is no note."""
    try:
        content = json.loads((root / PUBLISHED).read_bytes())
        paths = frozenset(path for path in content["paths"] if _PUBLISHED_PATH.fullmatch(path))
        return Noted(paths, complete=content["complete"] is True)
    except FileNotFoundError:
        return Noted(frozenset(), complete=True)
    except (ValueError, TypeError, KeyError):
        return Noted(frozenset(), complete=False)


def note(root: Path, paths: Iterable[str], *, complete: bool) -> None:
    """Note the paths that may stand in dist/, and whether nothing is on its way there.

    Raises:
        OSError: they could not be noted.
    """
    (root / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    content = {"complete": complete, "paths": sorted(paths)}
    aside.replace(root / PUBLISHED, json.dumps(content, indent=1).encode() + b"\n")
