"""A gate on slices is refused where the manifest alone shows that there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.loading import load

MANIFEST = """
schema = 1

[dataset.test]
{dataset}

[model.m]
source = "keras"
path = "m.keras"
evaluation = "test"
metric = "{metric}"
gate = {{ max_slice_loss = 0.02 }}
variant.half.scheme = "float16"
"""
NPZ = 'loader = "npz"\npath = "d.npz"\ninput = "x"\nlabel = "y"\n'
FOLDER = 'loader = "image_folder"\npath = "photos"\n'


def loaded(root: Path, dataset: str, metric: str = "top1") -> None:
    (root / "manifests").mkdir()
    (root / "manifests" / "m.toml").write_text(MANIFEST.format(dataset=dataset, metric=metric))
    load(root, environ={}, check_files=False)


@pytest.mark.parametrize("dataset", [NPZ + 'slice = "group"', FOLDER + 'labels = "labels.csv"', FOLDER])
def test_slices_that_there_may_be_are_left_to_the_build(tmp_path: Path, dataset: str) -> None:
    loaded(tmp_path, dataset)


def test_an_npz_without_a_slice_array_has_none(tmp_path: Path) -> None:
    with pytest.raises(ManifestErrors, match=r"model\.m\.gate\.max_slice_loss: the evaluation set has no slices; add"):
        loaded(tmp_path, NPZ)


def test_sqnr_has_no_loss_of_a_slice(tmp_path: Path) -> None:
    with pytest.raises(ManifestErrors, match="max_slice_loss: sqnr has no loss against float32"):
        loaded(tmp_path, NPZ + 'slice = "group"', "sqnr")
