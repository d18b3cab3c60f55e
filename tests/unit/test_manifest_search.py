"""The limit of a search is a loss as a gate's is: the same mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.loading import load

MANIFEST = """\
schema = 1
[dataset.c]
loader = "npz"
path = "c.npz"
input = "x"
label = "y"
[model.m]
source = "tflite"
path = "m.tflite"
calibration = "c"
metric = "METRIC"
[model.m.variant.mixed]
scheme = "mixed"
search = { max_accuracy_loss = LIMIT }
"""


def problems(root: Path, metric: str, limit: str) -> list[str]:
    (root / "manifests").mkdir()
    (root / "manifests" / "m.toml").write_text(MANIFEST.replace("METRIC", metric).replace("LIMIT", limit))
    try:
        load(root, environ={}, check_files=False)
    except ManifestErrors as error:
        return error.lines
    return []


@pytest.mark.parametrize(("metric", "limit"), [("top1", "0.01"), ("top1", "1.0"), ("mae", "3"), ("agreement", "0.02")])
def test_a_loss_in_the_unit_of_the_metric_is_a_limit(tmp_path: Path, metric: str, limit: str) -> None:
    assert problems(tmp_path, metric, limit) == []


@pytest.mark.parametrize(
    ("metric", "limit", "told"),
    [
        ("top1", "1", "1 would be 100 points, which nothing can lose; one point is 0.01, so write 0.01"),
        ("agreement", "2.5", "2.5 would be 250 points, which nothing can lose; one point is 0.01, so write 0.025"),
        ("sqnr", "0.01", 'sqnr has no loss against float32; use another metric, or scheme = "int8"'),
    ],
)
def test_a_limit_that_nothing_can_miss_or_meet_is_refused(tmp_path: Path, metric: str, limit: str, told: str) -> None:
    (line,) = problems(tmp_path, metric, limit)
    assert line == f"manifests/m.toml:14: model.m.variant.mixed.search.max_accuracy_loss: {told}"
