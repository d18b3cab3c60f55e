"""What a build keeps may be damaged in any way: it is then as if it were not there."""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec
import pytest

from quantbuild import code, standing
from quantbuild.cache.local import LocalCache
from quantbuild.cache.store import Cache, Entry
from quantbuild.digests import Digest, Digests, sha256_of_bytes
from quantbuild.record import RECORD_SCHEMA, Failure, Record, RunFacts, read_record, write_record
from quantbuild.trees import Trees

NO_UTF8 = b"\xff"


def damaged(path: Path) -> None:
    """Put a byte that no UTF-8 holds into the text NAME of a file: to msgspec that is no DecodeError."""
    content = path.read_bytes()
    assert b"NAME" in content
    path.write_bytes(content.replace(b"NAME", b"NAM" + NO_UTF8))


def test_a_record(tmp_path: Path) -> None:
    facts = RunFacts(started="", seconds=0.0, reasons=(), worker="")
    failure = Failure(message="NAME")
    record = Record(schema=RECORD_SCHEMA, step="s", result=None, failure=failure, run=facts)
    write_record(tmp_path / "record", record)
    damaged(tmp_path / "record")
    assert read_record(tmp_path / "record") is None


def test_the_digests(tmp_path: Path) -> None:
    (tmp_path / "NAME").write_bytes(b"hello")
    digests = Digests(tmp_path, tmp_path / "cache")
    digests.digest("NAME")
    digests.save()
    damaged(tmp_path / "cache")
    assert Digests(tmp_path, tmp_path / "cache").digest("NAME") == (sha256_of_bytes(b"hello"), 5)


def test_the_digests_of_code(tmp_path: Path) -> None:
    (tmp_path / "NAME.py").write_text("")
    known = code.CodeDigests(tmp_path / "cache", tmp_path)
    before = known.digest(["quantbuild.NAME"])
    known.save()
    damaged(tmp_path / "cache")
    assert code.CodeDigests(tmp_path / "cache", tmp_path).digest(["quantbuild.NAME"]) == before


def test_what_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    snapshot = standing.Snapshot(
        schema=standing.SNAPSHOT_SCHEMA,
        facts={"NAME": ""},
        installed="",
        tools={},
        devices=(),
        manifests=(),
        tasks=(),
        steps={},
        made_inputs=b"",
        files=(),
        failed_gates=(),
        undecided_gates=(),
    )
    standing.write_snapshot(tmp_path / "standing", snapshot)
    damaged(tmp_path / "standing")
    assert standing.read_standing(tmp_path / "standing", Digests(tmp_path, tmp_path / "cache")) is None


def test_a_listing(tmp_path: Path) -> None:
    content = msgspec.msgpack.encode({"NAME": b"\0" * 6}).replace(b"NAME", b"NAM" + NO_UTF8)
    (tmp_path / "listing").write_bytes(zlib.compress(content))
    assert Trees(tmp_path).listing("listing") is None


def test_an_entry_of_the_cache_that_is_no_text(tmp_path: Path) -> None:
    cache = Cache(LocalCache(tmp_path / "cache", lambda text: None), None)
    (tmp_path / "made").write_bytes(b"made")
    entry = Entry(schema=1, values={"a": "NAME"}, reasons=())
    cache.keep("k", entry, {"model": (tmp_path / "made", Digest(sha256_of_bytes(b"made"), 4))}, share=False)
    (blob,) = (path for path in (tmp_path / "cache" / "cas").iterdir() if b"NAME" in path.read_bytes())
    content = blob.read_bytes().replace(b"NAME", b"NAM" + NO_UTF8)
    action = tmp_path / "cache" / "ac" / "k"
    action.write_bytes(action.read_bytes().replace(blob.name.encode(), sha256_of_bytes(content).encode()))
    (blob.parent / sha256_of_bytes(content)).write_bytes(content)
    (tmp_path / "scratch").mkdir()
    assert cache.restore("k", tmp_path / "scratch", share=False) is None
