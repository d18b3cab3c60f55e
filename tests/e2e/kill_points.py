"""Kills a process of its own accord, at the n-th time that it is about to alter a file below some folder.

A random moment seldom falls between two writes that follow each other within a millisecond; these do. Installed as
sitecustomize in the processes of doit alone. `KILL_AT` is FOLDER,NUMBER,HOW with HOW one of `before` (the file is as it
was), `torn` (the file is open and has a part of its content), and the path of another file, which is altered then: the
process goes on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

VARIABLE = "KILL_AT"
ALTERS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install(folder: str, number: int, how: str) -> None:
    """Strike at the `number`-th alteration below `folder`."""
    left = number
    inside = _absolute(folder) + os.sep

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left <= 0 or not _alters(event, arguments):
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)) or not _absolute(path).startswith(inside):
            return
        left -= 1
        if not left:
            _strike(path if event == "open" else None, how)

    sys.addaudithook(look)


def _alters(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        return isinstance(arguments[2], int) and bool(arguments[2] & WRITES)
    return event in ALTERS


def _strike(opened: str | bytes | os.PathLike[str] | None, how: str) -> None:
    if how not in ("before", "torn"):
        path = Path(how)
        path.write_bytes(path.read_bytes()[:-1] + b"\x13")
        return
    if opened is not None and how == "torn":
        descriptor = os.open(opened, os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, b"a part of what was to come")
    os.kill(os.getpid(), signal.SIGKILL)


def _absolute(path: str | bytes | os.PathLike[str]) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - Path.resolve looks at the disk


def written(folder: Path) -> str:
    """Write the hook into `folder`; return it as the value of PYTHONPATH."""
    folder.mkdir()
    here = str(Path(__file__).parent)
    (folder / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"if 'doit' in sys.orig_argv and os.environ.get({VARIABLE!r}):\n"
        f"    sys.path.append({here!r})\n"
        "    import kill_points\n"
        f"    sys.path.remove({here!r})\n"
        f"    place, number, how = os.environ[{VARIABLE!r}].rsplit(',', 2)\n"
        "    kill_points.install(place, int(number), how)\n"
    )
    return str(folder)
