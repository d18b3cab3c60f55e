"""auto and mixed on models of other shapes: several inputs, integer inputs, a loop. What they make is near float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from in_process import InProcess

from quantbuild.metrics import powers, sqnr_db
from quantbuild.tflite import graph
from quantbuild.tflite.runtime import Binding, open_interpreter

COUNTS = {"calibration": 30, "selection": 30, "test": 60}
LOUD = 40.0
METRIC = """import numpy as np
def error(outputs, label):
    return float(np.abs(outputs["scores"] - label).mean())
error.higher_is_better = False
"""
MANIFEST = (
    "schema = 1\n"
    + "".join(
        f'[dataset.{name}]\nloader = "npz"\npath = "{name}.npz"\ninput = {{ INPUTS }}\nlabel = "label"\n'
        for name in COUNTS
    )
    + """
[model.m]
source = "keras"
path = "model.keras"
calibration = "calibration"
selection = "selection"
evaluation = "test"
metric = "distance:error"
lint_ignore = ["noise"]
[model.m.variant]
int8 = { scheme = "int8" }
mixed = { scheme = "mixed", search = { max_accuracy_loss = LIMIT } }
sixteen = { scheme = "mixed", islands = "int16", search = { max_accuracy_loss = LIMIT } }
"""
)


def _loud(x: Any, width: int, name: str) -> Any:
    """Two layers of which the first is far louder in one channel, and the second hears it softly."""
    from keras import layers

    x = layers.Dense(width, activation="elu", name=f"{name}_loud")(x)
    return layers.Dense(width, activation="elu", name=f"{name}_quiet")(x)


def two_inputs(keras: Any) -> Any:
    layers = keras.layers
    image, facts = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="facts")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu", name="seen")(image))
    known = _loud(layers.Dense(8, activation="relu", name="known")(facts), 8, "facts")
    joined = layers.Dense(8, activation="relu", name="joined")(layers.Concatenate()([known, seen]))
    return keras.Model(
        {"facts": facts, "image": image}, {"scores": layers.Dense(4)(joined), "sum": layers.Dense(1)(joined)}
    )


def words(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((12,), dtype="int32", name="words")
    x = layers.Conv1D(8, 3, activation="relu", name="near")(layers.Embedding(20, 6)(given))
    x = layers.GlobalAveragePooling1D()(_loud(x, 8, "words"))
    return keras.Model(given, {"scores": layers.Dense(4)(x)})


def loop(keras: Any) -> Any:
    layers = keras.layers
    clip = keras.Input((6, 4), name="clip")
    x = layers.LSTM(8, return_sequences=True)(layers.Dense(6, activation="relu", name="first")(clip))
    x = layers.GlobalAveragePooling1D()(_loud(x, 8, "clip"))
    return keras.Model(clip, {"scores": layers.Dense(4)(x)})


def drawn(model: Any, count: int, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        given.name: generator.integers(0, 20, (count, *given.shape[1:])).astype(np.int32)
        if given.dtype == "int32"
        else generator.standard_normal((count, *given.shape[1:])).astype(np.float32)
        for given in model.inputs
    }


class Made:
    """A model that int8 harms, in a workspace of its own."""

    def __init__(self, model: Any, root: Path) -> None:
        self.root, self.samples = root, drawn(model, COUNTS["test"], 2)
        for layer in model.layers:
            if layer.name.endswith(("_loud", "_quiet")):
                weights, bias = layer.get_weights()
                weights[np.s_[..., 0] if layer.name.endswith("_loud") else np.s_[0]] *= (
                    LOUD if layer.name.endswith("_loud") else 1 / LOUD
                )
                layer.set_weights([weights, bias])
        root.mkdir(parents=True, exist_ok=True)
        model.save(root / "model.keras")
        for seed, (name, count) in enumerate(COUNTS.items()):
            arrays = drawn(model, count, seed)
            np.savez(root / f"{name}.npz", **arrays, label=np.asarray(model(arrays)["scores"]))
        (root / "distance.py").write_text(METRIC)
        self.manifest = MANIFEST.replace("INPUTS", ", ".join(f'{name} = "{name}"' for name in self.samples))

    def build(self, limit: float) -> InProcess:
        return InProcess(self.root, self.manifest.replace("LIMIT", f"{limit:.9f}"))

    def outputs(self, path: Path) -> dict[str, np.ndarray]:
        binding = Binding(open_interpreter(str(path)))
        rows = [
            binding.run({name: array[number : number + 1] for name, array in self.samples.items()})
            for number in range(COUNTS["test"])
        ]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def sqnr(self, build: InProcess, variant: str) -> float:
        """Return the SQNR of the worst output on the evaluation set's samples, in dB."""
        exact = self.outputs(build.path("convert:m"))
        found = self.outputs(build.path(f"quantize:m/{variant}"))
        return min(sqnr_db(*powers(exact[name], found[name])) or 99.0 for name in exact)


@pytest.fixture(scope="module", params=[two_inputs, words, loop], ids=lambda make: make.__name__)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    import keras

    keras.utils.set_random_seed(4)
    return Made(request.param(keras), tmp_path_factory.mktemp(request.param.__name__) / "workspace")


def test_auto_takes_the_best_candidate_and_islands_bring_the_loss_below_the_limit(made: Made) -> None:
    build = made.build(1.0)
    search = build("quantize:m/int8")["search"]
    rows = {row["label"]: row for row in search["trials"]}
    assert [row["error"] for row in search["trials"]] == [None] * 6
    assert rows[search["chosen"]]["sqnr_db"] == max(row["sqnr_db"] for row in rows.values())
    int8 = made.sqnr(build, "int8")
    assert int8 > 8
    loss = build("quantize:m/mixed")["search"]["best"]["loss"]  # nothing is left out of int8 at such a limit
    again = made.build(loss / 4)
    values = again("quantize:m/mixed")
    found = values["search"]
    assert found["verdict"] == "pass", found["best"]
    assert found["islands"]
    assert values["kept_float"]
    assert made.sqnr(again, "mixed") > int8 + 10
    evaluated = again("evaluate:m/mixed")
    assert evaluated["value"] - evaluated["baseline"] == pytest.approx(found["best"]["loss"])


def test_islands_of_16_bits_help_too(made: Made) -> None:
    build = made.build(1.0)
    loss = build("quantize:m/sixteen")["search"]["best"]["loss"]
    int8 = made.sqnr(build, "sixteen")
    again = made.build(loss / 2)
    values = again("quantize:m/sixteen")
    assert values["search"]["islands"]
    assert values["kept_int16"]
    print(values["search"]["verdict"], int8, made.sqnr(again, "sixteen"))
    assert made.sqnr(again, "sixteen") > int8 + 6


def test_a_loop_is_calibrated_with_every_tensor_kept_and_stays_float_inside(made: Made) -> None:
    build = made.build(1.0)
    values = build("quantize:m/int8")
    is_loop = "WHILE" in graph.op_names(graph.read(build.path("convert:m").read_bytes()))
    assert is_loop == (build("calibrate:m")["route"] != "in-graph")
    assert is_loop == ("WHILE" in {op["op"] for op in values["float_ops"]})
