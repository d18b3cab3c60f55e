"""Content digests of files and folders through one stat cache, shared by every step of a build.

A file is hashed again only when size, mtime, ctime or inode differ from the entry (redo's and git's rule; ctime
catches an edit whose mtime was put back). An entry whose ctime is so close to the moment of hashing that a later write
could carry the same stamp is "racy" (git's word): it is hashed once more the next time.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from quantbuild import aside

# Linux stamps files with the kernel's tick (1 to 10 ms); twice the coarsest is safe and still cheap.
RACY_WINDOW_NS = 20_000_000
CACHE_SCHEMA = 1


class Digest(NamedTuple):
    """The sha256 (hexadecimal) and size in bytes of a file; of a folder, of its tree listing and the sum of sizes."""

    sha256: str
    size_bytes: int


class Stamp(NamedTuple):
    """What must be unchanged for a digest to be believed without reading the file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class _Entry(NamedTuple):
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str
    racy: bool


class _CacheFile(msgspec.Struct):
    schema: int
    files: dict[str, _Entry]


def sha256_of_bytes(data: bytes) -> str:
    """Return the hexadecimal sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: str | Path) -> str:
    """Return the hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as file:  # noqa: PTH123 - called once per file; Path.open costs twice as much
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """Digests of paths relative to `root`, remembered in `cache_file` between builds."""

    def __init__(self, root: Path, cache_file: Path) -> None:
        # Under doit the root is the current folder: relative paths save a join at each of thousands of looks.
        self._root = "" if root == Path.cwd() else str(root)
        self._cache_file = cache_file
        self._trees: dict[str, tuple[Digest, str]] = {}
        self._changed = False
        self.hashed_files = 0

    @functools.cached_property
    def _entries(self) -> dict[str, _Entry]:
        return _load(self._cache_file)

    def digest(self, path: str) -> Digest | None:
        """Return the digest of the file or folder at `path`, None where there is none.

        A folder's digest covers the sorted relative names and the digests of all files below it; links are followed.

        Raises:
            OSError: the file exists and cannot be read, or has a name in no UTF-8.
        """
        full = os.path.join(self._root, path) if self._root else path  # noqa: PTH118 - the hot path of a null build
        try:
            status = os.stat(full)  # noqa: PTH116 - same
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISDIR(status.st_mode):
            return self._tree(path)[0]
        return self._file(path, full, status)

    def tree_listing(self, path: str) -> str | None:
        """Return a folder's listing, one line ``SHA256 NAME`` a file, None if it is no folder."""
        if not Path(self._root, path).is_dir():
            return None
        return self._tree(path)[1]

    def files_below(self, folder: str) -> list[str]:
        """Return the paths of all files below `folder`, sorted; empty where it is no folder."""
        full = os.path.join(self._root, folder)  # noqa: PTH118
        return [f"{folder}/{name}" for name in names_below(full)] if os.path.isdir(full) else []  # noqa: PTH112

    def stamps(self, path: str) -> tuple[tuple[str, Stamp], ...]:
        """Return the stamp of every file at or below `path`, to see whether a step's input was edited while it ran."""
        full = Path(self._root, path)
        if full.is_dir():
            # A dangling link is no content, as in `digest`.
            return tuple(
                (name, _stamp((full / name).stat())) for name in names_below(str(full)) if (full / name).exists()
            )
        try:
            return (("", _stamp(full.stat())),)
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def remember(self, path: str, sha256: str) -> None:
        """Note the digest of a file that the build itself has just put in place."""
        status = os.stat(os.path.join(self._root, path))  # noqa: PTH116, PTH118
        self._entries[path] = _Entry(*_stamp(status), sha256, racy=False)
        self._changed = True

    def believed_stamp(self, path: str) -> Stamp | None:
        """Return the stamp under which a file's digest is known, None for a folder or where it could be racy."""
        entry = self._entries.get(path)
        return None if entry is None or entry.racy else Stamp(*entry[:4])

    def forget_tree(self, path: str) -> None:
        """Look at a folder anew: within one build a tree is walked once, unless somebody must be sure."""
        self._trees.pop(path, None)

    def save(self) -> None:
        """Write the cache if anything in it changed."""
        if not self._changed:
            return
        data = msgspec.msgpack.encode(_CacheFile(schema=CACHE_SCHEMA, files=dict(self._entries)))
        self._cache_file.parent.mkdir(parents=True, exist_ok=True)
        aside.replace(self._cache_file, data)
        self._changed = False

    def _file(self, path: str, full: str, status: os.stat_result) -> Digest:
        entry = self._entries.get(path)
        if (
            entry is not None
            and entry.size == status.st_size
            and entry.mtime_ns == status.st_mtime_ns
            and entry.ctime_ns == status.st_ctime_ns
            and entry.inode == status.st_ino
            and not entry.racy
        ):
            return Digest(entry.sha256, entry.size)
        started_ns = time.time_ns()
        sha256 = sha256_of_file(full)
        after = os.stat(full)  # noqa: PTH116
        racy = _stamp(after) != _stamp(status) or after.st_ctime_ns > started_ns - RACY_WINDOW_NS
        self._entries[path] = _Entry(*_stamp(after), sha256, racy)
        self._changed = True
        self.hashed_files += 1
        return Digest(sha256, after.st_size)

    def _tree(self, path: str) -> tuple[Digest, str]:
        known = self._trees.get(path)
        if known is not None:
            return known
        lines: list[str] = []
        total = 0
        for name in names_below(os.path.join(self._root, path)):  # noqa: PTH118
            _check_name(f"{path}/{name}")
            digest = self.digest(f"{path}/{name}")
            if digest is None:  # deleted between the listing and the look: the next walk settles it
                continue
            lines.append(f"{digest.sha256} {name}\n")
            total += digest.size_bytes
        listing = "".join(lines)
        result = Digest(sha256_of_bytes(b"tree\n" + listing.encode()), total), listing
        self._trees[path] = result
        return result


def names_below(folder: str, prefix: str = "") -> Iterator[str]:
    """Yield the names of all files below `folder`, relative to it, in sorted order, but for Python's compiled ones.

    Links are followed; one that leads nowhere is yielded. Whoever reads a folder that is an input must see what its
    digest covers, and so lists it by this.
    """
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.is_dir():
            if entry.name == "__pycache__":  # running the user's code may write there: no edit of an input
                continue
            yield from names_below(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _check_name(path: str) -> None:
    """Refuse a name that is no UTF-8: no key, record or message could hold it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        named = path.encode("utf-8", "backslashreplace").decode()
        raise OSError(errno.EILSEQ, "the file's name is not UTF-8, rename it", named) from None


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _load(cache_file: Path) -> dict[str, _Entry]:
    try:
        content = msgspec.msgpack.decode(cache_file.read_bytes(), type=_CacheFile)
    except (FileNotFoundError, ValueError):
        # A lost or damaged cache costs one pass of hashing and decides nothing.
        return {}
    return content.files if content.schema == CACHE_SCHEMA else {}
