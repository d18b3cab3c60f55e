"""One benchmark at a time on a device, whichever builds of this user ask for it: figures taken side by side are wrong.

A lock is a file that the kernel lets go of when its holder ends, however it ends. Nothing removes the file: whoever
waited on a removed one would hold a lock that nobody else sees.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from quantbuild.digests import sha256_of_bytes
from quantbuild.user_folder import user_folder

FOLDER = "devices"
# A holder writes its process id just after it has the lock; until then the file holds that of the one before.
_MOMENT_SECONDS = 0.05

# The threads of this process wait for each other here: the file is for other builds, which are worth a word.
_here: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


@contextlib.contextmanager
def hold(identity: str, *, waiting: Callable[[str], None], without: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the device that `identity` names, among all processes of this user and all their threads.

    `waiting` is told the process id of who has it, before this waits. Where no lock can be kept (a home that is
    read-only), `without` is told why and this goes on.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_here[identity])
        try:
            file = stack.enter_context(_open(identity))
        except (OSError, RuntimeError) as error:
            without(str(error))
        else:
            _take(file, waiting)
        yield


def lock_path(identity: str) -> Path:
    """Return the file that is locked. Raises RuntimeError where the user has no home folder."""
    return user_folder() / FOLDER / f"{sha256_of_bytes(identity.encode())[:16]}.lock"


def _open(identity: str) -> IO[str]:
    path = lock_path(identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+", encoding="utf-8")  # closed in processes that this one starts: none of them holds it


def _take(file: IO[str], waiting: Callable[[str], None]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_MOMENT_SECONDS)
        file.seek(0)
        waiting(file.read().strip() or "unknown")
        fcntl.flock(file, fcntl.LOCK_EX)
    with contextlib.suppress(OSError):  # a full disk costs the next one a name, not the lock
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
