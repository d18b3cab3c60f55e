"""Digests of the package's own code."""

from pathlib import Path

from quantbuild.code import CodeDigests


def package(folder: Path, files: dict[str, str]) -> Path:
    for name, source in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    return folder


FILES = {
    "a.py": "from quantbuild.deep import b\n",
    "deep/__init__.py": "",
    "deep/b.py": "def f():\n    import quantbuild.c\n",
    "c.py": "import os\n",
    "unrelated.py": "x = 1\n",
}


def test_a_closure_follows_imports_inside_functions_too(tmp_path: Path) -> None:
    code = CodeDigests(tmp_path / "cache", package(tmp_path / "quantbuild", FILES))
    assert set(code.closure(["quantbuild.a"])) == {
        "quantbuild.a",
        "quantbuild.deep",
        "quantbuild.deep.b",
        "quantbuild.c",
    }


def test_an_edit_of_an_imported_module_changes_the_digest_and_another_edit_does_not(tmp_path: Path) -> None:
    folder = package(tmp_path / "quantbuild", FILES)
    before = CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"])
    (folder / "unrelated.py").write_text("x = 2  # changed\n")
    assert CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"]) == before
    (folder / "c.py").write_text("import os, sys\n")
    assert CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"]) != before


def test_the_cache_gives_the_same_digest_as_reading(tmp_path: Path) -> None:
    folder = package(tmp_path / "quantbuild", FILES)
    first = CodeDigests(tmp_path / "cache", folder)
    digest = first.digest(["quantbuild.a"])
    first.save()
    assert CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"]) == digest


def test_data_beside_a_module_is_part_of_it(tmp_path: Path) -> None:
    folder = package(tmp_path / "quantbuild", FILES)
    before = CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"])
    (folder / "unrelated.json").write_text("{}")
    assert CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"]) == before
    (folder / "deep" / "b.json").write_text("{}")
    assert CodeDigests(tmp_path / "cache", folder).digest(["quantbuild.a"]) != before
