"""Files are written aside: a failure leaves what stood there and nothing else."""

import errno
import os
from pathlib import Path

import pytest

from quantbuild import aside


def test_bytes_and_files_take_the_place_of_what_stood_there(tmp_path: Path) -> None:
    aside.replace(tmp_path / "a", b"one")
    aside.replace(tmp_path / "b", b"two")
    aside.replace(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_a_failure_names_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        aside.replace(tmp_path / "a", b"one")
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(FileNotFoundError) as caught_source:
        aside.replace(tmp_path / "b", tmp_path / "missing")
    assert caught_source.value.filename == str(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def full(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        aside.replace(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
