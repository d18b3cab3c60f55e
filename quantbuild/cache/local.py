"""The first level: a folder with ``ac/KEY`` and ``cas/SHA256``, safe for many builds at once.

Every entry is written aside and renamed. A blob is hashed whenever it is read; one whose bytes do not match its name is
taken away and counts as a miss. Use is noted in a file's mtime, which is what `gc` goes by.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

_PIECE = 1 << 20
# An entry that nothing was written to for so long belongs to a build that was killed.
ASIDE_SECONDS = 3600.0


class Usage(NamedTuple):
    """How much a local cache holds."""

    actions: int
    blobs: int
    size_bytes: int


class LocalCache:
    """One folder; made when first written to. `warn` is told what was found damaged."""

    def __init__(self, folder: Path, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._warn = warn

    def get_action(self, key: str) -> bytes | None:
        """Return the value under ``ac/KEY``, None where there is none."""
        path = self.folder / "ac" / key
        try:
            value = path.read_bytes()
        except OSError:
            return None
        _note_use(path)
        return value

    def put_action(self, key: str, value: bytes) -> None:
        """Keep `value` under ``ac/KEY``; the blobs it names must be there before."""
        self._put("ac", key, lambda aside: aside.write_bytes(value))

    def fetch(self, sha256: str, target: Path) -> bool:
        """Copy a blob to `target`, hashing it on the way; False where it is missing, damaged or cannot be read.

        Raises:
            OSError: `target` cannot be written.
        """
        path = self.folder / "cas" / sha256
        try:
            source = path.open("rb")
        except FileNotFoundError:
            return False
        except OSError as error:
            self._warn(f"cache: blob {sha256[:12]} cannot be read ({error.strerror}); what it holds is made anew")
            return False
        with source, target.open("wb") as out:
            found = _copy(source, out)
        if found != sha256:
            self._warn(f"cache: blob {sha256[:12]} is damaged in {self.folder.name}/cas; it is made anew")
            with contextlib.suppress(OSError):  # of a read-only cache nothing can be taken away
                path.unlink()
            target.unlink(missing_ok=True)
            return False
        _note_use(path)
        return True

    def has(self, sha256: str) -> bool:
        """Whether a blob of this name is there; whether its bytes are right is found when it is read."""
        return (self.folder / "cas" / sha256).is_file()

    def put_file(self, sha256: str, content: Path) -> None:
        """Keep a copy of the file `content`, whose digest is `sha256`."""
        if self.has(sha256):
            _note_use(self.folder / "cas" / sha256)
            return

        def write(aside: Path) -> None:
            with content.open("rb") as source, aside.open("wb") as out:
                if _copy(source, out) != sha256:
                    raise OSError(f"{content.name} changed while it was copied to the cache")

        self._put("cas", sha256, write)

    def put_bytes(self, sha256: str, content: bytes) -> None:
        """Keep a small blob whose digest is `sha256`."""
        if not self.has(sha256):
            self._put("cas", sha256, lambda aside: aside.write_bytes(content))

    @contextlib.contextmanager
    def key_lock(self, key: str) -> Iterator[None]:
        """Hold the lock of a key among all processes that use this folder: the same action runs once."""
        path = self.folder / "locks" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _is_at(file, path):  # else it was swept while we waited, and others lock another file
                    yield
                    return

    def usage(self) -> Usage:
        """Return how many actions and blobs there are, and their bytes."""
        actions, blobs = self._entries("ac"), self._entries("cas")
        total = sum(status.st_size for _, status in (*actions, *blobs))
        return Usage(len(actions), len(blobs), total)

    def collect(self, max_size_bytes: int) -> Usage:
        """Remove the least recently used entries until at most `max_size_bytes` are held; return what is left.

        Safe beside a running build: a blob that goes while it is copied is still read to its end, and one that is
        missing is a miss. Locks nobody holds are swept too, and what killed builds were writing.
        """
        entries = sorted((*self._entries("ac"), *self._entries("cas")), key=lambda entry: entry[1].st_mtime_ns)
        total = sum(status.st_size for _, status in entries)
        for path, status in entries:
            if total <= max_size_bytes:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size
        self._sweep_locks()
        self._sweep_asides()
        return self.usage()

    def _sweep_locks(self) -> None:
        for path, _ in self._entries("locks"):
            with contextlib.suppress(OSError), path.open("a") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)

    def _sweep_asides(self) -> None:
        for path, status in self._entries("tmp"):
            if status.st_mtime < time.time() - ASIDE_SECONDS:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _entries(self, part: str) -> list[tuple[Path, os.stat_result]]:
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / part).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    found.append((path, path.stat()))
        return found

    def _put(self, part: str, name: str, write: Callable[[Path], object]) -> None:
        place = self.folder / part
        place.mkdir(parents=True, exist_ok=True)
        aside_folder = self.folder / "tmp"
        aside_folder.mkdir(exist_ok=True)
        aside = aside_folder / f"{name[:16]}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            write(aside)
            aside.replace(place / name)
        finally:
            aside.unlink(missing_ok=True)


def _copy(source: BinaryIO, out: BinaryIO) -> str:
    """Copy all bytes; return their sha256."""
    digest = hashlib.sha256()
    while piece := source.read(_PIECE):
        digest.update(piece)
        out.write(piece)
    return digest.hexdigest()


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _note_use(path: Path) -> None:
    with contextlib.suppress(OSError):  # a read-only cache is used as it is
        os.utime(path)
