"""Models as people have them, through a real build: several inputs, integers, signatures, old files, functions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MAKE = """
import keras, numpy as np, tensorflow as tf, tf_keras
keras.utils.set_random_seed(3)
L = keras.layers

# Keys, layer order and names all sort differently: positions must not decide.
right, left = keras.Input((6,), name="right"), keras.Input((4,), name="left")
joined = L.Concatenate()([L.Dense(8, activation="relu")(left), L.Dense(8, activation="relu")(right)])
outputs = {"scores": L.Dense(3)(joined), "size": L.Dense(1)(joined)}
keras.Model({"right": right, "left": left}, outputs).save("pair.keras")

words = keras.Input((5,), dtype="int32", name="words")
x = L.GlobalAveragePooling1D()(L.Embedding(20, 8)(words))
keras.Model(words, L.Dense(3, name="scores")(L.Dense(8, activation="relu")(x))).save("words.keras")

pixels = keras.Input((8, 8, 3), dtype="uint8", name="pixels")
x = L.Conv2D(4, 3, activation="relu")(L.Rescaling(1 / 255)(pixels))
keras.Model(pixels, L.Dense(3, name="scores")(L.GlobalAveragePooling2D()(x))).save("pixels.keras")

frame = keras.Input((None, None, 3), name="frame")
x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(frame))
keras.Model(frame, L.Dense(2, name="scores")(x)).save("free.keras")

class Two(tf.Module):
    def __init__(self):
        self.weights = tf.Variable(np.random.default_rng(0).standard_normal((4, 3)), dtype=tf.float32)
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="features")])
    def score(self, features):
        return {"scores": features @ self.weights}
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="features")])
    def double(self, features):
        return {"doubled": 2.0 * (features @ self.weights)}
two = Two()
tf.saved_model.save(two, "two", signatures={"score": two.score, "double": two.double})

image = tf_keras.Input((8, 8, 3), name="image")
x = tf_keras.layers.DepthwiseConv2D(3, padding="same")(image)
x = tf_keras.layers.GlobalAveragePooling2D()(tf_keras.layers.ReLU(6.0)(x))
tf_keras.Model(image, tf_keras.layers.Dense(3, name="scores")(x)).save("old.h5", save_format="h5")

rng = np.random.default_rng(1)
np.savez(
    "data.npz",
    left=rng.standard_normal((40, 4)).astype("f"), right=rng.standard_normal((40, 6)).astype("f"),
    words=rng.integers(0, 20, (40, 5)).astype(np.int32), frame=rng.random((40, 12, 12, 3), dtype="f"),
    image=rng.random((40, 8, 8, 3), dtype="f"),
    pixels=rng.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8), y=rng.integers(0, 3, 40),
)
"""

FUNCTION = """
def scorer():
    import keras
    keras.utils.set_random_seed(9)
    features = keras.Input((4,), name="left")
    hidden = keras.layers.Dense(8, activation="relu")(features)
    return keras.Model(features, keras.layers.Dense(3, name="scores")(hidden))
"""

MODELS: dict[str, dict[str, Any]] = {
    "pair": {"source": "keras", "path": "pair.keras", "data": '{ left = "left", right = "right" }'},
    "words": {"source": "keras", "path": "words.keras", "data": '"words"'},
    "pixels": {"source": "keras", "path": "pixels.keras", "data": '"pixels"'},
    "free": {"source": "keras", "path": "free.keras", "data": '"frame"', "input_shapes": "{ frame = [1, 12, 12, 3] }"},
    "unpinned": {"source": "keras", "path": "free.keras", "data": '"frame"'},
    "score": {"source": "saved_model", "path": "two", "data": '"left"', "signature": '"score"'},
    "double": {"source": "saved_model", "path": "two", "data": '"left"', "signature": '"double"'},
    "unsigned": {"source": "saved_model", "path": "two", "data": '"left"'},
    "old": {"source": "keras", "path": "old.h5", "data": '"image"'},
    "function": {"source": "python", "path": "my_models:scorer", "data": '"left"'},
}
BROKEN = {"unpinned", "unsigned"}
INTEGER_ONLY = {"pair", "free", "score", "double", "old", "function"}


def manifest() -> str:
    parts = ["schema = 1\n"]
    for name, model in MODELS.items():
        parts.append(f'[dataset.{name}-data]\nloader = "npz"\npath = "data.npz"\ninput = {model["data"]}\n')
        parts.append(f'[model.{name}]\nsource = "{model["source"]}"\npath = "{model["path"]}"\n')
        parts += [f"{key} = {model[key]}\n" for key in ("input_shapes", "signature") if key in model]
        parts.append(f'calibration = "{name}-data"\nevaluation = "{name}-data"\nmetric = "sqnr"\n')
        parts.append('lint_ignore = ["noise"]\n')
        parts += [
            f'[model.{name}.variant.{scheme}]\nscheme = "{scheme}"\n' for scheme in ("int8", "float16", "dynamic")
        ]
    return "".join(parts)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any], Path]:
    root = tmp_path_factory.mktemp("kinds")
    (root / "manifests").mkdir()
    (root / "manifests" / "all.toml").write_text(manifest())
    (root / "dodo.py").write_text("from quantbuild.shell import tasks\nglobals().update(tasks())\n")
    (root / "my_models.py").write_text(FUNCTION)
    environment = {**os.environ, "QUANTBUILD_CACHE_DIR": str(root / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    made = subprocess.run(
        [sys.executable, "-c", MAKE], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run(
        [sys.executable, "-m", "doit", "report"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    report = json.loads((root / "build/report/report.json").read_bytes())
    return done, {model["name"]: {v["name"]: v for v in model["variants"]} for model in report["models"]}, root


Built = tuple[subprocess.CompletedProcess[str], dict[str, Any], Path]


@pytest.mark.parametrize("name", sorted(set(MODELS) - BROKEN))
def test_every_variant_of_a_good_model_is_built_and_close_to_float32(built: Built, name: str) -> None:
    done, models, _ = built
    for scheme, least_db in (("int8", 15), ("float16", 50), ("dynamic", 15)):
        variant = models[name][scheme]
        assert variant["error"] is None, done.stdout
        assert variant["accuracy"]["n"] == 40
        found = variant["accuracy"]["sqnr_db"]
        assert found is None or found > least_db, (name, scheme, found)


@pytest.mark.parametrize("name", sorted(INTEGER_ONLY))
def test_int8_leaves_no_float_op(built: Built, name: str) -> None:
    assert built[1][name]["int8"]["artifact"]["float_ops"] == []


def test_a_free_dimension_is_a_plain_error_with_the_remedy(built: Built) -> None:
    error = built[1]["unpinned"]["float32"]["error"]
    assert "frame" in error
    assert "input_shapes" in error


def test_a_missing_signature_lists_those_there_are(built: Built) -> None:
    assert "set signature to one of double, score" in built[1]["unsigned"]["float32"]["error"]


def test_broken_models_fail_the_build_without_a_traceback(built: Built) -> None:
    done = built[0]
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_the_contract_names_inputs_as_the_model_does(built: Built) -> None:
    contract = json.loads((built[2] / "dist/pair/int8.json").read_bytes())
    assert {tensor["name"]: tensor["shape"] for tensor in contract["inputs"]} == {"left": [1, 4], "right": [1, 6]}
    assert {tensor["name"] for tensor in contract["outputs"]} == {"scores", "size"}
