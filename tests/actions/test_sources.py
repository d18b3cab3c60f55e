"""convert: every source gives one float32 .tflite with static shapes and its own names, or says what is wrong."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import converted

from quantbuild.errors import StepError
from quantbuild.tflite import describe, graph


def described(data: bytes) -> dict[str, Any]:
    return describe.describe(data)


def free_tensors(data: bytes) -> list[str]:
    signatures = {graph.tensor_name(t): t.shapeSignature for t in graph.main(graph.read(data)).tensors}
    return [name for name, sizes in signatures.items() if sizes is not None and min(sizes, default=0) < 0]


def run(data: bytes, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=data).get_signature_runner("serving_default")(**inputs)


def test_a_keras_model_gets_batch_1_and_keeps_its_weights(models: Path, tmp_path: Path) -> None:
    import keras

    data = converted("keras", models / "net.keras", tmp_path)
    about = described(data)
    assert about["signature"] == "serving_default"
    assert [(port["name"], port["shape"], port["dtype"]) for port in about["inputs"]] == [
        ("image", [1, 16, 16, 3], "float32")
    ]
    assert [(port["name"], port["shape"]) for port in about["outputs"]] == [("probabilities", [1, 10])]
    assert free_tensors(data) == []
    assert not {"VAR_HANDLE", "SHAPE"} & set(about["ops"])
    image = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    expected = keras.saving.load_model(models / "net.keras")(image).numpy()
    np.testing.assert_allclose(run(data, image=image)["probabilities"], expected, atol=1e-5)


def test_a_saved_models_dynamic_batch_becomes_1_everywhere(models: Path, tmp_path: Path) -> None:
    data = converted("saved_model", models / "net", tmp_path)
    assert described(data)["inputs"][0]["shape"] == [1, 16, 16, 3]
    assert described(data)["inputs"][0]["name"] == "image"
    assert free_tensors(data) == []
    assert "SHAPE" not in described(data)["ops"]


@pytest.mark.parametrize(("source", "name"), [("keras", "pair.keras"), ("saved_model", "pair")])
def test_two_inputs_and_outputs_are_bound_by_name(models: Path, tmp_path: Path, source: str, name: str) -> None:
    import keras

    data = converted(source, models / name, tmp_path)
    shapes = {port["name"]: port["shape"] for port in described(data)["inputs"]}
    assert shapes == {"left": [1, 4], "right": [1, 6]}
    left, right = np.full((1, 4), 0.5, np.float32), np.linspace(0, 1, 6, dtype=np.float32)[None]
    expected = keras.saving.load_model(models / "pair.keras")({"left": left, "right": right})
    found = run(data, left=left, right=right)
    assert set(found) == {"sum", "all"}
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key].numpy(), atol=1e-5)


@pytest.mark.parametrize(("source", "name"), [("keras", "free.keras"), ("saved_model", "free")])
def test_free_dimensions_must_be_pinned(models: Path, tmp_path: Path, source: str, name: str) -> None:
    with pytest.raises(StepError) as caught:
        converted(source, models / name, tmp_path)
    message = str(caught.value)
    assert 'input "frame" has the shape [?, ?, ?, 3]' in message
    assert "input_shapes = { frame = [1, …, …, 3] }" in message
    data = converted(source, models / name, tmp_path, input_shapes={"frame": [1, 12, 20, 3]})
    assert described(data)["inputs"][0]["shape"] == [1, 12, 20, 3]
    assert free_tensors(data) == []


def test_pins_that_do_not_fit_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StepError, match=r"input_shapes.frame = \[1, 12, 20\] does not fit the model's \[\?, \?, \?, 3\]"
    ):
        converted("keras", models / "free.keras", tmp_path, input_shapes={"frame": [1, 12, 20]})
    with pytest.raises(StepError, match='input_shapes names "frme", which is no input; the model has frame'):
        converted("keras", models / "free.keras", tmp_path, input_shapes={"frme": [1, 12, 20, 3]})


def test_shapes_that_the_model_cannot_take_are_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"the model cannot take frame = \[1, 2, 2, 3\]: .*; change input_shapes"):
        converted("keras", models / "free.keras", tmp_path, input_shapes={"frame": [1, 2, 2, 3]})


@pytest.mark.parametrize("name", ["from", "input image", "pixel.values"])
def test_awkward_input_names_survive(tmp_path: Path, name: str) -> None:
    import keras

    inputs = keras.Input((3,), name=name)
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "named.keras")
    data = converted("keras", tmp_path / "named.keras", tmp_path)
    assert [port["name"] for port in described(data)["inputs"]] == [name]


def test_a_sequential_model_and_integer_inputs_convert(models: Path, tmp_path: Path) -> None:
    row = described(converted("keras", models / "row.keras", tmp_path))
    assert [port["name"] for port in row["outputs"]] == ["scores"]
    words = described(converted("keras", models / "words.keras", tmp_path))
    assert [(port["name"], port["dtype"], port["shape"]) for port in words["inputs"]] == [("words", "int32", [1, 6])]


def test_an_unknown_signature_lists_those_there_are(models: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r'net: the SavedModel has no signature "score"; .* one of .*serving_default'):
        converted("saved_model", models / "net", tmp_path, signature="score")
    with pytest.raises(StepError, match='no signature "score"; set signature to one of serving_default'):
        tflite = tmp_path / "a.tflite"
        tflite.write_bytes(converted("saved_model", models / "net", tmp_path))
        converted("tflite", tflite, tmp_path, signature="score")


def test_a_named_signature_of_a_saved_model_is_converted(models: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(tf.ones([3, 2]))
    spec = tf.TensorSpec([None, 3], tf.float32, name="x")
    double = tf.function(lambda x: {"twice": 2.0 * tf.matmul(x, module.weight)}).get_concrete_function(spec)
    third = tf.function(lambda x: {"third": tf.matmul(x, module.weight) / 3.0}).get_concrete_function(spec)
    tf.saved_model.save(module, str(tmp_path / "two"), signatures={"double": double, "third": third})
    data = converted("saved_model", tmp_path / "two", tmp_path, signature="third")
    assert described(data)["signature"] == "serving_default"
    np.testing.assert_allclose(run(data, x=np.ones((1, 3), np.float32))["third"], [[1.0, 1.0]])
    with pytest.raises(StepError, match="set signature to one of double, third"):
        converted("saved_model", tmp_path / "two", tmp_path)


def test_a_float_tflite_passes_unchanged(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "given.tflite"
    path.write_bytes(converted("keras", models / "net.keras", tmp_path))
    assert converted("tflite", path, tmp_path / "again") == path.read_bytes()


def test_a_tflite_with_a_free_batch_becomes_batch_1(models: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "dynamic.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(models / "net")).convert())
    assert free_tensors(path.read_bytes())
    data = converted("tflite", path, tmp_path)
    assert free_tensors(data) == []
    assert described(data)["inputs"][0]["shape"] == [1, 16, 16, 3]
    image = np.random.default_rng(0).random((1, 16, 16, 3), np.float32)
    np.testing.assert_allclose(run(data, image=image)["output_0"], run(path.read_bytes(), image=image)["output_0"])


def test_a_tflite_with_free_sides_needs_pins(models: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    path = tmp_path / "free.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(models / "free")).convert())
    with pytest.raises(StepError, match=r'free\.tflite: input "frame" has the shape'):
        converted("tflite", path, tmp_path)
    data = converted("tflite", path, tmp_path, input_shapes={"frame": [1, 10, 8, 3]})
    assert described(data)["inputs"][0]["shape"] == [1, 10, 8, 3]
    assert free_tensors(data) == []


def test_a_tflite_without_signature_is_given_one(models: Path, tmp_path: Path) -> None:
    model = graph.read(converted("keras", models / "net.keras", tmp_path))
    model.signatureDefs = None
    path = tmp_path / "nameless.tflite"
    path.write_bytes(graph.write(model))
    about = described(converted("tflite", path, tmp_path))
    assert about["signature"] == "serving_default"
    assert [port["name"] for port in about["inputs"]] == ["serving_default_image:0"]


@pytest.mark.parametrize(
    ("source", "name", "expected"),
    [
        ("keras", "net", "it is a folder"),
        ("keras", "text.keras", "it is no .keras file"),
        ("saved_model", "net.keras", "it is no folder"),
        ("saved_model", "empty", "holds no saved_model.pb"),
        ("tflite", "net", "it is no file"),
        ("tflite", "text.keras", "not a .tflite"),
    ],
)
def test_the_wrong_kind_of_path_is_named(models: Path, tmp_path: Path, source: str, name: str, expected: str) -> None:
    (models / "text.keras").write_text("no model at all")
    (models / "empty").mkdir(exist_ok=True)
    with pytest.raises(StepError, match=expected):
        converted(source, models / name, tmp_path)


def test_code_in_a_keras_file_is_not_run(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(tmp_path / "lambda.keras")
    with pytest.raises(StepError, match="cannot load it"):
        converted("keras", tmp_path / "lambda.keras", tmp_path)


def test_an_op_without_builtin_kernel_is_named(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    serve = tf.function(lambda x: {"y": tf.math.erfinv(x)}).get_concrete_function(
        tf.TensorSpec([1, 3], tf.float32, name="x")
    )
    tf.saved_model.save(module, str(tmp_path / "erfinv"), signatures=serve)
    with pytest.raises(StepError, match=r"no builtin op for .*Erfinv"):
        converted("saved_model", tmp_path / "erfinv", tmp_path)


def test_every_output_of_a_model_keeps_its_name_and_values(tmp_path: Path) -> None:
    import keras

    features = keras.Input((4,), name="features")
    hidden = keras.layers.Dense(5, activation="relu")(features)
    # Made in this order, named in the other.
    outputs = [keras.layers.Dense(2, name="zebra")(hidden), keras.layers.Dense(2, name="ant")(hidden)]
    model = keras.Model(features, outputs)
    model.save(tmp_path / "two.keras")
    x = np.random.default_rng(2).random((1, 4), np.float32)
    zebra, ant = (np.asarray(value) for value in model(x))
    found = run(converted("keras", tmp_path / "two.keras", tmp_path), features=x)
    np.testing.assert_allclose(found["zebra"], zebra, atol=1e-6)
    np.testing.assert_allclose(found["ant"], ant, atol=1e-6)


def test_uint8_inputs_stay_uint8(tmp_path: Path) -> None:
    import keras

    pixels = keras.Input((6, 6, 3), dtype="uint8", name="pixels")
    x = keras.layers.Conv2D(4, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(pixels))
    model = keras.Model(pixels, keras.layers.Dense(2, name="scores")(keras.layers.GlobalAveragePooling2D()(x)))
    model.save(tmp_path / "pixels.keras")
    data = converted("keras", tmp_path / "pixels.keras", tmp_path)
    assert described(data)["inputs"][0]["dtype"] == "uint8"
    image = np.random.default_rng(2).integers(0, 256, (1, 6, 6, 3), np.uint8)
    np.testing.assert_allclose(run(data, pixels=image)["scores"], np.asarray(model(image)), atol=1e-5)


def test_a_subclassed_model_is_told_to_be_exported_and_then_converts(tmp_path: Path) -> None:
    import keras

    @keras.saving.register_keras_serializable("tests")
    class Own(keras.Model):
        def __init__(self, **keys: Any) -> None:
            super().__init__(**keys)
            self.dense = keras.layers.Dense(3)

        def call(self, features: Any) -> Any:
            return self.dense(features)

    model = Own()
    x = np.ones((1, 4), np.float32)
    expected = np.asarray(model(x))
    model.save(tmp_path / "own.keras")
    with pytest.raises(StepError, match=r"no inputs of its own .*model\.export"):
        converted("keras", tmp_path / "own.keras", tmp_path)
    model.export(tmp_path / "own", verbose=False)
    data = converted("saved_model", tmp_path / "own", tmp_path)
    (name,) = (port["name"] for port in described(data)["inputs"])
    (found,) = run(data, **{name: x}).values()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_text_lookup_tables_and_state_are_refused_by_name(tmp_path: Path) -> None:
    import tensorflow as tf

    class Odd(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            keys = tf.lookup.KeyValueTensorInitializer(tf.constant([1], tf.int64), tf.constant([3], tf.int64))
            self.table = tf.lookup.StaticHashTable(keys, -1)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def length(self, text: Any) -> Any:
            return {"length": tf.strings.length(text)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="word")])
        def look(self, word: Any) -> Any:
            return {"found": self.table.lookup(word)}

    class Counter(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum = tf.Variable(tf.zeros([1, 3]))

        @tf.function(input_signature=[tf.TensorSpec([1, 3], tf.float32, name="x")])
        def add(self, x: Any) -> Any:
            self.sum.assign_add(x)
            return {"sum": self.sum.read_value()}

    odd, counter = Odd(), Counter()
    tf.saved_model.save(odd, str(tmp_path / "odd"), signatures={"length": odd.length, "look": odd.look})
    tf.saved_model.save(counter, str(tmp_path / "counter"), signatures=counter.add)
    with pytest.raises(StepError, match='input "text" is of type string'):
        converted("saved_model", tmp_path / "odd", tmp_path, signature="length")
    with pytest.raises(StepError, match="no builtin op for HashTableV2"):
        converted("saved_model", tmp_path / "odd", tmp_path, signature="look")
    with pytest.raises(StepError, match="keeps state in variables"):
        converted("saved_model", tmp_path / "counter", tmp_path)


CHILD = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tiny_models import converted
folder, output = Path(sys.argv[2]), Path(sys.argv[3])
for source, path in (("keras", "net.keras"), ("saved_model", "net"), ("keras", "pair.keras")):
    print("sha", hashlib.sha256(converted(source, folder / path, output)).hexdigest())
"""


def test_bytes_are_equal_in_another_process(models: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    here = str(Path(__file__).parent)
    shutil.copytree(models, tmp_path / "elsewhere")  # where a model lies must not show
    command = [sys.executable, "-c", CHILD, here, str(tmp_path / "elsewhere"), str(tmp_path)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    theirs = [line.split()[1] for line in output.splitlines() if line.startswith("sha ")]
    ours = [
        converted("keras", models / "net.keras", tmp_path / "own"),
        converted("saved_model", models / "net", tmp_path / "own"),
        converted("keras", models / "pair.keras", tmp_path / "own"),
    ]
    assert [hashlib.sha256(data).hexdigest() for data in ours] == theirs
