"""The second level: GET and PUT of ``/ac/KEY`` and ``/cas/SHA256`` on an HTTP server (nginx with dav, bazel-remote, …).

Whatever goes wrong costs one warning and the rest of the build goes on without the remote. urllib3 does connections,
time-outs and retries. The token comes from the environment, goes to this server's origin alone, and is never logged.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import urllib3

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
RETRIES = 2
_PIECE = 1 << 20


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
        if not self._readable:
            return None
        import urllib3

        try:
            response = self._pool().request("GET", f"{self._address}/ac/{key}", redirect=False)
        except urllib3.exceptions.HTTPError as error:
            self._give_up(error)
            return None
        if response.status == 200:
            return response.data
        if response.status != 404:
            self._give_up(f"GET /ac/: status {response.status}")
        return None

    def fetch(self, sha256: str, target: Path) -> bool:
        """Stream a blob to `target`, hashing it on the way; False where it cannot be had or does not match its name."""
        if not self._readable:
            return False
        import urllib3

        digest = hashlib.sha256()
        try:
            response = self._pool().request(
                "GET", f"{self._address}/cas/{sha256}", redirect=False, preload_content=False
            )
            try:
                if response.status != 200:
                    if response.status != 404:
                        self._give_up(f"GET /cas/: status {response.status}")
                    return False
                with target.open("wb") as out:
                    for piece in response.stream(_PIECE):
                        digest.update(piece)
                        out.write(piece)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            self._give_up(error)
            target.unlink(missing_ok=True)
            return False
        if digest.hexdigest() != sha256:
            self._warn(f"cache: the server's blob {sha256[:12]} does not match its name; it is made anew")
            target.unlink(missing_ok=True)
            return False
        return True

    def put_file(self, sha256: str, content: Path) -> bool:
        """Send a blob; whether the server has it now."""
        with content.open("rb") as file:
            return self._put(f"/cas/{sha256}", file.read())

    def put_bytes(self, sha256: str, content: bytes) -> bool:
        """Send a small blob; whether the server has it now."""
        return self._put(f"/cas/{sha256}", content)

    def put_action(self, key: str, value: bytes) -> bool:
        """Send an action; its blobs must be there before."""
        return self._put(f"/ac/{key}", value)

    def _put(self, path: str, body: bytes) -> bool:
        if not self.uploads:
            return False
        import urllib3

        try:
            response = self._pool().request("PUT", f"{self._address}{path}", body=body, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            self._give_up(error)
            return False
        if response.status in (200, 201, 204):
            return True
        with self._lock:
            told, self._upload = not self._upload, False
        if not told:
            self._warn(f"cache: the server refuses uploads (status {response.status}); results stay on this machine")
        return False

    def _pool(self) -> urllib3.PoolManager:
        import urllib3

        with self._lock:
            if self._made is None:
                headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
                retries = urllib3.Retry(
                    total=RETRIES,
                    redirect=0,
                    backoff_factor=0.2,
                    status_forcelist=(502, 503, 504),
                    allowed_methods=None,  # a PUT of content under its own digest may be sent twice
                    raise_on_status=False,
                )
                self._made = urllib3.PoolManager(
                    maxsize=8,
                    headers=headers,
                    retries=retries,
                    timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
                )
            return self._made

    def _give_up(self, cause: object) -> None:
        with self._lock:
            told, self._readable = not self._readable, False
        if not told:
            word = cause if isinstance(cause, str) else type(cause).__name__
            self._warn(f"cache: the server cannot be used ({word}); this build goes on without it")
