"""Builds with TensorFlow in them: calibration once a model, the same bytes everywhere, exactly what is stale built."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from workspace import DEVICE, Workspace, write_workspace

MAKE = """
import keras, numpy as np
keras.utils.set_random_seed(0)
L = keras.layers
image = keras.Input((8, 8, 4), name="x")
h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3, use_bias=False)(image)))
h = L.Add()([L.DepthwiseConv2D(3, padding="same")(h), L.Conv2D(8, 1)(h)])
model = keras.Model(image, L.Dense(3, activation="softmax", name="scores")(L.GlobalAveragePooling2D()(h)))
model.save("m.keras")
model.export("m", verbose=False)
rng = np.random.default_rng(0)
np.savez("data.npz", x=rng.standard_normal((70, 8, 8, 4)).astype("f"), y=rng.integers(0, 3, 70))
np.savez("other.npz", x=rng.standard_normal((70, 8, 8, 4)).astype("f"), y=rng.integers(0, 3, 70))
open("labels.txt", "w").write("one\\ntwo\\nthree\\n")
"""

MANIFEST = """schema = 1
[dataset.calibration]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
samples = 50
[dataset.test]
loader = "npz"
path = "other.npz"
input = "x"
label = "y"
[model.m]
source = "keras"
path = "m.keras"
labels = "labels.txt"
calibration = "calibration"
evaluation = "test"
metric = "top1"
lint_ignore = ["noise"]
ship = { default = "int8", low_end = "dynamic" }
[model.m.variant]
int8 = { scheme = "int8", io = "int8" }
clipped = { scheme = "int8", ranges = "sample_mean" }
reference = { scheme = "int8", engine = "tflite" }
dynamic = { scheme = "dynamic" }
[model.exported]
source = "saved_model"
path = "m"
calibration = "calibration"
lint_ignore = ["noise"]
devices = []
[model.exported.variant]
int8 = { scheme = "int8" }
"""

VARIANTS = ("int8", "clipped", "reference", "dynamic")
STEPS = {
    *("convert:m", "calibrate:m", "convert:exported", "calibrate:exported", "quantize:exported/int8"),
    *(f"quantize:m/{name}" for name in VARIANTS),
    *(f"evaluate:m/{name}" for name in ("float32", *VARIANTS)),
    *(f"benchmark:m/{name}@host" for name in ("float32", *VARIANTS)),
    *("check", "dist", "report"),
}
CLOSING = {"check", "dist", "report"}


def of_variant(name: str) -> set[str]:
    return {f"quantize:m/{name}", f"evaluate:m/{name}", f"benchmark:m/{name}@host"}


def write(root: Path, models: Path) -> Workspace:
    shutil.copytree(models, root)
    return write_workspace(root, MANIFEST + DEVICE)


@pytest.fixture(scope="module")
def models(make_models: Callable[[str], Path]) -> Path:
    return make_models(MAKE)


@pytest.fixture(scope="module")
def first(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write(tmp_path_factory.mktemp("calibrated") / "first", models)
    workspace.doit("report")
    assert workspace.steps("executed") == STEPS
    return workspace


@pytest.fixture
def built(first: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the workspace in which everything was built, with no cache."""
    return first.copied(tmp_path / "built")


def test_a_build_leaves_what_apps_take(first: Workspace) -> None:
    published = {f"m/{name}.{suffix}" for name in VARIANTS for suffix in ("tflite", "json")}
    assert set(first.files("dist")) == {
        *published,
        *("m/model.tflite", "m/model.low_end.tflite", "exported/int8.tflite", "exported/int8.json"),
        *("m/labels.txt", "quantbuild.lock.json", "quantbuild.d"),
    }
    assert (first.root / "build/m/statistics.npz").is_file()
    assert (first.root / "build/m/statistics.npz.record.json").is_file()


def test_another_folder_and_number_of_processors_give_the_same_bytes(
    first: Workspace, models: Path, tmp_path: Path
) -> None:
    second = write(tmp_path / "deep" / "in a folder" / "second", models)
    command = ["taskset", "-c", "0", *second.command("doit", "check")]
    environment = {**second.environment, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=second.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    mine, other = first.files("dist"), second.files("dist")
    assert [path for path in mine if mine[path] != other.get(path)] == []
    assert mine.keys() == other.keys()
    for path in ("build/m/statistics.npz", "build/m/int8/samples.npz", "build/report/junit.xml"):
        assert (first.root / path).read_bytes() == (second.root / path).read_bytes(), path
    for root in (first.root, second.root):
        assert str(root).encode() not in b"".join(mine.values())


def test_an_option_of_one_variant_rebuilds_it_alone_and_put_back_nothing_runs(first: Workspace, tmp_path: Path) -> None:
    workspace = first.copied(tmp_path / "changed")
    workspace.environment["QUANTBUILD_CACHE_DIR"] = first.environment["QUANTBUILD_CACHE_DIR"]
    workspace.edit('scheme = "int8", io = "int8"', 'scheme = "int8", io = "uint8"')
    workspace.doit()
    assert workspace.steps("executed") == of_variant("int8") | CLOSING
    assert workspace.steps("up_to_date") == STEPS - of_variant("int8") - CLOSING
    workspace.edit('io = "uint8"', 'io = "int8"')
    workspace.doit()
    assert workspace.steps("executed") == set()
    assert workspace.files("dist") == first.files("dist")


def test_new_calibration_samples_leave_variants_alone_that_have_none(built: Workspace) -> None:
    built.edit("samples = 50", "samples = 40")
    built.doit("check")
    done = built.steps("executed")
    assert done >= {"calibrate:m", "calibrate:exported", "quantize:m/int8", "quantize:m/reference", "evaluate:m/int8"}
    untouched = {"convert:m", "convert:exported", "quantize:m/dynamic", "evaluate:m/float32", "evaluate:m/dynamic"}
    assert built.steps("up_to_date") >= untouched


def test_a_set_on_another_scale_fails_its_variants_and_a_warning_is_a_line(built: Workspace) -> None:
    with np.load(built.root / "data.npz") as arrays:
        np.savez(built.root / "data.npz", x=arrays["x"] * 100, y=arrays["y"])
    output = built.doit("check", code=1)
    failed = [line for line in output.splitlines() if line.startswith("gate failed: ")]
    assert [line.split(":")[1].strip() for line in failed] == ["m/int8", "m/clipped", "m/reference"], output
    assert all('lint: calibration (data.npz): input "x" goes from ' in line for line in failed)
    assert "    warning: calibration (data.npz): ranges are taken from 40 samples" in output
    assert built.steps("failed") == set()
    lock = json.loads((built.root / "dist/quantbuild.lock.json").read_bytes())["artifacts"]
    assert {name: entry["verdict"] for name, entry in lock.items()} == {
        "m/int8": "fail", "m/clipped": "fail", "m/reference": "fail", "m/dynamic": None, "exported/int8": None,
    }  # fmt: skip
    built.edit('lint_ignore = ["noise"]\nship', 'lint_ignore = ["noise", "range"]\nship')
    built.doit("check")
    assert "calibrate:m" in built.steps("executed")
    assert not built.steps("executed") & {"quantize:m/int8", "evaluate:m/int8"}


def test_noise_for_pictures_fails_the_calibration_and_what_needs_it(built: Workspace) -> None:
    built.edit('lint_ignore = ["noise"]\ndevices', "devices")
    output = built.doit("quantize", code=1)
    assert built.steps("failed") == {"calibrate:exported"}
    assert built.steps("blocked") == {"quantize:exported/int8"}
    assert 'calibration (data.npz): input "x" looks like random noise' in output
    assert '(lint_ignore = ["noise"] in the model if it must be so)' in output


def test_other_labels_change_the_contract_alone(built: Workspace) -> None:
    (built.root / "labels.txt").write_text("eins\nzwei\ndrei\n")
    before = built.files("dist")
    built.doit("quantize")
    assert built.steps("executed") == {"dist"}
    after = built.files("dist")
    changed = {path for path in after if after[path] != before[path]}
    assert {f"m/{name}.json" for name in VARIANTS} <= changed
    assert not any(path.endswith(".tflite") for path in changed)


def test_a_model_that_no_longer_converts_fails_alone_and_takes_its_artifacts_along(
    first: Workspace, built: Workspace
) -> None:
    before = built.files("dist")
    (built.root / "m.keras").write_bytes(b"no model at all")
    output = built.doit(code=1)
    assert built.steps("failed") == {"convert:m"}
    assert output.count("m.keras") == 1, output
    left = built.files("dist")
    assert {path for path in left if path.endswith(".tflite")} == {"exported/int8.tflite"}
    assert left["exported/int8.tflite"] == before["exported/int8.tflite"]
    built.doit(code=1)
    assert built.steps("executed") <= {"report"}  # which says that it failed before
    assert built.files("dist") == left
    (built.root / "m.keras").write_bytes((first.root / "m.keras").read_bytes())
    built.doit()
    assert built.files("dist") == before


def test_a_lost_build_folder_comes_back_the_same(first: Workspace, tmp_path: Path) -> None:
    workspace = first.copied(tmp_path / "clone")
    workspace.environment["QUANTBUILD_CACHE_DIR"] = first.environment["QUANTBUILD_CACHE_DIR"]
    subprocess.run(["rm", "-r", str(workspace.root / "build")], check=True)
    before = workspace.files("dist")
    workspace.doit("report")
    assert workspace.steps("executed") == set()
    assert workspace.files("dist") == before
