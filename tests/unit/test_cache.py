"""The local action cache and content store."""

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbuild.cache import action_result
from quantbuild.cache.local import LocalCache
from quantbuild.cache.store import Cache, Entry, local_folder, open_cache
from quantbuild.digests import Digest
from quantbuild.errors import UsageError

KEY = "a" * 64


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def local(tmp_path: Path, warnings: list[str]) -> LocalCache:
    return LocalCache(tmp_path / "cache", warnings.append)


def kept(cache: Cache, folder: Path, content: bytes, key: str = KEY) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / "made"
    path.write_bytes(content)
    entry = Entry(schema=1, values={"a": 1}, reasons=("never built",))
    cache.keep(key, entry, {"model": (path, Digest(sha256(content), len(content)))}, share=False)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20), st.tuples(st.binary(max_size=3), st.integers(0, 2**60)), max_size=5
    )
)
def test_an_action_result_is_read_back_as_written(files: dict[str, tuple[bytes, int]]) -> None:
    digests = {name: Digest(sha256(data), size) for name, (data, size) in files.items()}
    assert action_result.decode(action_result.encode(digests)) == digests


@given(st.binary(max_size=60))
def test_other_bytes_are_a_value_error_or_nothing(data: bytes) -> None:
    try:
        action_result.decode(data)
    except (ValueError, UnicodeDecodeError):
        return


def test_an_action_result_is_protobuf(tmp_path: Path) -> None:
    """Field 2 of length 73: path (field 1) "m", digest (field 2) of hash (1) and size_bytes (2)."""
    digest = "0" * 64
    encoded = action_result.encode({"m": Digest(digest, 300)})
    inner = b"\x0a\x01m" + b"\x12\x45" + b"\x0a\x40" + digest.encode() + b"\x10\xac\x02"
    assert encoded == b"\x12" + bytes([len(inner)]) + inner


def test_what_is_kept_is_restored(local: LocalCache, tmp_path: Path) -> None:
    cache = Cache(local, None)
    kept(cache, tmp_path / "one", b"artifact")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    restored = cache.restore(KEY, scratch, share=True)
    assert restored is not None
    assert restored.entry.values == {"a": 1}
    assert restored.files["model"][0].read_bytes() == b"artifact"
    assert cache.restore("b" * 64, scratch, share=True) is None


def test_a_damaged_blob_is_a_miss_with_a_warning_and_is_taken_away(
    local: LocalCache, tmp_path: Path, warnings: list[str]
) -> None:
    cache = Cache(local, None)
    kept(cache, tmp_path / "one", b"artifact")
    blob = local.folder / "cas" / sha256(b"artifact")
    blob.write_bytes(b"artifacT")
    assert cache.restore(KEY, tmp_path, share=True) is None
    assert len(warnings) == 1
    assert not blob.exists()
    kept(cache, tmp_path / "one", b"artifact")
    assert cache.restore(KEY, tmp_path, share=True) is not None


def test_the_layout_is_bazels(local: LocalCache, tmp_path: Path) -> None:
    kept(Cache(local, None), tmp_path / "one", b"artifact")
    assert (local.folder / "ac" / KEY).is_file()
    assert (local.folder / "cas" / sha256(b"artifact")).read_bytes() == b"artifact"


def test_collecting_removes_the_least_recently_used_first(local: LocalCache, tmp_path: Path) -> None:
    for number in range(4):
        content = bytes([number]) * 1000
        local.put_file(sha256(content), _file(tmp_path, content))
        os.utime(local.folder / "cas" / sha256(content), (number + 1, number + 1))
    local.fetch(sha256(bytes([0]) * 1000), tmp_path / "out")
    usage = local.collect(2000)
    assert usage.size_bytes == 2000
    assert local.has(sha256(bytes([0]) * 1000))
    assert not local.has(sha256(bytes([1]) * 1000))


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "content"
    path.write_bytes(content)
    return path


def test_a_key_is_held_by_one_at_a_time(local: LocalCache) -> None:
    inside = 0
    most = 0

    def hold() -> None:
        nonlocal inside, most
        for _ in range(20):
            with local.key_lock(KEY):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=hold) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert most == 1


def test_no_half_written_entry_is_left(local: LocalCache, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(b"other")
    with pytest.raises(OSError, match="changed while"):
        local.put_file(sha256(b"one"), path)
    assert not local.has(sha256(b"one"))
    assert list((local.folder / "tmp").iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path)])
def test_a_blob_that_cannot_be_read_is_a_miss_with_a_warning(
    local: LocalCache, tmp_path: Path, warnings: list[str], make: Callable[[Path], None]
) -> None:
    cache = Cache(local, None)
    kept(cache, tmp_path / "one", b"artifact")
    blob = local.folder / "cas" / sha256(b"artifact")
    blob.unlink()
    make(blob)
    assert cache.restore(KEY, tmp_path, share=True) is None
    assert len(warnings) == 1
    assert "cannot be read" in warnings[0]


def test_a_damaged_blob_that_cannot_be_taken_away_is_a_miss(
    local: LocalCache, tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(local, None)
    kept(cache, tmp_path / "one", b"artifact")
    blob = local.folder / "cas" / sha256(b"artifact")
    blob.write_bytes(b"artifacT")
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path == blob:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert cache.restore(KEY, tmp_path, share=True) is None
    assert len(warnings) == 1


def test_collecting_takes_away_what_a_killed_build_was_writing(local: LocalCache, tmp_path: Path) -> None:
    kept(Cache(local, None), tmp_path / "one", b"artifact")
    old, new = local.folder / "tmp" / "abc.1.00ff", local.folder / "tmp" / "abc.2.00ff"
    for path in (old, new):
        path.write_bytes(b"a part")
    os.utime(old, (time.time() - 7200,) * 2)
    local.collect(10**9)
    assert [path.name for path in (local.folder / "tmp").iterdir()] == [new.name], "another build may be writing it"


def test_a_lock_that_was_swept_while_one_waited_for_it_is_held_by_one_all_the_same(local: LocalCache) -> None:
    """The one who waited has a file that nobody else will open."""
    order: list[str] = []
    waiting, swept = threading.Event(), threading.Event()
    flock = fcntl.flock

    def wait() -> None:
        with local.key_lock(KEY):
            order.append("waited")

    def slow(file: IO[str], operation: int) -> None:
        if threading.current_thread() is thread and not swept.is_set():
            waiting.set()
            swept.wait(timeout=30)
        flock(file, operation)

    thread = threading.Thread(target=wait)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fcntl, "flock", slow)
        thread.start()
        assert waiting.wait(timeout=30)
        local.collect(10**9)  # nobody holds it: its file goes, and the thread has it open
        with local.key_lock(KEY):
            swept.set()
            thread.join(timeout=0.3)
            order.append("held")
        thread.join(timeout=30)
    assert order == ["held", "waited"]


def test_a_token_is_sent_without_its_line_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = "http://127.0.0.1:1"
    monkeypatch.setenv("QUANTBUILD_CACHE_TOKEN", "secret\n")
    told: list[str] = []
    cache = open_cache(tmp_path, "cache", address, upload=False, warn=told.append)
    assert cache.remote is not None
    assert cache.remote.get_action(KEY) is None
    assert told == ["cache: the server cannot be used (NewConnectionError); this build goes on without it"]


@pytest.mark.parametrize("token", ["sec\nret", "sécret", "sec\x7fret"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("QUANTBUILD_CACHE_TOKEN", token)
    with pytest.raises(UsageError, match=r"^QUANTBUILD_CACHE_TOKEN: holds a character that no header can") as refused:
        open_cache(tmp_path, "cache", "http://127.0.0.1:1", upload=False, warn=print)
    assert token not in str(refused.value)


def test_a_home_that_is_not_there_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r'^the cache "~nobody-of-that-name/c": no home folder is known; name a fol'):
        local_folder(tmp_path, "~nobody-of-that-name/c")

    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which is none
    with pytest.raises(UsageError, match=r"^the cache: no home folder is known; name a folder in QUANTBUILD_CACHE_DIR"):
        local_folder(tmp_path, None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert local_folder(tmp_path, None) == tmp_path / "quantbuild"
