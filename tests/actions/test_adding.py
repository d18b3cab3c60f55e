"""docs/adding.md: its whole examples are plug-ins as they stand, and do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import tiny_tflite

from quantbuild.errors import ManifestErrors, StepError
from quantbuild.manifest.loading import load
from quantbuild.manifest.plugins import OPTIONS_MARKER, Plugins, installed
from quantbuild.step import Job
from quantbuild.tflite import graph

DOCUMENT = (Path(__file__).parents[2] / "docs" / "adding.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^A whole one, `quantbuild/(\w+)/(\w+)\.py`.*?^```python\n(.*?)^```", DOCUMENT, re.M | re.S)

MANIFEST = """schema = 1
[dataset.rows]
loader = "table"
path = "rows.csv"
shape = [2, 1]
label = "kind"
[model.m]
source = "tflite"
path = "m.tflite"
evaluation = "rows"
metric = "top1"
variant.small = { scheme = "pruned", threshold = 0.5 }
"""


def example(kind: str) -> tuple[str, ModuleType]:
    """Return the name and module of the page's plug-in of a kind."""
    ((name, text),) = ((name, text) for found, name, text in BLOCKS if found == kind)
    assert re.search(OPTIONS_MARKER, text, re.MULTILINE), "it would not be found"
    module = ModuleType(name)
    exec(compile(text, f"adding.md: {name}", "exec"), module.__dict__)
    return name, module


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "m.toml").write_text(MANIFEST)
    (tmp_path / "rows.csv").write_text("kind,left,right\n1,0.5,2\n0,-1,3.25\n")
    (tmp_path / "m.tflite").write_bytes(b"")
    return tmp_path


def plugins() -> Plugins:
    there = installed()
    return msgspec.structs.replace(there, datasets=dict([example("datasets")]), schemes=dict([example("schemes")]))


def test_a_manifest_takes_their_keys_and_tells_their_mistakes(workspace: Path) -> None:
    found = load(workspace, environ={}, plugins=plugins())
    assert found.models["m"].variants["small"].options.threshold == 0.5  # type: ignore[attr-defined]
    (workspace / "manifests" / "m.toml").write_text(MANIFEST.replace("0.5 }", "2 }"))
    with pytest.raises(ManifestErrors, match=r"variant\.small\.threshold: write a number above 0 and below 1"):
        load(workspace, environ={}, plugins=plugins())


def test_the_loader_gives_samples_with_a_batch_axis_and_labels(workspace: Path) -> None:
    _, loader = example("datasets")
    options = msgspec.convert({"path": "rows.csv", "shape": [2, 1], "label": "kind"}, loader.Options)
    assert loader.files(options, workspace) == ["rows.csv"]
    rows = loader.open_samples(options, workspace)
    assert len(rows) == 2
    assert rows.labels.tolist() == [1, 0]
    assert rows.slices is None
    np.testing.assert_array_equal(rows[1][""], np.float32([[[-1], [3.25]]]))
    for text, message in (
        ("a,b\n1,x\n", "rows.csv: .*; write numbers"),
        ("a,b\n1,2\n", "no column kind; it holds a, b"),
    ):
        (workspace / "rows.csv").write_text(text)
        with pytest.raises(StepError, match=message):
            loader.open_samples(options, workspace)


def test_the_scheme_writes_a_model_whose_small_weights_are_zero(tmp_path: Path) -> None:
    _, scheme = example("schemes")
    tiny_tflite.linear(tmp_path / "m.tflite", np.float32([[1, 0.2, -0.7], [-0.1, 0.5, -0.6]]))
    job = Job(
        step="quantize:m/small",
        action="quantize",
        parameters={},
        inputs={"model": str(tmp_path / "m.tflite")},
        outputs={"model": str(tmp_path / "small.tflite")},
        root=str(tmp_path),
        scratch=str(tmp_path),
    )
    assert scheme.needs(scheme.Options(threshold=0.5)) == frozenset()
    said = scheme.quantize(job, scheme.Options(threshold=0.5))
    assert said == {"zeroed": 2}
    model = graph.read((tmp_path / "small.tflite").read_bytes())
    constants = [graph.constant(model, tensor) for tensor in graph.main(model).tensors]
    (weights,) = (values for values in constants if values is not None and values.ndim == 2)
    np.testing.assert_array_equal(weights, np.float32([[1, 0, -0.7], [0, 0.5, -0.6]]))
