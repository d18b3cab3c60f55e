"""The HTTP level against servers that misbehave: one warning each, a bounded number of requests, no wrong bytes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quantbuild.cache import action_result, remote
from quantbuild.cache.remote import RemoteCache
from quantbuild.digests import Digest, sha256_of_bytes

CONTENT = b"an artifact" * 1000
DIGEST = Digest(sha256_of_bytes(CONTENT), len(CONTENT))
ACTION = action_result.encode({"model": DIGEST})


class Server:
    """A server of raw sockets: `answer` gets the connection and the request, and does with them what it likes."""

    def __init__(self, answer: Callable[[socket.socket, bytes], None]) -> None:
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            try:
                request = b""
                while b"\r\n\r\n" not in request:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    request += piece
                self.requests.append(request.split(b" HTTP/")[0].decode())
                self._answer(connection, request)
            except OSError:
                return

    def close(self) -> None:
        self._socket.close()


def answered(status: str, body: bytes = b"", length: int | None = None, headers: str = "") -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n{headers}\r\n".encode() + body


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setattr(remote, "READ_SECONDS", 0.5)
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)
    made: list[Server] = []

    def start(answer: Callable[[socket.socket, bytes], None] | bytes) -> Server:
        if isinstance(answer, bytes):
            made.append(Server(lambda connection, request: connection.sendall(answer)))
        else:
            made.append(Server(answer))
        return made[-1]

    yield start
    for server in made:
        server.close()


@pytest.fixture
def warnings() -> list[str]:
    return []


def cache(server: Server, warnings: list[str], *, upload: bool = False) -> RemoteCache:
    return RemoteCache(server.address, upload=upload, token="secret", warn=warnings.append)


def test_what_is_there_is_read_and_verified(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    server = serve(answered("200 OK", CONTENT))
    assert cache(server, warnings).fetch(DIGEST, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert warnings == []


def test_what_is_not_there_is_a_miss_without_a_word(
    serve: Callable[..., Server], warnings: list[str], tmp_path: Path
) -> None:
    reader = cache(serve(answered("404 Not Found")), warnings)
    assert reader.get_action("k") is None
    assert not reader.fetch(DIGEST, tmp_path / "out")
    assert warnings == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway", "503 Busy", "504 Timeout"])
def test_trouble_that_may_pass_is_tried_three_times_and_then_never_again(
    serve: Callable[..., Server], warnings: list[str], status: str
) -> None:
    # An hour's Retry-After must not be waited for.
    server = serve(answered(status, headers="Retry-After: 3600\r\n"))
    reader = cache(server, warnings)
    began = time.monotonic()
    assert reader.get_action("k") is None
    assert reader.get_action("other") is None
    assert time.monotonic() - began < 60
    assert server.requests == ["GET /ac/k"] * remote.ATTEMPTS
    assert warnings == [
        f"cache: the server cannot be used (GET /ac/: status {status[:3]}); this build goes on without it"
    ]


def test_trouble_that_passes_costs_nothing(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    answers = [b"", answered("503 Busy"), answered("200 OK", CONTENT)]  # a lost connection, then busy, then there
    server = serve(lambda connection, request: connection.sendall(answers.pop(0)))
    assert cache(server, warnings).fetch(DIGEST, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert warnings == []


def test_a_body_cut_short_is_tried_again(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    answers = [answered("200 OK", CONTENT[:5000], len(CONTENT)), answered("200 OK", CONTENT)]
    server = serve(lambda connection, request: connection.sendall(answers.pop(0)))
    assert cache(server, warnings).fetch(DIGEST, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert warnings == []


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "302 Found"])
def test_a_refusal_is_not_tried_again(serve: Callable[..., Server], warnings: list[str], status: str) -> None:
    elsewhere = serve(answered("200 OK", ACTION))
    server = serve(answered(status, headers=f"Location: {elsewhere.address}/ac/k\r\n"))
    reader = cache(server, warnings)
    assert reader.get_action("k") is None
    assert reader.get_action("k") is None
    assert len(server.requests) == 1
    assert elsewhere.requests == []  # the token goes to this server alone
    assert len(warnings) == 1


def test_silence_is_waited_for_once(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    server = serve(lambda connection, request: time.sleep(5))
    reader = cache(server, warnings)
    began = time.monotonic()
    assert not reader.fetch(DIGEST, tmp_path / "out")
    assert reader.get_action("k") is None
    assert time.monotonic() - began < 4
    assert len(server.requests) == 1
    assert warnings == ["cache: the server cannot be used (ReadTimeoutError); this build goes on without it"]


def test_a_trickle_is_given_up(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    def trickle(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answered("200 OK", b"", len(CONTENT)))
        for byte in CONTENT[:200]:
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    server = serve(trickle)
    began = time.monotonic()
    assert not cache(server, warnings).fetch(DIGEST, tmp_path / "out")
    assert time.monotonic() - began < 10
    assert len(server.requests) == 1
    assert "too slow: " in warnings[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("body", [CONTENT[:-1] + b"x", CONTENT + b"more", b"<html>log in</html>", b""])
def test_another_blob_than_was_asked_for_is_a_miss_with_a_warning(
    serve: Callable[..., Server], warnings: list[str], tmp_path: Path, body: bytes
) -> None:
    reader = cache(serve(answered("200 OK", body)), warnings)
    assert not reader.fetch(DIGEST, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(warnings) == 1
    assert "does not match its name" in warnings[0]
    assert reader.fetch(DIGEST, tmp_path / "out") is False  # the server is still asked: others may be sound


def test_a_blob_without_end_is_cut_off(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    sent = 0

    def pour(connection: socket.socket, request: bytes) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while sent < 1 << 30:
            connection.sendall(b"x" * 65536)
            sent += 65536

    assert not cache(serve(pour), warnings).fetch(DIGEST, tmp_path / "out")
    assert sent < 1 << 28
    assert "does not match its name" in warnings[0]


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"\xff" * 100, b"x" * (remote.MOST_ACTION_BYTES + 5)])
def test_an_answer_that_is_no_action_is_a_miss_with_a_warning(
    serve: Callable[..., Server], warnings: list[str], body: bytes
) -> None:
    assert cache(serve(answered("200 OK", body)), warnings).get_action("k") is None
    assert warnings == ["cache: the server answers with something that is no action's result; it is made anew"]


def test_a_reader_puts_nothing(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    server = serve(answered("201 Created"))
    reader = cache(server, warnings)
    (tmp_path / "content").write_bytes(CONTENT)
    assert not reader.put_file(DIGEST, tmp_path / "content")
    assert not reader.put_action("k", ACTION)
    assert server.requests == []


def test_a_blob_is_sent_whole_again_where_the_first_try_failed(
    serve: Callable[..., Server], warnings: list[str], tmp_path: Path
) -> None:
    bodies: list[bytes] = []

    def take(connection: socket.socket, request: bytes) -> None:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(CONTENT)}".encode() in head
        while len(body) < len(CONTENT):
            body += connection.recv(65536)
        bodies.append(body)
        connection.sendall(answered("503 Busy" if len(bodies) < 3 else "201 Created"))

    (tmp_path / "content").write_bytes(CONTENT)
    assert cache(serve(take), warnings, upload=True).put_file(DIGEST, tmp_path / "content")
    assert bodies == [CONTENT] * 3
    assert warnings == []


def drain(connection: socket.socket, request: bytes) -> None:
    body = request.partition(b"\r\n\r\n")[2]
    while len(body) < len(CONTENT):
        body += connection.recv(65536)


@pytest.mark.parametrize(("status", "requests"), [("507 Full", 1), ("405 Not Allowed", 1), ("500 Error", 3)])
def test_a_server_that_takes_nothing_is_not_sent_more_and_still_read(
    serve: Callable[..., Server], warnings: list[str], tmp_path: Path, status: str, requests: int
) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"GET"):
            connection.sendall(answered("200 OK", ACTION))
        else:
            drain(connection, request)
            connection.sendall(answered(status))

    server = serve(answer)
    writer = cache(server, warnings, upload=True)
    (tmp_path / "content").write_bytes(CONTENT)
    assert not writer.put_file(DIGEST, tmp_path / "content")
    assert not writer.put_file(DIGEST, tmp_path / "content")
    assert len(server.requests) == requests
    assert warnings == [f"cache: the server refuses uploads (status {status[:3]}); results stay on this machine"]
    assert writer.get_action("k") == ACTION


def test_a_file_too_large_for_the_server_stays_here_and_others_go(
    serve: Callable[..., Server], warnings: list[str], tmp_path: Path
) -> None:
    def answer(connection: socket.socket, request: bytes) -> None:
        if b"/ac/" in request.split(b"\r\n")[0]:
            connection.sendall(answered("201 Created"))
        else:
            drain(connection, request)
            connection.sendall(answered("413 Too Large", headers="Retry-After: 3600\r\n"))

    writer = cache(serve(answer), warnings, upload=True)
    (tmp_path / "content").write_bytes(CONTENT)
    assert not writer.put_file(DIGEST, tmp_path / "content")
    assert writer.put_action("k", ACTION)
    assert warnings == ["cache: the server takes no file of this size (status 413); it stays on this machine"]


def test_nobody_at_the_address_is_found_out_once(warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    reader = RemoteCache(address, upload=True, token="secret", warn=warnings.append)
    assert reader.get_action("k") is None
    assert not reader.put_action("k", ACTION)
    assert warnings == ["cache: the server cannot be used (NewConnectionError); this build goes on without it"]


def test_no_warning_holds_the_token(serve: Callable[..., Server], warnings: list[str], tmp_path: Path) -> None:
    for answer in (answered("403 no"), answered("500 no"), b"garbage\r\n\r\n"):
        reader = cache(serve(answer), warnings, upload=True)
        reader.get_action("k")
        reader.put_action("k", ACTION)
    assert warnings
    assert "secret" not in "".join(warnings)
