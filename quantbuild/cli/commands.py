"""What the commands share: the parser that each adds itself to, the workspace they are called in, words."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from quantbuild.errors import UsageError

if TYPE_CHECKING:
    from quantbuild.build import Build

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - it has no public name

EPILOG = "exit codes: 0 done; 1 a step or a gate failed; 2 manifest or usage error"


def build_here() -> Build:
    """Return a build of the workspace in the current folder, to look at and not to run."""
    from quantbuild.session import Session
    from quantbuild.watcher import Watcher

    return Session(workspace_root(), Watcher()).build


def workspace_root() -> Path:
    """Return the current folder. Raises UsageError where it is no workspace."""
    root = Path.cwd()
    if not (root / "manifests").is_dir():
        raise UsageError(f"{root.name}: no folder manifests/ here; run quantbuild where dodo.py is")
    return root


def warn(text: str) -> None:
    """Print on standard error."""
    print(text, file=sys.stderr)


def meant(name: str, known: Sequence[str], otherwise: str = "`quantbuild plan` lists them") -> str:
    """Return the known name that was most likely meant, as a question; else what to do otherwise."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else otherwise
