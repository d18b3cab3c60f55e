"""Reads and writes the ActionResult of Bazel's Remote Execution API: the value under ``/ac/KEY``.

Source: build/bazel/remote/execution/v2/remote_execution.proto. Servers such as bazel-remote refuse other values there.
Only what we use: ``output_files`` (field 2) with ``path`` (1) and ``digest`` (2), a digest with ``hash`` (1) and
``size_bytes`` (2). An unknown field is skipped, as protobuf asks of every reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from quantbuild.digests import Digest

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}


def encode(files: Mapping[str, Digest]) -> bytes:
    """Return an ActionResult whose output files are `files`, by name."""
    return b"".join(
        _field(2, _field(1, name.encode()) + _field(2, _encode_digest(digest)))
        for name, digest in sorted(files.items())
    )


def decode(data: bytes) -> dict[str, Digest]:
    """Return the output files of an ActionResult, by name.

    Raises:
        ValueError: the bytes are no ActionResult.
    """
    files = {}
    for number, value in _fields(data):
        if number == 2 and isinstance(value, bytes):
            parts = dict(_fields(value))
            name, digest = parts.get(1), parts.get(2)
            if not isinstance(name, bytes) or not isinstance(digest, bytes):
                raise ValueError("an output file without name or digest")
            files[name.decode()] = _decode_digest(digest)
    return files


def _encode_digest(digest: Digest) -> bytes:
    return _field(1, digest.sha256.encode()) + _varint(2 << 3 | _VARINT) + _varint(digest.size_bytes)


def _decode_digest(data: bytes) -> Digest:
    parts = dict(_fields(data))
    sha256, size = parts.get(1), parts.get(2, 0)
    if not isinstance(sha256, bytes) or not isinstance(size, int) or len(sha256) != 64:
        raise ValueError("a digest without hash or size")
    text = sha256.decode()
    if not set(text) <= set("0123456789abcdef"):
        raise ValueError("a hash that is no sha256")
    return Digest(text, size)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        kind = tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, position = _read_varint(data, position)
        elif kind == _BYTES:
            length, position = _read_varint(data, position)
            value, position = data[position : position + length], position + length
        elif kind in _FIXED_BYTES:
            value, position = data[position : position + _FIXED_BYTES[kind]], position + _FIXED_BYTES[kind]
        else:
            raise ValueError("an unknown wire type")
        if position > len(data):
            raise ValueError("cut short")
        yield tag >> 3, value


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise ValueError("cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position
