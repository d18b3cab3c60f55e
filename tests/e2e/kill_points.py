"""Kills a process of its own accord, at the n-th time that it is about to alter a file below some folder.

A random moment seldom falls between two writes that follow each other within a millisecond; these do. Installed as
sitecustomize in the processes of doit alone. `KILL_AT` is FOLDER,NUMBER,HOW with HOW one of `before` (the file is as it
was) and `torn` (the file is open and has a part of its content).
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
    """Kill this process at the `number`-th alteration below `folder`."""
    left = number
    inside = _absolute(folder) + os.sep
    ending = False

    def look(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left, ending
        if ending or not (event in ALTERS or (event == "open" and isinstance(arguments[2], int))):
            return
        if event == "open" and not arguments[2] & WRITES:
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(path, (str, bytes, os.PathLike)) or not _absolute(path).startswith(inside):
            return
        left -= 1
        if left:
            return
        ending = True
        if event == "open" and how == "torn":
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(descriptor, b"a part of what was to come")
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


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
