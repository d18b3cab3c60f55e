"""quantize: every scheme gives a model that runs, does what its options say and says what it did."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_models import converted, job

from quantbuild.actions import calibrate, quantize
from quantbuild.errors import StepError
from quantbuild.schemes import int8
from quantbuild.tflite import capabilities, describe, graph, ranges, statistics_file, weights

SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "net": {"image": (16, 16, 3)},
    "pair": {"left": (4,), "right": (6,)},
    "wide": {"image": (56, 56, 3)},
    "words": {"words": (6,)},
}
OTHER_SHAPES = {"sine": {"x": (8,)}, "odd": {"pixel values": (8,)}}
SAMPLES = 12


def made_up(name: str) -> dict[str, np.ndarray]:
    """Signature input name → the calibration samples of a model."""
    generator = np.random.default_rng(3)
    if name == "words":
        return {"words": generator.integers(0, 20, (SAMPLES, 6)).astype(np.int32)}
    arrays = {
        key: generator.random((SAMPLES, *shape), np.float32) for key, shape in (SHAPES | OTHER_SHAPES)[name].items()
    }
    for array in arrays.values():
        array[0] *= 5  # one sample far out of the others' range
    return arrays


class Workspace:
    """A folder with a model's float32.tflite, its calibration set and its statistics."""

    def __init__(self, name: str, models: Path, folder: Path) -> None:
        self.folder, self.source = folder, models / f"{name}.keras"
        self.float32 = folder / "float32.tflite"
        converted("keras", self.source, folder)
        arrays = made_up(name)
        np.savez(folder / "data.npz", **arrays)
        options = {"path": "data.npz", "input": {key: key for key in arrays}}
        self.dataset = {"loader": "npz", "options": options, "samples": None, "seed": 0, "name": "tiny"}
        self.arrays = arrays
        parameters = {"dataset": self.dataset, "hold_back": None, "statistics": "all"}
        inputs = {"model": self.float32, "data": folder / "data.npz"}
        step = job("calibrate", folder, inputs, {"statistics": "statistics.npz"}, parameters)
        calibrate.run(step)
        self.statistics = Path(step.outputs["statistics"])

    def quantize(self, scheme: str, **options: Any) -> tuple[bytes, dict[str, Any]]:
        inputs, parameters = {"model": self.float32}, {"scheme": scheme, "options": options}
        if scheme == "int8" and options.get("engine") == "tflite":
            inputs |= {"source": self.source, "data": self.folder / "data.npz"}
            how = {"source": "keras", "signature": None, "input_shapes": {}}
            parameters |= {"source": how, "dataset": self.dataset, "hold_back": {"fraction": 0.2, "seed": 0}}
        elif scheme == "int8":
            inputs |= {"statistics": self.statistics}
            options.setdefault("ranges", "minmax")  # the key's own default is settled before the step
        step = job("quantize", self.folder, inputs, {"model": "model.tflite"}, parameters)
        values = quantize.run(step)
        msgspec.json.encode(values)
        return Path(step.outputs["model"]).read_bytes(), values


@pytest.fixture(scope="session")
def workspaces(models: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Workspace]:
    return {name: Workspace(name, models, tmp_path_factory.mktemp(name)) for name in SHAPES}


@pytest.fixture(scope="session")
def net(workspaces: dict[str, Workspace]) -> Workspace:
    return workspaces["net"]


def run(data: bytes, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(model_content=data).get_signature_runner("serving_default")(**inputs)


@pytest.mark.parametrize("io", ["int8", "uint8", "float32"])
def test_int8_inputs_and_outputs_are_what_io_says(net: Workspace, io: str) -> None:
    data, values = net.quantize("int8", io=io)
    about = describe.describe(data)
    assert about["inputs"][0]["dtype"] == about["outputs"][0]["dtype"] == io
    assert (about["inputs"][0]["scale"] is None) == (io == "float32")
    assert about["float_ops"] == values["float_ops"] == []
    assert about["minimal_runtime"]
    assert values["scheme"] == "int8"
    assert values["ranges"] == "minmax"
    assert [port["name"] for port in about["inputs"] + about["outputs"]] == ["image", "probabilities"]


def test_int8_weights_are_per_channel_and_close_to_float(net: Workspace) -> None:
    data, _ = net.quantize("int8")
    model = graph.read(data)
    constants = [t for t in graph.main(model).tensors if graph.is_constant(model, t) and graph.type_name(t) == "INT8"]
    assert any(len(t.quantization.scale) == 8 for t in constants)
    image = net.arrays["image"][1:2]
    found = run(data, image=image)["probabilities"]
    np.testing.assert_allclose(found, run(net.float32.read_bytes(), image=image)["probabilities"], atol=0.02)


def test_int8_keeps_two_inputs_and_outputs_apart(workspaces: dict[str, Workspace]) -> None:
    pair = workspaces["pair"]
    data, values = pair.quantize("int8")
    assert values["float_ops"] == []
    sample = {name: array[2:3] for name, array in pair.arrays.items()}
    exact, found = run(pair.float32.read_bytes(), **sample), run(data, **sample)
    assert set(found) == {"sum", "all"}
    for name, value in exact.items():
        np.testing.assert_allclose(found[name], value, atol=0.1)


def test_sample_mean_clips_large_tensors_only(workspaces: dict[str, Workspace]) -> None:
    wide = workspaces["wide"]
    widest, none_clipped = wide.quantize("int8", ranges="minmax")
    clipped, some_clipped = wide.quantize("int8", ranges="sample_mean")
    assert widest != clipped
    assert none_clipped["clipped_tensors"] == 0
    assert some_clipped["clipped_tensors"] > 0
    model = graph.read(wide.float32.read_bytes())
    statistics = statistics_file.read(wide.statistics)
    low = ranges.choose(model, statistics, "minmax")
    mean = ranges.choose(model, statistics, "sample_mean")
    changed = {tensor for tensor in low if low[tensor] != mean[tensor]}
    sizes = {t: int(np.prod(graph.shape(graph.main(model).tensors[t]))) for t in low}
    assert changed == {t for t in low if sizes[t] > ranges.SMALL_TENSOR_ELEMENTS}
    assert changed
    assert not changed & set(graph.indices(graph.main(model).outputs))


def test_a_large_graph_output_is_never_clipped(workspaces: dict[str, Workspace]) -> None:
    wide = workspaces["wide"]
    model = graph.read(wide.float32.read_bytes())
    large = next(t for t in graph.activations(model) if t not in ranges.never_clipped(model))
    graph.main(model).outputs = [large]
    assert large in ranges.never_clipped(model)


def test_the_plain_converter_runs_on_the_samples_not_held_back(net: Workspace) -> None:
    data, values = net.quantize("int8", engine="tflite", io="int8")
    assert values["engine"] == "tflite"
    assert values["samples"] == SAMPLES - round(0.2 * SAMPLES)
    assert values["float_ops"] == []
    assert describe.describe(data)["inputs"][0]["dtype"] == "int8"


def test_the_plain_converter_names_a_bad_sample_and_its_file(net: Workspace, tmp_path: Path) -> None:
    image = net.arrays["image"].copy()
    image[:, 0, 0, 0] = np.nan  # in all, whichever are held back
    np.savez(tmp_path / "bad.npz", image=image)
    dataset = net.dataset | {"options": {"path": "bad.npz", "input": {"image": "image"}}, "name": "worn"}
    how = {"source": "keras", "signature": None, "input_shapes": {}}
    parameters = {"scheme": "int8", "options": {"engine": "tflite"}, "source": how, "dataset": dataset}
    inputs = {"model": net.float32, "source": net.source, "data": tmp_path / "bad.npz"}
    with pytest.raises(StepError, match=r"^worn \(bad\.npz\): sample 0: input 'image' \(float32\) holds NaN"):
        quantize.run(job("quantize", tmp_path, inputs, {"model": "m"}, parameters))


def test_the_plain_converter_binds_two_inputs_by_name(workspaces: dict[str, Workspace]) -> None:
    data, values = workspaces["pair"].quantize("int8", engine="tflite")
    assert values["float_ops"] == []
    scales = {port["name"]: port["shape"] for port in describe.describe(data)["inputs"]}
    assert scales == {"left": [1, 4], "right": [1, 6]}


def test_names_that_are_no_identifiers_survive_both_engines(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8,), name="pixel values")
    keras.Model(inputs, keras.layers.Dense(4, name="class.scores")(inputs)).save(tmp_path / "odd.keras")
    odd = Workspace("odd", tmp_path, tmp_path / "odd")
    for engine in ("quantbuild", "tflite"):
        about = describe.describe(odd.quantize("int8", engine=engine)[0])
        assert [port["name"] for port in about["inputs"] + about["outputs"]] == ["pixel values", "class.scores"]


def test_the_plain_converter_refuses_other_ranges_and_tflite_sources(net: Workspace) -> None:
    with pytest.raises(msgspec.ValidationError, match='engine = "tflite" takes its own minima and maxima'):
        net.quantize("int8", engine="tflite", ranges="sample_mean")
    parameters = {
        "scheme": "int8",
        "options": {"engine": "tflite"},
        "source": {"source": "tflite", "signature": None, "input_shapes": {}},
        "dataset": net.dataset,
        "hold_back": None,
    }
    step = job("quantize", net.folder, {"model": net.float32, "source": net.float32}, {"model": "m"}, parameters)
    with pytest.raises(StepError, match='not source = "tflite"; use engine = "quantbuild"'):
        quantize.run(step)


def test_integer_inputs_stay_integers_under_int8_io(workspaces: dict[str, Workspace]) -> None:
    data, values = workspaces["words"].quantize("int8", io="int8")
    about = describe.describe(data)
    assert [port["dtype"] for port in about["inputs"] + about["outputs"]] == ["int32", "int8"]
    assert values["float_ops"] == []


def test_an_op_without_int8_kernel_stays_float_and_is_listed(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((8,), name="x")
    keras.Model(inputs, keras.ops.sin(keras.layers.Dense(4)(inputs))).save(tmp_path / "sine.keras")
    sine = Workspace("sine", tmp_path, tmp_path / "sine")
    _, values = sine.quantize("int8")
    assert [entry["op"] for entry in values["float_ops"]] == ["DEQUANTIZE", "SIN"]
    data, values = sine.quantize("int8", io="int8")
    assert [entry["op"] for entry in values["float_ops"]] == ["DEQUANTIZE", "SIN", "QUANTIZE"]
    assert describe.describe(data)["outputs"][0]["dtype"] == "int8"


def test_an_output_that_stays_float_is_refused_under_int8_io(net: Workspace) -> None:
    with pytest.raises(StepError, match='"image" stays float32: its op has no int8 kernel'):
        int8._check_io(graph.read(net.float32.read_bytes()), "int8")


@pytest.mark.parametrize("scheme", ["float16", "dynamic"])
def test_weight_schemes_are_smaller_and_close(net: Workspace, scheme: str) -> None:
    data, values = net.quantize(scheme)
    kind = {"float16": "float16", "dynamic": "int8"}[scheme]
    assert values["quantized"][kind]["tensors"] == 4
    assert values["left_float"] == []
    assert values["left_float_elements"] > 0  # biases
    assert len(data) < net.float32.stat().st_size
    # The float model's note would be wrong for these ops.
    oldest = {"float16": "1.15.0", "dynamic": "2.17.0"}[scheme]
    assert describe.describe(data)["minimal_runtime"] == describe.describe(data)["noted_runtime"] == oldest
    image = net.arrays["image"][1:2]
    expected = run(net.float32.read_bytes(), image=image)["probabilities"]
    np.testing.assert_allclose(run(data, image=image)["probabilities"], expected, atol=0.02)


def test_a_scheme_that_quantizes_nothing_is_an_error(net: Workspace) -> None:
    model = graph.read(net.float32.read_bytes())
    graph.main(model).operators = []
    with pytest.raises(StepError, match="no weight could be quantized"):
        weights.report(graph.write(model))


def test_a_weight_left_in_float_is_named(net: Workspace) -> None:
    left = weights.report(net.quantize("dynamic")[0])["left_float"]
    assert left == []
    model = graph.read(net.quantize("dynamic")[0])
    tensor = graph.add_constant(model, graph.main(model), "lookup", np.ones((4, 4), np.float32))
    graph.main(model).operators[0].inputs = [*graph.indices(graph.main(model).operators[0].inputs), tensor]
    named = weights.report(graph.write(model))["left_float"]
    assert named == [{"op": "CONV_2D", "name": "lookup", "elements": 16}]


def test_statistics_that_are_not_finite_are_refused(net: Workspace, tmp_path: Path) -> None:
    statistics = statistics_file.read(net.statistics)
    highest = statistics.sample_max.copy()
    highest[2, 1] = np.inf
    model = graph.read(net.float32.read_bytes())
    with pytest.raises(StepError, match="is NaN or infinite on sample 2; repair"):
        ranges.choose(model, replace(statistics, sample_max=highest), "minmax")


def test_statistics_of_another_model_are_refused(workspaces: dict[str, Workspace]) -> None:
    model = graph.read(workspaces["net"].float32.read_bytes())
    with pytest.raises(StepError, match="calibrate again"):
        ranges.choose(model, statistics_file.read(workspaces["pair"].statistics), "minmax")


def test_a_tensor_that_nothing_reads_needs_no_range(net: Workspace) -> None:
    model = graph.read(net.float32.read_bytes())
    dead = graph.add_tensor(graph.main(model), "dead", (1, 4))
    graph.main(model).operators[0].outputs = [*graph.indices(graph.main(model).operators[0].outputs), dead]
    assert dead in graph.activations(model)
    assert dead not in ranges.choose(model, statistics_file.read(net.statistics), "minmax")


def test_unknown_options_do_not_decode() -> None:
    with pytest.raises(msgspec.ValidationError, match="rnages"):
        msgspec.convert({"rnages": "minmax"}, int8.Options)
    assert int8.needs(int8.Options()) == {"statistics", "selection"}
    assert int8.needs(int8.Options(ranges="minmax")) == {"statistics"}
    assert int8.needs(int8.Options(engine="tflite")) == {"samples", "source"}


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, "tensorflow.lite.python.convert.mlir_quantize is missing"),
        ({"mlir_quantize": lambda input_data_str: b""}, "parameter disable_per_channel, fully_quantize"),
        (None, "cannot be imported"),
    ],
)
def test_a_tensorflow_without_the_private_function_is_named(
    net: Workspace, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None, missing: str
) -> None:
    import tensorflow as tf

    stand_in = None if change is None else types.SimpleNamespace(**change)
    monkeypatch.setitem(sys.modules, capabilities.MLIR_MODULE, stand_in)
    with pytest.raises(StepError) as caught:
        net.quantize("int8")
    message = str(caught.value)
    assert message.startswith(f"tensorflow {tf.__version__}: ")
    assert missing in message
    assert f"install tensorflow {capabilities.TESTED}.*" in message
    assert 'engine = "tflite"' in message


CHILD = """
import hashlib, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import tiny_models
from quantbuild.actions import quantize
folder = Path(sys.argv[2])
for scheme in ("dynamic", "float16", "int8"):
    inputs, options = {"model": folder / "float32.tflite"}, {}
    if scheme == "int8":
        inputs["statistics"] = folder / "statistics.npz"
        options["ranges"] = "minmax"
    parameters = {"scheme": scheme, "options": options}
    step = tiny_models.job("quantize", Path(sys.argv[3]), inputs, {"model": "m"}, parameters)
    quantize.run(step)
    print("sha", hashlib.sha256(Path(step.outputs["model"]).read_bytes()).hexdigest())
    print("tensorflow" in sys.modules)
"""


def test_bytes_are_equal_in_another_process(net: Workspace, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONHASHSEED": "5", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(net.folder), str(tmp_path)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    theirs = [line.split()[1] for line in output.splitlines() if line.startswith("sha ")]
    ours = [hashlib.sha256(net.quantize(scheme)[0]).hexdigest() for scheme in ("dynamic", "float16", "int8")]
    assert theirs == ours
    # The weight schemes are for the light worker: they must not pull TensorFlow in.
    assert [line for line in output.splitlines() if line in ("True", "False")] == ["False", "False", "True"]
