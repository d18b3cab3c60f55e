"""The depfile's rule: which files, how they are spelled, how their names are escaped."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from quantbuild import depfile
from quantbuild.errors import UsageError

ODD = ("with space.npz", "hash#.npz", "dollar$HOME.npz", "back\\slash.npz", "back\\ slash.npz", "naïve.npz")


def test_a_folder_stands_for_its_files_and_for_the_folders_in_it(tmp_path: Path) -> None:
    for name in ("photos/cat/1.png", "photos/cat/old/2.png", "photos/3.png", "manifests/team/m.toml", "data.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "photos" / "empty").mkdir()  # no part of a digest, so it must be none of this
    assert depfile.dependencies(tmp_path, ["data.npz", "photos"], ["manifests/team/m.toml"]) == [
        *("data.npz", "manifests", "manifests/team", "manifests/team/m.toml", "photos", "photos/3.png"),
        *("photos/cat", "photos/cat/1.png", "photos/cat/old", "photos/cat/old/2.png"),
    ]


def test_what_ships_is_a_target_where_its_variant_stands() -> None:
    ship = {"m": {"default": "a", "small": "gone"}}
    assert depfile.targets(["m/a", "m/b"], ship) == ["dist/m/a.tflite", "dist/m/b.tflite", "dist/m/model.tflite"]


def test_odd_names_reach_ninja_and_make_as_they_are(tmp_path: Path) -> None:
    for name in ODD:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out.d").write_bytes(depfile.rule(["out"], ODD))
    (tmp_path / "build.ninja").write_text("rule r\n  command = touch out\n  depfile = out.d\nbuild out: r\n")
    ran = [subprocess.run(["ninja"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert "no work to do" in ran[1], ran
    for name in ODD:
        (tmp_path / name).unlink()
        made = subprocess.run(["ninja", "-n"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert "touch out" in made, name  # the file was known, and is missing
        (tmp_path / name).write_bytes(b"")
        subprocess.run(["ninja"], cwd=tmp_path, capture_output=True, check=True)


def test_paths_are_absolute_or_as_seen_from_a_folder(tmp_path: Path) -> None:
    assert depfile.spelled(["dist/m/a.tflite"], tmp_path, None) == [f"{tmp_path}/dist/m/a.tflite"]
    assert depfile.spelled(["m.npz"], tmp_path / "models", tmp_path / "out" / "debug") == ["../../models/m.npz"]


@pytest.mark.parametrize("content", [None, "no json", "[]", json.dumps({"artifacts": {"m/a": {}}})])
def test_without_a_lock_it_says_what_to_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "dist").mkdir()
        (tmp_path / "dist/quantbuild.lock.json").write_text(content)
    with pytest.raises(UsageError, match="run `doit quantize`"):
        depfile.of_lock(tmp_path, [], [])


def test_a_folder_stands_for_what_its_digest_covers_alone(tmp_path: Path) -> None:
    for name in ("my/metric.py", "my/__pycache__/metric.cpython-311.pyc", "far/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "my" / "dangling").symlink_to("nowhere")  # Ninja would find it missing and never be done
    (tmp_path / "my" / "linked").symlink_to("../far")
    assert depfile.dependencies(tmp_path, ["my"], []) == ["my", "my/linked", "my/linked/1.png", "my/metric.py"]
