"""Both levels together: look up what an action came to, restore its files, keep what was made."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.cache import action_result
from quantbuild.cache.local import LocalCache
from quantbuild.cache.remote import RemoteCache
from quantbuild.digests import Digest, sha256_of_bytes
from quantbuild.errors import UsageError
from quantbuild.user_folder import user_folder

ENTRY_SCHEMA = 1
ENTRY_NAME = "quantbuild-result.json"
TOKEN_VARIABLE = "QUANTBUILD_CACHE_TOKEN"  # noqa: S105 - the variable's name, not a secret


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What an action came to, besides its files: a blob in the store that the ActionResult names.

    It holds no path: a step of another name with the same key puts the files, by role, into places of its own.
    """

    schema: int
    values: dict[str, Any]
    reasons: tuple[str, ...]


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """An action's result with its files fetched: role to file and digest."""

    entry: Entry
    files: dict[str, tuple[Path, Digest]]


class Cache:
    """The two levels of one build. `warn` is told each new trouble once."""

    def __init__(self, local: LocalCache, remote: RemoteCache | None) -> None:
        self.local = local
        self.remote = remote

    @contextlib.contextmanager
    def key_lock(self, key: str) -> Iterator[None]:
        """Hold the lock of `key`; where the local folder cannot be written, go on without it."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):
                stack.enter_context(self.local.key_lock(key))
            yield

    def restore(self, key: str, scratch: Path, *, share: bool) -> Restored | None:
        """Fetch the result of the action `key` into `scratch`; None where it cannot be had whole.

        With `share` False the remote level is left out: a latency is never served to another machine.
        """
        remote = self.remote if share else None
        for level in (self.local, remote):
            value = level.get_action(key) if level is not None else None
            if value is None:
                continue
            restored = self._fetch_all(value, scratch, remote)
            if restored is not None:
                if level is not self.local:
                    with contextlib.suppress(OSError):
                        self.local.put_action(key, value)
                return restored
        return None

    def keep(self, key: str, entry: Entry, files: Mapping[str, tuple[Path, Digest]], *, share: bool) -> None:
        """Keep what an action came to: blobs first, the action last, so that an action never names what is not there.

        Raises:
            OSError: the local level cannot be written.
        """
        encoded = msgspec.json.encode(entry, order="sorted")
        named = {role: digest for role, (_, digest) in files.items()}
        entry_digest = Digest(sha256_of_bytes(encoded), len(encoded))
        value = action_result.encode({**named, ENTRY_NAME: entry_digest})
        for path, digest in files.values():
            self.local.put_file(digest.sha256, path)
        self.local.put_bytes(entry_digest.sha256, encoded)
        self.local.put_action(key, value)
        if share and self.remote is not None and self.remote.uploads:
            sent = all(self.remote.put_file(digest, path) for path, digest in files.values())
            if sent and self.remote.put_bytes(entry_digest.sha256, encoded):
                self.remote.put_action(key, value)

    def _fetch_all(self, value: bytes, scratch: Path, remote: RemoteCache | None) -> Restored | None:
        try:
            named = action_result.decode(value)
        except ValueError:
            return None
        if ENTRY_NAME not in named:
            return None
        files: dict[str, tuple[Path, Digest]] = {}
        for place, (role, digest) in enumerate(sorted(named.items())):
            target = scratch / f"restored.{place}"
            if not self._fetch(digest, target, remote):
                return None
            files[role] = (target, digest)
        path, _ = files.pop(ENTRY_NAME)
        try:
            entry = msgspec.json.decode(path.read_bytes(), type=Entry)
        except ValueError:
            return None
        return Restored(entry=entry, files=files) if entry.schema == ENTRY_SCHEMA else None

    def _fetch(self, digest: Digest, target: Path, remote: RemoteCache | None) -> bool:
        if self.local.fetch(digest.sha256, target):
            return True
        if remote is None or not remote.fetch(digest, target):
            return False
        with contextlib.suppress(OSError):  # a full or read-only local level: the blob is used all the same
            self.local.put_file(digest.sha256, target)
        return True


def open_cache(
    root: Path, directory: str | None, remote: str | None, *, upload: bool, warn: Callable[[str], None]
) -> Cache:
    """Return the cache that the workspace's settings ask for; the token is read from the environment alone.

    Raises:
        UsageError: there is no folder for it, or the token cannot be sent.
    """
    local = LocalCache(local_folder(root, directory), warn)
    if remote is None:
        return Cache(local, None)
    return Cache(local, RemoteCache(remote, upload=upload, token=_token(), warn=warn))


def local_folder(root: Path, directory: str | None) -> Path:
    """Return the local level's folder: as set, relative to the root, or below the user's cache folder (XDG).

    Raises:
        UsageError: it lies in a home folder that is not to be found.
    """
    try:
        return user_folder() if directory is None else root / Path(directory).expanduser()
    except RuntimeError:
        place = "the cache" if directory is None else f'the cache "{directory}"'
        raise UsageError(f"{place}: no home folder is known; name a folder in QUANTBUILD_CACHE_DIR") from None


def _token() -> str | None:
    """Return the token without what a secret's file ends with. Raises UsageError, which does not tell it."""
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):  # the library's own error would show it
        raise UsageError(f"{TOKEN_VARIABLE}: holds a character that no header can; set it to the token alone")
    return token or None
