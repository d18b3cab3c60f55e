"""Sources: legacy .h5 files and Python functions; each converted model computes what its own framework computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import job

from quantbuild.actions import convert
from quantbuild.errors import StepError
from quantbuild.tflite.runtime import Binding, open_interpreter

IMAGE = np.random.default_rng(3).random((1, 8, 8, 3), dtype=np.float32)


@pytest.fixture(scope="module")
def legacy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An .h5 of Keras 2's with a depthwise convolution, and what it computes for IMAGE."""
    import tf_keras

    tf_keras.utils.set_random_seed(1)
    layers = tf_keras.layers
    image = layers.Input((8, 8, 3), name="image")
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(image)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU(6.0)(x))
    model = tf_keras.Model(image, layers.Dense(4, activation="softmax", name="probabilities")(x))
    path = tmp_path_factory.mktemp("legacy") / "old.h5"
    model.save(path, save_format="h5")
    return path, np.asarray(model(IMAGE))


def converted(folder: Path, given: dict[str, Path], **parameters: Any) -> bytes:
    parameters = {"signature": None, "input_shapes": {}} | parameters
    step = job("convert", folder, given, {"model": "float32.tflite"}, parameters)
    convert.run(step)
    return Path(step.outputs["model"]).read_bytes()


def outputs(model: bytes, **sample: np.ndarray) -> dict[str, np.ndarray]:
    return Binding(open_interpreter(model)).run(sample)


def test_an_older_depthwise_h5_converts_through_tf_keras(legacy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, expected = legacy
    model = converted(tmp_path, {"model": path}, source="keras")
    np.testing.assert_allclose(outputs(model, image=IMAGE)["probabilities"], expected, atol=1e-6)


def test_keras_3_refuses_that_file_so_the_message_without_tf_keras_says_what_to_install(
    legacy: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tf_keras", None)
    with pytest.raises(StepError, match=r"Keras 3.* cannot load this \.h5 .*install tf_keras"):
        converted(tmp_path, {"model": legacy[0]}, source="keras")


def test_an_h5_of_weights_alone_is_named_as_that(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "only.weights.h5")
    with pytest.raises(StepError, match="holds weights alone"):
        converted(tmp_path / "out", {"model": tmp_path / "only.weights.h5"}, source="keras")


def test_a_damaged_h5_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 200)
    with pytest.raises(StepError, match=r"m\.h5: it cannot be read as HDF5 \(.*\); save the model again as \.keras"):
        converted(tmp_path, {"model": tmp_path / "m.h5"}, source="keras")


def test_code_in_an_h5_is_never_run(tmp_path: Path) -> None:
    import tf_keras

    image = tf_keras.Input((3,))
    doubled = tf_keras.layers.Lambda(lambda x: x * 2)(image)
    tf_keras.Model(image, tf_keras.layers.Dense(2)(doubled)).save(tmp_path / "code.h5", save_format="h5")
    with pytest.raises(StepError, match="Lambda layer"):
        converted(tmp_path / "out", {"model": tmp_path / "code.h5"}, source="keras")


@pytest.mark.parametrize(
    "spelling", [b'"class_name":"Lambda"', b'"class_name": "\\u004cambda"', b'"class_name": "__lambda__"']
)
def test_code_in_an_h5_is_found_however_it_is_spelt(
    legacy: tuple[Path, np.ndarray], tmp_path: Path, spelling: bytes
) -> None:
    import h5py

    path = tmp_path / "code.h5"
    path.write_bytes(legacy[0].read_bytes())
    with h5py.File(path, "r+") as file:
        given = file.attrs["model_config"]
        text = given if isinstance(given, bytes) else given.encode()
        file.attrs["model_config"] = text.replace(b'"class_name": "ReLU"', spelling)
    with pytest.raises(StepError, match="Python code"):
        converted(tmp_path / "out", {"model": path}, source="keras")


def test_an_h5_may_not_ask_for_code_beside_keras(legacy: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "code.h5"
    path.write_bytes(legacy[0].read_bytes())
    with h5py.File(path, "r+") as file:
        given = file.attrs["model_config"]
        text = given if isinstance(given, bytes) else given.encode()
        named = b'"module": "keras.utils", "class_name": "get_file"'
        file.attrs["model_config"] = text.replace(b'"class_name": "ReLU"', named)
    with pytest.raises(StepError, match=r"get_file of keras\.utils"):
        converted(tmp_path / "out", {"model": path}, source="keras")


PYTHON = """
import numpy as np

def net():
    import keras
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    return keras.Model(image, keras.layers.Dense(2, name="scores")(x))

KEPT = []

def lost():
    import tensorflow as tf
    weights = tf.Variable(np.arange(12, dtype=np.float32).reshape(3, 4))
    @tf.function
    def scores(features):
        return {"scores": tf.matmul(features, weights)}
    made = scores.get_concrete_function(tf.TensorSpec((None, 3), tf.float32, name="features"))
    if KEPT is not None:
        KEPT.append(weights)
    return made

def function():
    return lost()

def gone():
    global KEPT
    KEPT = None
    return lost()

def path():
    return "weights/old.h5"

def reader():
    np.load("weights/scale.npy")
    return net()

def saved_model():
    import pathlib
    return pathlib.Path("weights/folder")

def keras_file():
    return "weights/net.keras"

def tflite():
    return "weights/net.tflite"

def missing():
    return "weights/absent.keras"

def nothing():
    return 7

def subclassed():
    import keras
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)
        def call(self, x):
            return self.dense(x)
    made = Own()
    made(np.zeros((1, 3), np.float32))
    return made

def broken():
    raise KeyError("no such layer")
"""


@pytest.fixture
def workspace(tmp_path: Path, legacy: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_models.py").write_text(PYTHON)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "old.h5").write_bytes(legacy[0].read_bytes())
    np.save(tmp_path / "weights" / "scale.npy", np.ones(3))
    monkeypatch.chdir(tmp_path)  # a worker's current folder is the root
    return tmp_path


def from_python(workspace: Path, function: str, inputs: tuple[str, ...] = ()) -> bytes:
    parameters = {"function": f"my_models:{function}", "inputs": list(inputs)}
    return converted(workspace, {"model": workspace / "my_models.py"}, source="python", **parameters)


def test_a_function_may_return_a_keras_model(workspace: Path) -> None:
    import sys

    model = from_python(workspace, "net")
    expected = np.asarray(sys.modules["my_models"].net()(IMAGE))
    np.testing.assert_allclose(outputs(model, image=IMAGE)["scores"], expected, atol=1e-5)


def test_a_function_may_return_a_concrete_function_whose_dynamic_batch_becomes_one(workspace: Path) -> None:
    model = from_python(workspace, "function")
    found = outputs(model, features=np.array([[1, 2, 3]], np.float32))["scores"]
    np.testing.assert_allclose(found, np.array([[1, 2, 3]]) @ np.arange(12).reshape(3, 4))


def test_a_function_may_return_a_declared_path(workspace: Path, legacy: tuple[Path, np.ndarray]) -> None:
    model = from_python(workspace, "path", ("weights/**",))
    np.testing.assert_allclose(outputs(model, image=IMAGE)["probabilities"], legacy[1], atol=1e-6)


def test_a_function_may_return_each_kind_of_file(workspace: Path) -> None:
    import keras

    image = keras.Input((8, 8, 3), name="image")
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(image))
    net = keras.Model(image, keras.layers.Dense(2, name="scores")(pooled))
    net.save(workspace / "weights/net.keras")
    net.export(workspace / "weights/folder", verbose=False)
    expected = np.asarray(net(IMAGE))
    for function in ("keras_file", "saved_model", "tflite"):
        model = from_python(workspace, function, ("weights/**",))
        (found,) = outputs(model, image=IMAGE).values()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        (workspace / "weights/net.tflite").write_bytes(model)


@pytest.mark.parametrize("function", ["path", "reader"])
def test_an_undeclared_file_is_an_error_that_names_it(workspace: Path, function: str) -> None:
    with pytest.raises(StepError, match=r'weights/(old\.h5|scale\.npy)".* is not declared; add'):
        from_python(workspace, function)


def test_a_declared_file_may_be_read(workspace: Path) -> None:
    assert from_python(workspace, "reader", ("weights/scale.npy",))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("nothing", "it returns int; return a Keras model"),
        ("subclassed", r"no inputs of its own .*model\.export"),
        ("broken", "my_models:broken raised KeyError"),
        ("absent", "has no function absent"),
        ("gone", "variables are gone"),
    ],
)
def test_what_is_wrong_with_a_function_is_one_plain_line(workspace: Path, function: str, message: str) -> None:
    with pytest.raises(StepError, match=message) as caught:
        from_python(workspace, function)
    assert "\n" not in str(caught.value)


def test_an_h5_under_another_name_is_refused_since_its_key_would_not_know_the_reader(
    legacy: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    path = tmp_path / "old.keras"
    path.write_bytes(legacy[0].read_bytes())
    with pytest.raises(StepError, match=r"HDF5.*name it old\.h5"):
        converted(tmp_path / "out", {"model": path}, source="keras")
