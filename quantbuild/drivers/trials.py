"""The steps that one quantize step may have made: artifacts to try, their look at the selection samples, and what
those artifacts are made from.

They lie in ``build/MODEL/.trials/``, each in a folder named by what it is, so that all variants of a model share them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from quantbuild.digests import sha256_of_bytes
from quantbuild.drivers.driven import Make, made
from quantbuild.step import Input, Step
from quantbuild.steps import benchmark_step, calibrate_step, evaluate_step, quantize_step

_encoder = msgspec.json.Encoder(order="deterministic")
FLOAT32 = "float32"
SQNR = "sqnr"
SELECTED = {"evaluation": "json", "samples": "npz"}
JUDGE_TOOLS = ("numpy", "scipy")


class Trials:
    """The steps that may be made for one quantize step, whose inputs carry the role of what they belong to.

    ``calibration.…``, ``selection.…`` and ``evaluation.…`` are the files of the datasets of these names;
    ``evaluation.baseline`` are float32's results on the evaluation set.
    """

    def __init__(self, step: Step, make: Make) -> None:
        self._step = step
        self._make = make
        self._model = step.id.partition(":")[2].partition("/")[0]

    # What artifacts are made from ----------------------------------------------------------------------------------

    def equalized(self) -> tuple[dict[str, Input], int, dict[str, Any] | None]:
        """Return the equalized float model with statistics of its own, as inputs of a quantize step.

        And how many groups of channels were scaled, with the most uneven one: without any, it is the float model as it
        was.
        """
        folder = self._folder("equalized")
        equalize = Step(
            id=f"equalize:{self._model}",
            action="equalize",
            parameters={},
            inputs={role: self._step.inputs[role] for role in ("model", "statistics")},
            outputs={"model": f"{folder}/model.tflite", "report": f"{folder}/equalization.json"},
            tools=("ai-edge-litert", "flatbuffers", "numpy"),
        )
        found = made(self._make([equalize])[0]).values
        groups = int(found["groups"])
        if not groups:
            return {role: self._step.inputs[role] for role in ("model", "statistics")}, 0, None
        model = Input(path=equalize.outputs["model"], step=equalize.id)
        calibrate = calibrate_step(
            f"calibrate:{self._model}/equalized",
            model=model,
            calibration=self._step.parameters["calibration"],
            files=self._files("calibration"),
            output=f"{folder}/statistics.npz",
        )
        made(self._make([calibrate])[0])
        inputs = {"model": model, "statistics": Input(path=calibrate.outputs["statistics"], step=calibrate.id)}
        return inputs, groups, found["most_uneven"]

    def histograms(self, inputs: Mapping[str, Input], label: str) -> Input:
        """Return the histograms of the activations of ``inputs["model"]`` within the ranges of its statistics."""
        calibration = self._step.parameters["calibration"]
        like = calibrate_step(
            f"histograms:{self._model}/{label}",
            model=inputs["model"],
            calibration=calibration,
            files=self._files("calibration"),
            output=f"{self._folder(f'histograms-{label}')}/histograms.npz",
        )
        step = msgspec.structs.replace(
            like,
            action="histograms",
            parameters=dict(calibration),
            inputs={**like.inputs, "statistics": inputs["statistics"]},
            outputs={"histograms": like.outputs["statistics"]},
        )
        made(self._make([step])[0])
        return Input(path=step.outputs["histograms"], step=step.id)

    # Trials --------------------------------------------------------------------------------------------------------

    def artifact(self, options: Mapping[str, Any], inputs: Mapping[str, Input], label: str) -> Step:
        """Return the step that makes an artifact with `options` of the scheme from `inputs`; of int8, for mixed."""
        scheme = self._step.parameters["scheme"]
        scheme = "int8" if scheme == "mixed" else scheme
        identity = {
            "scheme": scheme,
            "options": options,
            "inputs": {role: given.path for role, given in inputs.items()},
        }
        name = f"{scheme}-{label}-{_digest(identity)}"
        folder = self._folder(name)
        return quantize_step(
            f"trial:{self._model}/{name}",
            scheme=scheme,
            options=options,
            inputs=inputs,
            outputs={"model": f"{folder}/model.tflite", "description": f"{folder}/artifact.json"},
        )

    def selection(self, trials: Sequence[Step]) -> list[Step]:
        """Return the steps that run each trial's artifact over the selection samples beside float32's results."""
        baseline = self._selected(FLOAT32, {"model": self._step.inputs["model"]})
        made(self._make([baseline])[0])
        kept = Input(path=baseline.outputs["samples"], step=baseline.id)
        return [
            self._selected(trial.id.rpartition("/")[2], {"model": artifact_of(trial), "baseline": kept})
            for trial in trials
        ]

    def confirmation(self, trial: Step) -> Step:
        """Return the step that runs a trial's artifact over the evaluation set: the evaluate step's own work."""
        folder = trial.outputs["model"].rpartition("/")[0]
        evaluation = self._step.parameters["evaluation"]
        return evaluate_step(
            f"confirm:{self._model}/{trial.id.rpartition('/')[2]}",
            inputs={"model": artifact_of(trial), "baseline": self._step.inputs["evaluation.baseline"]},
            parameters=evaluation,
            files=self._files("evaluation") | self._files("metric"),
            outputs={"evaluation": f"{folder}/evaluation.json", "samples": f"{folder}/evaluation.npz"},
        )

    def judgement(self, evaluate: Step, limit: float, confidence: float) -> Step:
        """Return the step that judges a confirmation's loss against `limit`; variants differ in both."""
        folder = evaluate.outputs["evaluation"].rpartition("/")[0]
        parameters = {"limit": limit, "confidence": confidence}
        digest = _digest(parameters)
        return Step(
            id=f"{evaluate.id.replace('confirm:', 'judge:', 1)}-{digest}",
            action="judge",
            parameters=parameters,
            inputs={role: Input(path=path, step=evaluate.id) for role, path in evaluate.outputs.items()},
            outputs={"judgement": f"{folder}/judgement-{digest}.json"},
            tools=JUDGE_TOOLS,
        )

    def benchmark(self, trial: Step) -> Step:
        """Return the step that measures a trial's artifact beside float32 on the device of choice."""
        device = self._step.parameters["device"]
        return benchmark_step(
            f"measure:{self._model}/{trial.id.rpartition('/')[2]}@{device['name']}",
            runner=device["runner"],
            options=device["options"],
            inputs={"model": artifact_of(trial), "reference": self._step.inputs["model"]},
            folder=trial.outputs["model"].rpartition("/")[0],
            device=device["name"],
        )

    def ranking(self, inputs: Mapping[str, Input], options: Mapping[str, Any], label: str) -> Step:
        """Return the step that ranks the activations of ``inputs["model"]`` by what int8 does to each alone."""
        selection = self._step.parameters["selection"]
        like = self._selected(f"ranking-{label}", inputs)
        return msgspec.structs.replace(
            like,
            id=f"rank:{self._model}/{label}",
            action="rank",
            parameters={
                "options": dict(options),
                "dataset": selection["dataset"],
                "hold_back": selection.get("hold_back"),
            },
            inputs={**inputs, **self._files("selection")},
            outputs={"ranking": f"{self._folder(f'ranking-{label}')}/ranking.json"},
        )

    def _selected(self, name: str, inputs: Mapping[str, Input]) -> Step:
        selection = self._step.parameters["selection"]
        # One variant may look at SQNR alone, another at the model's metric, too.
        kind = "selection" if selection["metric"] == SQNR else "selection-by-metric"
        return evaluate_step(
            f"select:{self._model}/{name}{kind.removeprefix('selection')}",
            inputs=inputs,
            parameters={**selection, "logits": True},
            files=self._files("selection") | self._files("metric"),
            outputs={role: f"{self._folder(name)}/{kind}.{end}" for role, end in SELECTED.items()},
        )

    def _files(self, owner: str) -> dict[str, Input]:
        """Return the inputs of one owner under the roles that its own step has them."""
        owned = {role: given for role, given in self._step.inputs.items() if role.partition(".")[0] == owner}
        if owner == "metric":
            return owned
        return {role.partition(".")[2]: given for role, given in owned.items() if role.partition(".")[2] != "baseline"}

    def _folder(self, name: str) -> str:
        return f"build/{self._model}/.trials/{name}"


def artifact_of(trial: Step) -> Input:
    """Return a trial's artifact as the input of another step."""
    return Input(path=trial.outputs["model"], step=trial.id)


def _digest(identity: Mapping[str, Any]) -> str:
    """Return a few letters that tell steps apart where words would be too many."""
    return sha256_of_bytes(_encoder.encode(identity))[:8]
