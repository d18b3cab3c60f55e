"""The second level: GET and PUT of ``/ac/KEY`` and ``/cas/SHA256`` on an HTTP server (nginx with dav, bazel-remote, …).

Whatever goes wrong costs one warning, and the rest of the build goes on without the remote: what passes by itself
(a lost connection, status 500 to 504) is tried three times, what takes too long is not waited for again. The token
comes from the environment, goes to this server's origin alone, and is never logged.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from quantbuild.cache import action_result
from quantbuild.digests import Digest

if TYPE_CHECKING:
    import urllib3

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
"""How long a connection may be silent. A transfer that has lasted as long must have kept up `SLOWEST`."""
SLOWEST_BYTES_PER_SECOND = 4096
ATTEMPTS = 3
PAUSE_SECONDS = 0.2
MOST_ACTION_BYTES = 1 << 20
"""An ActionResult has a hundred bytes for each output; a longer answer is none."""
TRANSIENT = (500, 502, 503, 504)
TOO_LARGE = 413
_PIECE = 1 << 20

Result = TypeVar("Result")


class _Trouble(Exception):  # noqa: N818 - it is no error of anybody's: the build goes on
    """Why the server cannot be used, in a few words."""


class _Transient(_Trouble):
    """Trouble that may have passed the next time."""


class _Busy(_Transient):
    """The server answers, but not yet with what was asked for."""


class RemoteCache:
    """One server. Reads only, unless `upload`."""

    def __init__(self, address: str, *, upload: bool, token: str | None, warn: Callable[[str], None]) -> None:
        self._address = address.rstrip("/")
        self._upload = upload
        self._token = token
        self._warn = warn
        self._lock = threading.Lock()
        self._readable = True
        self._made: urllib3.PoolManager | None = None

    @property
    def uploads(self) -> bool:
        """Whether results are sent: asked for, and not refused so far."""
        return self._upload and self._readable

    def get_action(self, key: str) -> bytes | None:
        """Return the value under ``/ac/KEY``, None where there is none or the server cannot be used."""
        value = bytearray()

        def collect() -> bool:
            value.clear()
            return self._get(f"/ac/{key}", value.extend, MOST_ACTION_BYTES)

        if not self._read(collect):
            return None
        try:
            action_result.decode(bytes(value))
        except ValueError:
            self._warn("cache: the server answers with something that is no action's result; it is made anew")
            return None
        return bytes(value)

    def fetch(self, digest: Digest, target: Path) -> bool:
        """Stream a blob to `target`, hashing it on the way; False where it cannot be had or does not match its name.

        Raises:
            OSError: `target` cannot be written.
        """
        found = hashlib.sha256()

        def collect() -> bool:
            nonlocal found
            found = hashlib.sha256()
            with target.open("wb") as out:

                def add(piece: bytes) -> None:
                    found.update(piece)
                    out.write(piece)

                return self._get(f"/cas/{digest.sha256}", add, digest.size_bytes)

        if not self._read(collect):
            target.unlink(missing_ok=True)
            return False
        if found.hexdigest() != digest.sha256:
            self._warn(f"cache: the server's blob {digest.sha256[:12]} does not match its name; it is made anew")
            target.unlink(missing_ok=True)
            return False
        return True

    def put_file(self, digest: Digest, content: Path) -> bool:
        """Send a blob; whether the server has it now."""
        with content.open("rb") as file:
            return self._put(f"/cas/{digest.sha256}", file, digest.size_bytes)

    def put_bytes(self, sha256: str, content: bytes) -> bool:
        """Send a small blob; whether the server has it now."""
        return self._put(f"/cas/{sha256}", content, len(content))

    def put_action(self, key: str, value: bytes) -> bool:
        """Send an action; its blobs must be there before."""
        return self._put(f"/ac/{key}", value, len(value))

    # One request, tried again where that may help ------------------------------------------------------------------

    def _read(self, collect: Callable[[], bool]) -> bool:
        if not self._readable:
            return False
        try:
            return _attempted(collect)
        except _Trouble as trouble:
            self._give_up(trouble)
            return False

    def _get(self, path: str, add: Callable[[bytes], object], most_bytes: int) -> bool:
        """Pass the body to `add` piece by piece; False where the server has nothing there.

        A body longer than `most_bytes` is cut off just behind: it is no answer to what was asked.
        """
        response = self._request("GET", path)
        try:
            if response.status == 404:
                return False
            _check_status("GET", path, response.status)
            _stream(response, add, most_bytes)
        finally:
            response.release_conn()
        return True

    def _put(self, path: str, body: IO[bytes] | bytes, size_bytes: int) -> bool:
        if not self.uploads:
            return False

        def send() -> int:
            if not isinstance(body, bytes):
                body.seek(0)
            response = self._request("PUT", path, body=body, headers={"Content-Length": str(size_bytes)})
            try:
                if response.status in TRANSIENT:
                    raise _Busy(f"status {response.status}")
                response.drain_conn()
                return int(response.status)
            finally:
                response.release_conn()

        try:
            status = _attempted(send)
        except _Busy as trouble:
            self._stop_uploads(str(trouble))
            return False
        except _Trouble as trouble:
            self._give_up(trouble)
            return False
        if status in (200, 201, 204):
            return True
        if status == TOO_LARGE:  # others may be small enough
            self._warn(f"cache: the server takes no file of this size (status {status}); it stays on this machine")
        else:
            self._stop_uploads(f"status {status}")
        return False

    def _request(
        self, method: str, path: str, *, body: IO[bytes] | bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        pool = self._pool()
        try:
            return pool.request(
                method,
                f"{self._address}{path}",
                body=body,
                headers={**pool.headers, **(headers or {})},
                redirect=False,
                retries=False,
                preload_content=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise _trouble_of(error) from error

    def _pool(self) -> urllib3.PoolManager:
        import urllib3

        with self._lock:
            if self._made is None:
                headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
                self._made = urllib3.PoolManager(maxsize=8, headers=headers, timeout=timeout)
            return self._made

    def _give_up(self, trouble: _Trouble) -> None:
        with self._lock:
            told, self._readable = not self._readable, False
        if not told:
            self._warn(f"cache: the server cannot be used ({trouble}); this build goes on without it")

    def _stop_uploads(self, why: str) -> None:
        with self._lock:
            told, self._upload = not self._upload, False
        if not told:
            self._warn(f"cache: the server refuses uploads ({why}); results stay on this machine")


def _attempted(attempt: Callable[[], Result]) -> Result:
    """Return what `attempt` does, tried again where its trouble may have passed. Raises the last _Trouble."""
    for number in range(1, ATTEMPTS):
        try:
            return attempt()
        except _Transient:
            time.sleep(PAUSE_SECONDS * 2 ** (number - 1))
    return attempt()


def _check_status(method: str, path: str, status: int) -> None:
    if status == 200:
        return
    text = f"{method} {path.rpartition('/')[0]}/: status {status}"
    raise _Transient(text) if status in TRANSIENT else _Trouble(text)


def _stream(response: urllib3.BaseHTTPResponse, add: Callable[[bytes], object], most_bytes: int) -> None:
    import urllib3

    started = time.monotonic()
    count = 0
    while count <= most_bytes:
        try:
            piece = response.read1(_PIECE)  # what there is: `read` would wait for all of it, for hours if need be
        except urllib3.exceptions.HTTPError as error:
            raise _trouble_of(error) from error
        if not piece:
            return
        add(piece)
        count += len(piece)
        seconds = time.monotonic() - started
        if seconds > READ_SECONDS and count < seconds * SLOWEST_BYTES_PER_SECOND:
            raise _Trouble(f"too slow: {count} bytes in {seconds:.0f} s")
    response.close()


def _trouble_of(error: Exception) -> _Trouble:
    """Return a library's error as trouble, by its name alone: its text may hold an address."""
    import urllib3

    name = type(error).__name__
    return _Trouble(name) if isinstance(error, urllib3.exceptions.TimeoutError) else _Transient(name)
