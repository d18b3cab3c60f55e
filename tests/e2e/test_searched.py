"""Ranges and mixed precision chosen by real trials: what is met, what is told, and that nothing is done twice."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from workspace import DODO, Workspace

# One channel is 300 times louder than the others, which the next convolution undoes; ABS between bars equalization.
MAKE = """
import keras, numpy as np
keras.utils.set_random_seed(3)
L = keras.layers
image = keras.Input((12, 12, 4), name="x")
h = L.Conv2D(12, 3, padding="same", activation="relu", name="first")(image)
h = keras.ops.abs(L.Conv2D(12, 3, padding="same", name="loud")(h))
h = L.Conv2D(12, 3, padding="same", activation="relu", name="quiet")(L.AveragePooling2D(2)(h))
h = L.GlobalAveragePooling2D()(L.Conv2D(12, 3, activation="relu")(h))
model = keras.Model(image, L.Dense(6, name="scores")(h))
for name, scale, channel in (("loud", 300.0, np.s_[..., 0]), ("quiet", 1 / 300, np.s_[:, :, 0])):
    weights, bias = model.get_layer(name).get_weights()
    weights[channel] *= scale
    model.get_layer(name).set_weights([weights, bias])
rng = np.random.default_rng(0)
x = {name: rng.standard_normal((count, 12, 12, 4)) for name, count in (("c", 100), ("e", 400))}
for name, values in x.items():
    x[name] = (values + 3 * rng.standard_normal((len(values), 1, 1, 4))).astype("f")
    np.savez(f"{name}.npz", x=x[name])
scores = model.predict(x["c"], verbose=0)  # whose classes are made equally likely
kernel, bias = model.get_layer("scores").get_weights()
model.get_layer("scores").set_weights([kernel / scores.std(0), (bias - scores.mean(0)) / scores.std(0)])
model.save("m.keras")
keras.Sequential([keras.Input((12, 12, 4), name="x"), L.Flatten(), L.Dense(1)]).save("number.keras")
"""

MANIFEST = """schema = 1
[dataset.c]
loader = "npz"
path = "c.npz"
input = "x"
[dataset.e]
loader = "npz"
path = "e.npz"
input = "x"
[model.m]
source = "keras"
path = "m.keras"
calibration = "c"
evaluation = "e"
lint_ignore = ["noise"]
[model.m.variant]
int8 = { scheme = "int8" }
strict = { scheme = "mixed", search = { max_accuracy_loss = 0.1 } }
loose = { scheme = "mixed", search = { max_accuracy_loss = 0.9 } }
[model.number]
source = "keras"
path = "number.keras"
calibration = "c"
lint_ignore = ["noise"]
[model.number.variant]
int8 = { scheme = "int8" }
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    root = tmp_path_factory.mktemp("searched") / "workspace"
    (root / "manifests").mkdir(parents=True)
    (root / "dodo.py").write_text(DODO)
    (root / "manifests" / "m.toml").write_text(MANIFEST)
    subprocess.run([sys.executable, "-c", MAKE], cwd=root, check=True, capture_output=True, timeout=300)
    return Workspace(root)


def test_a_search_meets_its_limit_and_nothing_is_done_twice(workspace: Workspace) -> None:
    workspace.doit("report")
    report = json.loads((workspace.root / "build/report/report.json").read_text())
    models = {model["name"]: {each["name"]: each for each in model["variants"]} for model in report["models"]}
    found = models["m"]
    strict, loose = found["strict"]["search"], found["loose"]["search"]
    size = {name: each["artifact"]["size_bytes"] for name, each in found.items()}

    assert found["int8"]["accuracy"]["loss"] > 0.1, "the model is harmless; make its channels more uneven"
    assert strict["verdict"] == loose["verdict"] == "pass"
    assert strict["islands"] != [] == loose["islands"]
    assert found["strict"]["accuracy"]["loss_high"] <= 0.1
    assert found["strict"]["accuracy"]["sqnr_db"] > found["int8"]["accuracy"]["sqnr_db"] + 10
    assert size["loose"] <= size["int8"] < size["strict"] < size["float32"]
    for search in (strict, loose):
        assert len(search["trials"]) <= 16
        assert [each["error"] for each in search["trials"] if each["error"]] == []
        assert [each["limit"] for each in search["confirmations"]] == [0.9 if search is loose else 0.1]
    assert [each["error"] for each in models["number"].values()] == [None, None]

    again = workspace.doit("report")
    assert "0 executed, 0 restored" in again.splitlines()[-1]
