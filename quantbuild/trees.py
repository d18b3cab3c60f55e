"""What was in a folder when a step took it as an input, so that `explain` can name the files that differ now.

A key holds a folder's digest alone. Beside the records, a listing is kept by that digest: each file's name with the
beginning of its digest, compressed; a folder of 50,000 pictures takes a megabyte. Losing it loses a word, no decision.
"""

from __future__ import annotations

import contextlib
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from quantbuild import aside
from quantbuild.freshness import Reason, short

MOST_KEPT = 256
MOST_FILES_TOLD = 20
_DIGITS = 12


class Trees:
    """Listings in `folder`, those last used kept; made when first written to."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, sha256: str, listing: str) -> None:
        """Keep the listing (lines of ``SHA256 NAME``) of the folder whose digest is `sha256`.

        Raises:
            OSError: it cannot be written.
        """
        path = self._folder / sha256
        if path.exists():
            path.touch()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        aside.replace(path, encode(listing))
        by_use = sorted(self._folder.iterdir(), key=lambda entry: entry.stat().st_mtime_ns)
        for old in by_use[:-MOST_KEPT]:
            old.unlink(missing_ok=True)

    def listing(self, sha256: str) -> dict[str, str] | None:
        """Return name to the first twelve digits of its digest, None where the folder is not known."""
        with contextlib.suppress(OSError, zlib.error, ValueError):
            content = zlib.decompress((self._folder / sha256).read_bytes())
            found = msgspec.msgpack.decode(content, type=dict[str, bytes])
            return {name: digest.hex() for name, digest in found.items()}
        return None


def encode(listing: str) -> bytes:
    """Return a listing as it is kept."""
    content = {name: bytes.fromhex(digest[:_DIGITS]) for name, digest in parse(listing).items()}
    return zlib.compress(msgspec.msgpack.encode(content))


def parse(listing: str) -> dict[str, str]:
    """Return name to digest of a listing's lines ``SHA256 NAME``."""
    lines = (line.partition(" ") for line in listing.split("\n"))
    return {name: digest for digest, space, name in lines if space and len(digest) == 64}


def file_changes(folder: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Reason]:
    """Yield a reason for each file added, removed, edited or renamed, by name; of very many the first ones.

    `old` and `new` give a digest, or its first twelve digits, by name.
    """
    before, after = ({name: short(digest) for name, digest in each.items()} for each in (old, new))
    gone = {name: digest for name, digest in before.items() if name not in after}
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for name, digest in gone.items():
        by_digest[digest].append(name)
    found: list[tuple[str, Reason]] = []
    for name, digest in after.items():
        path = f"{folder}/{name}"
        if name not in before:
            if not by_digest[digest]:
                found.append((name, Reason("file added", path)))
            else:
                source = by_digest[digest].pop(0)
                del gone[source]
                found.append((name, Reason("file renamed", folder, source, name)))
        elif before[name] != digest:
            found.append((name, Reason("file edited", path, before[name], digest)))
    found += [(name, Reason("file removed", f"{folder}/{name}")) for name in gone]
    found.sort(key=lambda entry: entry[0])
    yield from (reason for _, reason in found[:MOST_FILES_TOLD])
    if len(found) > MOST_FILES_TOLD:
        yield Reason(f"{len(found) - MOST_FILES_TOLD} more files changed", folder)
