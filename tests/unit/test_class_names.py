"""Class folders and a model's file of class names: what contradicts itself is refused, what cannot be told is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.class_names import difference
from quantbuild.manifest.loading import load

MANIFEST = """schema = 1
[dataset.photos]
loader = "image_folder"
path = "photos"
[model.m]
source = "tflite"
path = "m.tflite"
labels = "labels.txt"
evaluation = "photos"
metric = "top1"
"""


def told(root: Path, names: str, *folders: str, manifest: str = MANIFEST) -> list[str]:
    (root / "manifests").mkdir()
    (root / "manifests/m.toml").write_text(manifest)
    (root / "m.tflite").touch()
    (root / "labels.txt").write_text(names)
    for folder in folders:
        (root / "photos" / folder).mkdir(parents=True)
        (root / "photos" / folder / "1.png").touch()
    (root / "photos/labels.csv").write_text("path,label\n")
    if 'labels = "labels.csv"' not in manifest:
        (root / "photos/labels.csv").unlink()
    try:
        load(root, environ={})
    except ManifestErrors as error:
        return error.lines
    return []


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["cat", "dog", "emu"], ["cat", "dog", "emu"]),
        (["Great_Dane", "tabby-cat"], ["great dane", "Tabby cat"]),
        (["n01440764", "n01443537"], ["tench", "goldfish"]),  # codes: nothing tells their order
        (["cat", "dog"], ["cat", "dog", "emu"]),  # the set has not all classes, but the first
        (["crane", "crane bird"], ["crane", "crane"]),  # a name that two classes have
    ],
)
def test_folders_that_say_nothing_else_are_no_contradiction(folders: list[str], names: list[str]) -> None:
    assert difference(folders, names) is None


@pytest.mark.parametrize(
    ("folders", "names", "text"),
    [
        (["cat", "dog"], ["dog", "cat"], 'folder "cat" is class 0 in sorted order, and class 1 by its name'),
        (["cat", "emu"], ["cat", "dog", "emu"], 'folder "emu" is class 1 in sorted order, and class 2 by its name'),
        (["cat", "dog"], ["none", "cat", "dog"], 'folder "cat" is class 0 in sorted order, and class 1 by its name'),
        (["1", "10", "2"], ["1", "2", "10"], 'folder "10" is class 1 in sorted order, and class 2 by its name'),
        (["cat", "dog"], ["cat"], "there are 2 folders for 1 name"),
    ],
)
def test_folders_that_contradict_the_names_are_told(folders: list[str], names: list[str], text: str) -> None:
    assert difference(folders, names) == text


def test_a_manifest_whose_folders_are_in_another_order_is_refused_in_one_line(tmp_path: Path) -> None:
    assert told(tmp_path, "dog\ncat\n\n", "cat", "dog") == [
        'manifests/m.toml:8: model.m.labels: "labels.txt" and the class folders of dataset.photos differ: '
        'folder "cat" is class 0 in sorted order, and class 1 by its name; '
        'correct the file, or number the classes by labels = "labels.csv" in the dataset'
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ('metric = "top1"', 'metric = "agreement"'),
        ('path = "photos"', 'path = "photos"\nlabels = "labels.csv"'),
    ],
)
def test_what_compares_no_folder_is_not_asked_for_their_order(tmp_path: Path, old: str, new: str) -> None:
    names = "cat\ndog\n" if not old else "dog\ncat\n"
    assert told(tmp_path, names, "cat", "dog", manifest=MANIFEST.replace(old, new)) == []
