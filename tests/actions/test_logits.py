"""A classifier's logits count as an output: they tell of noise that saturated probabilities hide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from tiny_models import job
from wide_models import Builder

from quantbuild.actions import evaluate, rank
from quantbuild.metrics import powers, sqnr_db
from quantbuild.tflite import graph, logits
from quantbuild.tflite.runtime import Binding, open_interpreter

CLASSES = 3
FAR = 20.0
"""Logits so far apart that float32's probabilities are 0 and 1."""


class Classifier(Builder):
    """x [1, 3] → scores = x · gain → what a test adds."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        x = self.input("x", 1, CLASSES)
        factor = self.constant(np.full((1, CLASSES), gain, np.float32))
        self.scores = self.op("MUL", [x, factor], [self.tensor("scores", 1, CLASSES)], schema.MulOptionsT())

    def squashed(self, kind: str, given: int | None = None, name: str = "out") -> int:
        given = self.scores if given is None else given
        out = self.tensor(name, *graph.shape(self.graph.tensors[given]))
        return self.op(kind, [given], [out], schema.SoftmaxOptionsT(beta=1.0) if kind == "SOFTMAX" else None)

    def signed(self, **outputs: int) -> bytes:
        """Finish with a signature."""
        maps = {"inputs": {"x": self.model.subgraphs[0].inputs[0]}, "outputs": outputs}
        named = {
            side: [schema.TensorMapT(name=name, tensorIndex=index) for name, index in each.items()]
            for side, each in maps.items()
        }
        self.model.signatureDefs = [schema.SignatureDefT(**named, signatureKey="serving_default", subgraphIndex=0)]
        return self.finish(*dict.fromkeys(outputs.values()))


def softmax(gain: float = 1.0) -> bytes:
    build = Classifier(gain)
    return build.signed(probabilities=build.squashed("SOFTMAX"))


def exposed(model: bytes) -> tuple[list[str], Binding]:
    changed = graph.read(model)
    names = logits.expose(changed)
    return names, Binding(open_interpreter(graph.write(changed)))


X = np.array([[1.0, -2.0, 0.5]], np.float32)


def test_what_softmax_is_given_is_one_more_output() -> None:
    names, binding = exposed(softmax(3.0))
    assert names == ["probabilities before SOFTMAX"]
    found = binding.run({"": X})
    np.testing.assert_allclose(found[names[0]], 3 * X)
    np.testing.assert_array_equal(
        found["probabilities"], Binding(open_interpreter(softmax(3.0))).run({"": X})["probabilities"]
    )


def test_without_a_signature_they_go_by_their_tensor() -> None:
    build = Classifier(3.0)
    names, binding = exposed(build.finish(build.squashed("SOFTMAX")))
    assert names == ["scores"]
    np.testing.assert_allclose(binding.run({"": X})["scores"], 3 * X)


def test_they_are_found_behind_casts_and_read_as_real_values() -> None:
    build = Classifier()
    integers = graph.add_cast(build.model, build.scores, "int8", (1 / 16, 3))
    soft = build.tensor("soft", 1, CLASSES)
    build.graph.tensors[soft].type, build.graph.tensors[soft].quantization = (
        schema.TensorType.INT8, schema.QuantizationParametersT(scale=[1 / 256], zeroPoint=[-128]),
    )  # fmt: skip
    build.op("SOFTMAX", [integers], [soft], schema.SoftmaxOptionsT(beta=1.0))
    names, binding = exposed(build.signed(probabilities=graph.add_cast(build.model, soft, "float32")))
    assert names == ["probabilities before SOFTMAX"]
    np.testing.assert_allclose(binding.run({"": X})[names[0]], X, atol=1 / 32)


@pytest.mark.parametrize(("size", "expected"), [((1, 1), 1), ((1, 5), 1), ((1, 4, 4, 1), 0)])
def test_logistic_makes_scores_or_a_picture(size: tuple[int, ...], expected: int) -> None:
    build = Builder()
    x = build.input("x", *size)
    doubled = build.add(x, x, "doubled", *size)
    model = graph.read(build.finish(build.op("LOGISTIC", [doubled], [build.tensor("out", *size)])))
    assert len(logits.expose(model)) == expected


def test_logits_that_are_an_output_already_and_other_outputs_add_none() -> None:
    build = Classifier()
    assert exposed(build.signed(probabilities=build.squashed("SOFTMAX"), scores=build.scores))[0] == []
    assert exposed(Classifier().signed(scores=Classifier().scores))[0] == []


def test_two_outputs_of_one_pair_of_logits_name_them_each() -> None:
    build = Classifier(2.0)
    first, second = build.squashed("SOFTMAX"), build.squashed("LOGISTIC", name="other")
    names, binding = exposed(build.signed(one=first, other=second))
    assert names == ["one before SOFTMAX", "other before LOGISTIC"]
    found = binding.run({"": X})
    for name in names:
        np.testing.assert_allclose(found[name], 2 * X)


def test_softmax_of_a_constant_or_of_an_input_is_no_error() -> None:
    build = Builder()
    x = build.input("x", 1, CLASSES)
    options = schema.SoftmaxOptionsT(beta=1.0)
    names, binding = exposed(build.finish(build.op("SOFTMAX", [x], [build.tensor("out", 1, CLASSES)], options)))
    assert len(binding.run({"": X})) == 1 + len(names)


class Evaluated:
    """A variant evaluated beside float32 on samples whose probabilities saturate."""

    def __init__(self, folder: Path, *, asked: bool) -> None:
        values = np.eye(CLASSES, dtype=np.float32) * FAR
        np.savez(folder / "data.npz", x=values, y=np.arange(CLASSES))
        options = {"path": "data.npz", "input": "x", "label": "y"}
        self._dataset = {"name": "test", "loader": "npz", "options": options, "samples": None, "seed": 0}
        self._folder, self._asked = folder, asked
        self.float32 = self._run("float32", softmax())
        self.variant = self._run("variant", softmax(1.1), folder / "float32/samples.npz")

    def _run(self, name: str, model: bytes, baseline: Path | None = None) -> dict[str, Any]:
        path = self._folder / f"{name}.tflite"
        path.write_bytes(model)
        inputs = {"model": path} | ({"baseline": baseline} if baseline else {})
        parameters: dict[str, Any] = {"dataset": self._dataset, "metric": "top1"}
        step = job(
            "evaluate", self._folder / name, inputs, {"evaluation": "evaluation.json", "samples": "samples.npz"},
            parameters | ({"logits": True} if self._asked else {}),
        )  # fmt: skip
        evaluate.run(msgspec.structs.replace(step, root=str(self._folder)))
        found: dict[str, Any] = json.loads(Path(step.outputs["evaluation"]).read_text())
        return found


def test_noise_that_saturation_hides_is_measured_where_it_is_asked_for(tmp_path: Path) -> None:
    for asked in (False, True):
        (tmp_path / str(asked)).mkdir()
    plain, asked_for = (Evaluated(tmp_path / str(asked), asked=asked) for asked in (False, True))
    assert plain.variant["sqnr_db"] is None or plain.variant["sqnr_db"] > 100
    assert list(plain.variant["sqnr_db_by_output"]) == ["probabilities"]
    logit = "probabilities before SOFTMAX"
    expected = sqnr_db(*powers(np.eye(CLASSES) * FAR, np.eye(CLASSES) * FAR * 1.1))
    assert asked_for.variant["sqnr_db_by_output"][logit] == pytest.approx(expected, abs=1e-3)
    assert asked_for.variant["sqnr_db"] == asked_for.variant["sqnr_db_by_output"][logit]
    for key in ("value", "baseline", "agreement", "agreed", "pairs", "tied", "outputs", "n"):
        assert asked_for.variant[key] == plain.variant[key], key
    assert asked_for.float32 == plain.float32


def test_the_ranking_hears_them_too(tmp_path: Path) -> None:
    """All that harms the logits harms no probability here."""
    samples = [(number, {"": row[None]}) for number, row in enumerate(np.eye(CLASSES, dtype=np.float32) * FAR)]
    exact, louder = (rank._outputs(softmax(gain), samples) for gain in (1.0, 1.1))
    assert len(exact) == 2
    errors = [rank._relative_error(one, other) for one, other in zip(exact, louder, strict=True)]
    assert min(errors) < 1e-9
    assert max(errors) == pytest.approx(0.01, rel=1e-3)
