"""What a folder held before: kept by its digest, and compared file by file."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from quantbuild import trees
from quantbuild.digests import Digests
from quantbuild.trees import Trees, file_changes, parse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("a.png", "a"), ("cat/b.png", "b"), ("cat/with a space.png", "c")):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text(content)
    return tmp_path


def listing(root: Path) -> tuple[str, str]:
    digests = Digests(root, root / "digests")
    digest, text = digests.digest("photos"), digests.tree_listing("photos")
    assert digest is not None
    assert text is not None
    return digest.sha256, text


def told(folder: Path, old: str) -> list[str]:
    found = Trees(folder / "trees").listing(old)
    assert found is not None
    return [reason.text() for reason in file_changes("photos", found, parse(listing(folder)[1]))]


def test_files_added_removed_edited_and_renamed_are_named(folder: Path) -> None:
    sha256, text = listing(folder)
    Trees(folder / "trees").keep(sha256, text)
    assert told(folder, sha256) == []
    (folder / "photos" / "a.png").unlink()
    (folder / "photos" / "cat" / "b.png").write_text("edited")
    (folder / "photos" / "cat" / "with a space.png").rename(folder / "photos" / "z.png")
    (folder / "photos" / "new.png").write_text("new")
    removed, edited, added, renamed = told(folder, sha256)
    assert removed == "file removed: photos/a.png"
    assert edited.startswith("file edited: photos/cat/b.png: 3e23e8160039 → ")
    assert added == "file added: photos/new.png"
    assert renamed == "file renamed: photos: cat/with a space.png → z.png"


def test_two_files_of_one_content_are_renamed_one_by_one() -> None:
    old, new = {"a": "1" * 64, "b": "1" * 64}, {"c": "1" * 64, "d": "1" * 64, "e": "1" * 64}
    assert len([reason for reason in file_changes("f", old, new) if reason.kind == "file renamed"]) == 2


def test_of_many_files_the_first_are_told() -> None:
    new = {f"{number:03}": f"{number:064x}" for number in range(100)}
    *first, last = file_changes("photos", {}, new)
    assert len(first) == trees.MOST_FILES_TOLD
    assert last.text() == "80 more files changed: photos"


def test_a_listing_that_is_not_there_or_damaged_is_none(folder: Path) -> None:
    sha256, text = listing(folder)
    kept = Trees(folder / "trees")
    assert kept.listing(sha256) is None
    kept.keep(sha256, text)
    (folder / "trees" / sha256).write_bytes(b"damaged")
    assert kept.listing(sha256) is None


def test_the_listings_used_last_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "MOST_KEPT", 3)
    kept = Trees(folder / "trees")
    names = [f"{number:064}" for number in range(5)]
    for age, name in enumerate(names[:3]):
        kept.keep(name, "")
        os.utime(folder / "trees" / name, (age, age))
    kept.keep(names[0], "")
    kept.keep(names[3], "")
    assert {path.name for path in (folder / "trees").iterdir()} == {names[0], names[2], names[3]}


def test_a_listing_is_small() -> None:
    # Digests cannot be compressed: what matters is bytes a file.
    lines = (f"{hashlib.sha256(str(n).encode()).hexdigest()} class_{n % 100:03}/img_{n:06}.jpg" for n in range(5000))
    assert len(trees.encode("\n".join(lines))) < 20 * 5000
