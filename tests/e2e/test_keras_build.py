"""A build of a Keras model: what a saved-again model, a metric or a gate touches, and what is repaired on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import DEVICE, Workspace, write_workspace

MAKE = """
import keras, numpy as np, zipfile
keras.utils.set_random_seed(0)
L = keras.layers
image = keras.Input((8, 8, 1), name="image")
h = L.Conv2D(8, 3, activation="relu")(image)
h = L.DepthwiseConv2D(3)(h)
h = L.ReLU(6.0)(L.BatchNormalization()(h))
model = keras.Model(image, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(h)))
model.save("model.keras")
model.save("again.keras")
with zipfile.ZipFile("again.keras", "a") as archive:
    archive.comment = b"other bytes, the same model"
rng = np.random.default_rng(0)
x = rng.standard_normal((40, 8, 8, 1)).astype("f")
np.savez("calibration.npz", x=x[:20])
np.savez("test.npz", x=x[20:], y=rng.integers(0, 3, 20))
"""

MANIFEST = """schema = 1
[dataset.calibration]
loader = "npz"
path = "calibration.npz"
input = "x"
[dataset.test]
loader = "npz"
path = "test.npz"
input = "x"
label = "y"
[model.m]
source = "keras"
path = "model.keras"
calibration = "calibration"
lint_ignore = ["noise"]
evaluation = "test"
metric = "top1"
ship = "a"
[model.m.variant.a]
scheme = "int8"
[model.m.variant.b]
scheme = "dynamic"
"""


@pytest.fixture(scope="module")
def made(make_models: Callable[[str], Path]) -> Path:
    return make_models(MAKE)


def written(root: Path, made: Path) -> Workspace:
    shutil.copytree(made, root)
    return write_workspace(root, MANIFEST + DEVICE)


@pytest.fixture(scope="module")
def once(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = written(tmp_path_factory.mktemp("keras") / "one", made)
    workspace.doit("report")
    return workspace


@pytest.fixture
def built(once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the built workspace, with no cache: what is executed was not done before."""
    return once.copied(tmp_path / "copy")


def after(workspace: Workspace, task: str = "report") -> set[str]:
    """Build; return what was executed, the closing steps left out."""
    workspace.doit(task)
    assert workspace.steps("restored") == set()
    return workspace.steps("executed") - {"check", "dist", "report"}


def test_the_list_has_calibrate(built: Workspace) -> None:
    listed = {line.split()[0] for line in built.doit("list", "--all").splitlines()}
    assert listed == {
        *("benchmark", "benchmark:m/a@host", "benchmark:m/b@host", "benchmark:m/float32@host"),
        *("calibrate", "calibrate:m", "check", "convert", "convert:m", "dist"),
        *("evaluate", "evaluate:m/a", "evaluate:m/b", "evaluate:m/float32"),
        *("quantize", "quantize:m/a", "quantize:m/b", "report"),
    }


def test_a_model_saved_again_converts_to_the_same_bytes_and_is_cut_off_there(built: Workspace) -> None:
    again = (built.root / "again.keras").read_bytes()
    assert again != (built.root / "model.keras").read_bytes()
    (built.root / "model.keras").write_bytes(again)
    assert after(built) == {"convert:m"}


def test_another_metric_only_evaluates_anew(built: Workspace) -> None:
    """Ranges are chosen by SQNR, whatever the metric is."""
    built.edit('metric = "top1"', 'metric = "agreement"')
    assert after(built) == {"evaluate:m/float32", "evaluate:m/a", "evaluate:m/b"}


def test_a_gate_only_judges_anew(built: Workspace) -> None:
    built.manifest.write_text(built.manifest.read_text() + "[model.m.gate]\nmin_agreement = 0.01\n")
    assert after(built) == set()
    assert "check" in built.steps("executed")


@pytest.mark.parametrize("path", ["build/m/statistics.npz", "build/m/float32.tflite"])
@pytest.mark.parametrize("tamper", [True, False])
def test_what_was_made_on_the_way_is_repaired(built: Workspace, path: str, tamper: bool) -> None:
    good = (built.root / path).read_bytes()
    (built.root / path).write_bytes(good + b"\x00") if tamper else (built.root / path).unlink()
    step = "calibrate:m" if "statistics" in path else "convert:m"
    assert after(built, "quantize") == {step}
    assert (built.root / path).read_bytes() == good
