"""How often a file is opened, by whichever process: inotify (Linux)."""

from __future__ import annotations

import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_ACCESS, IN_CLOSE_NOWRITE, IN_OPEN = 0x1, 0x10, 0x20
_EVENT = struct.Struct("iIII")


@contextmanager
def counted_opens(path: Path) -> Iterator[list[int]]:
    """Count how often `path` is opened while it lasts; the list holds the one number, whole at the end."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    # Equal events in a row are told once, so reads and closes are watched as well: they come between two opens.
    watched = IN_OPEN | IN_ACCESS | IN_CLOSE_NOWRITE
    if descriptor < 0 or libc.inotify_add_watch(descriptor, os.fsencode(path), watched) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    counted, ended = [0], threading.Event()

    def read() -> None:
        while True:
            last = ended.is_set()
            if select.select([descriptor], [], [], 0 if last else 0.05)[0]:
                events = os.read(descriptor, 65536)
                masks = [_EVENT.unpack_from(events, at)[1] for at in range(0, len(events), _EVENT.size)]
                counted[0] += sum(bool(mask & IN_OPEN) for mask in masks)
            elif last:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield counted
    finally:
        ended.set()
        reader.join()
        os.close(descriptor)
