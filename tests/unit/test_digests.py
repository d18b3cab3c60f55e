"""Content digests and the stat cache."""

import hashlib
import os
import py_compile
import time
from pathlib import Path

import pytest

from quantbuild import digests as digests_module
from quantbuild.digests import Digests


def fresh(root: Path) -> Digests:
    return Digests(root, root / "cache.msgpack")


def settle() -> None:
    """Let the clock leave the window in which a stamp is not believed."""
    time.sleep(2.5 * digests_module.RACY_WINDOW_NS / 1e9)


def test_a_file_is_its_sha256_and_size(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    digest = fresh(tmp_path).digest("a")
    assert digest == (hashlib.sha256(b"hello").hexdigest(), 5)


def test_a_dangling_link_in_a_folder_is_no_content(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"hello")
    before = fresh(tmp_path)
    expected = before.digest("model"), before.stamps("model")
    (tmp_path / "model" / ".#a").symlink_to("nobody@nowhere")  # as an editor's lock is
    after = fresh(tmp_path)
    assert (after.digest("model"), after.stamps("model")) == expected


def test_a_missing_file_has_no_digest(tmp_path: Path) -> None:
    assert fresh(tmp_path).digest("nothing/here") is None


def test_an_unchanged_file_is_hashed_once_across_builds(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    settle()
    first = fresh(tmp_path)
    first.digest("a")
    first.save()
    second = fresh(tmp_path)
    assert second.digest("a") == first.digest("a")
    assert second.hashed_files == 0


def test_an_edit_with_the_mtime_put_back_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"one")
    settle()
    cache = fresh(tmp_path)
    before = cache.digest("a")
    status = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache.digest("a") != before


def test_a_file_hashed_in_the_tick_it_was_written_is_hashed_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    first = fresh(tmp_path)
    first.digest("a")
    first.save()
    second = fresh(tmp_path)
    second.digest("a")
    assert second.hashed_files == 1


def test_after_a_touch_one_pass_hashes_and_the_next_does_not(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for number in range(5):
        (tmp_path / "set" / str(number)).write_text(str(number))
    settle()
    first = fresh(tmp_path)
    before = first.digest("set")
    first.save()
    for number in range(5):
        (tmp_path / "set" / str(number)).touch()
    settle()
    second = fresh(tmp_path)
    assert second.digest("set") == before
    assert second.hashed_files == 5
    second.save()
    third = fresh(tmp_path)
    third.digest("set")
    assert third.hashed_files == 0


def test_a_folder_covers_names_and_contents_at_any_depth(tmp_path: Path) -> None:
    (tmp_path / "set" / "b").mkdir(parents=True)
    (tmp_path / "set" / "a").write_text("1")
    (tmp_path / "set" / "b" / "c").write_text("2")
    before = fresh(tmp_path).digest("set")
    (tmp_path / "set" / "b" / "c").rename(tmp_path / "set" / "b" / "d")
    renamed = fresh(tmp_path).digest("set")
    (tmp_path / "set" / "b" / "d").write_text("3")
    edited = fresh(tmp_path).digest("set")
    assert len({before, renamed, edited}) == 3


def test_a_folder_does_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x" / "file").write_text("same")
    cache = fresh(tmp_path)
    assert cache.digest("one") == cache.digest("two")


def test_a_damaged_cache_costs_a_pass_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    (tmp_path / "cache.msgpack").write_bytes(b"\x93not a cache")
    assert fresh(tmp_path).digest("a") == (hashlib.sha256(b"hello").hexdigest(), 5)


def test_what_the_build_put_in_place_is_not_hashed_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    cache = fresh(tmp_path)
    cache.remember("a", hashlib.sha256(b"hello").hexdigest())
    cache.digest("a")
    assert cache.hashed_files == 0


def test_a_file_name_that_is_no_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(b"")
    with pytest.raises(OSError, match="not UTF-8, rename it") as caught:
        Digests(tmp_path, tmp_path / "cache").digest("photos")
    assert caught.value.filename == "photos/\\udcff.png"


def test_compiled_files_of_python_are_no_content_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "a.py").write_text("")
    before = Digests(tmp_path, tmp_path / "cache").digest("pkg")
    py_compile.compile(str(tmp_path / "pkg" / "a.py"))
    assert (tmp_path / "pkg" / "__pycache__").is_dir()
    assert Digests(tmp_path, tmp_path / "cache").digest("pkg") == before
