"""The steps that close a build: check, dist and report, made from what the other steps came to.

They are tolerant: a failed step is data for them. So they are planned when their turn comes, from the outcomes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from quantbuild.manifest.definitions import Device, Gate, Model, Variant, Workspace
from quantbuild.outcome import Outcomes, first_cause, first_error, is_done
from quantbuild.plan import (
    FLOAT32,
    artifact_path,
    artifact_step,
    calibration_samples_path,
    description_path,
    devices_of,
    evaluation_inputs_path,
    is_calibrated,
    variant_names,
)
from quantbuild.step import Input, Step

REPORT_FOLDER = "build/report"
CLOSING = ("check", "dist", "report")
CHECK_PATH = f"{REPORT_FOLDER}/check.json"


def gated_benchmarks(workspace: Workspace) -> list[str]:
    """Return the ids of the benchmark steps whose figures some gate limits."""
    return [
        f"benchmark:{model.name}/{variant.name}@{device.name}"
        for model in workspace.models.values()
        for variant in model.variants.values()
        for device in devices_of(workspace, model)
        if _limits_device(variant.gate, device)
    ]


def check_step(workspace: Workspace, outcomes: Outcomes) -> Step:
    """Return the step that judges every gate. It reads a benchmark only where a gate limits its figures.

    So `doit check` and `doit report` ask for the same step, whether or not the other benchmarks were run.
    """
    gated = set(gated_benchmarks(workspace))
    inputs: dict[str, Input] = {}
    models = []
    for model in workspace.models.values():
        variants = []
        inputs |= _linted_inputs(model, outcomes)
        for name in variant_names(model):
            inputs |= _evaluation_inputs(model, name, outcomes)
            judged = _accuracy_steps(model, name)
            for device in devices_of(workspace, model):
                benchmark = f"benchmark:{model.name}/{name}@{device.name}"
                if benchmark in gated:
                    inputs |= _benchmark_input(model, name, device, outcomes)
                    judged += [benchmark] if device.required else []
            variant = model.variants.get(name)
            variants.append(
                {
                    "name": name,
                    "scheme": variant.scheme if variant else FLOAT32,
                    "gate": _gate(variant.gate if variant else None),
                    "error": first_error(outcomes, judged),
                    "cause": first_cause(outcomes, judged),
                    **_searched(model, name, outcomes),
                }
            )
        lint = {
            "ignore": sorted(model.lint_ignore),
            "calibrated": [name for name, variant in model.variants.items() if is_calibrated(variant)],
        }
        models.append({"name": model.name, "metric": model.metric, "lint": lint, "variants": variants})
    return Step(
        id="check",
        action="check",
        parameters={"models": models},
        inputs=inputs,
        outputs={
            "gates": CHECK_PATH,
            "junit": f"{REPORT_FOLDER}/junit.xml",
            "sarif": f"{REPORT_FOLDER}/results.sarif",
        },
        tools=("numpy", "scipy"),
        tolerant=True,
    )


def report_step(workspace: Workspace, outcomes: Outcomes) -> Step:
    """Return the step that writes the page and report.json from every result there is."""
    inputs: dict[str, Input] = {}
    if is_done(outcomes, "check"):
        inputs["check"] = Input(path=CHECK_PATH, step="check")
    models = []
    for model in workspace.models.values():
        devices = devices_of(workspace, model)
        for name in variant_names(model):
            inputs |= _evaluation_inputs(model, name, outcomes)
            for device in devices:
                inputs |= _benchmark_input(model, name, device, outcomes)
        models.append(
            {
                "name": model.name,
                "metric": model.metric,
                "source": model.source,
                "ship": model.shipped(),
                "gate": _gate(model.gate),
                "calibration": _values(outcomes, f"calibrate:{model.name}"),
                "variants": [_reported_variant(model, name, devices, outcomes) for name in variant_names(model)],
                "devices": [
                    {"name": device.name, "runner": device.runner, "required": device.required} for device in devices
                ],
            }
        )
    return Step(
        id="report",
        action="report",
        parameters={"models": models, "steps": _reported_steps(outcomes), "tools": tools_used(outcomes)},
        inputs=inputs,
        outputs={"page": f"{REPORT_FOLDER}/index.html", "report": f"{REPORT_FOLDER}/report.json"},
        tools=("jinja2",),
        tolerant=True,
    )


def tools_used(outcomes: Outcomes) -> dict[str, str]:
    """Return the versions of every tool that a finished step used, as its key has them."""
    tools: dict[str, str] = {}
    for outcome in outcomes.values():
        if outcome.result is not None:
            tools |= outcome.result.preimage.get("tools", {})
    return dict(sorted(tools.items()))


def _reported_variant(model: Model, name: str, devices: list[Device], outcomes: Outcomes) -> dict[str, Any]:
    variant = model.variants.get(name)
    outcome = outcomes.get(artifact_step(model.name, name))
    artifact = outcome.result.outputs["model"] if outcome is not None and outcome.result is not None else None
    steps = [*_accuracy_steps(model, name)]
    steps += [f"benchmark:{model.name}/{name}@{device.name}" for device in devices if device.required]
    return {
        "name": name,
        "scheme": variant.scheme if variant else FLOAT32,
        "options": msgspec.to_builtins(variant.options) if variant else {},
        "artifact_path": artifact.path if artifact else None,
        "sha256": artifact.sha256 if artifact else None,
        "size_bytes": artifact.size_bytes if artifact else None,
        "values": outcome.result.values if outcome is not None and outcome.result is not None else {},
        "error": first_error(outcomes, steps),
    }


def _values(outcomes: Outcomes, step: str) -> dict[str, Any] | None:
    """Return what a step told of itself; None where it is not done."""
    outcome = outcomes.get(step)
    return outcome.result.values if outcome is not None and outcome.result is not None else None


def _searched(model: Model, name: str, outcomes: Outcomes) -> dict[str, Any]:
    """Return what a search for a limit came to, which is judged as a gate; nothing for any other artifact."""
    search = (_values(outcomes, artifact_step(model.name, name)) or {}).get("search")
    return {} if search is None or "limit" not in search else {"search": search}


def _reported_steps(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Return each step's fate without times: a page is not written anew because a clock went on."""
    outcome_words = {"failed": "failed", "blocked": "blocked"}
    return [
        {
            "id": outcome.step,
            "outcome": outcome_words.get(outcome.status, "done"),
            # A step that fails again does so because it failed before, which changes nothing of the page.
            "reason": "; ".join(outcome.reasons) if outcome.done else "",
            "message": outcome.message,
        }
        for outcome in sorted(outcomes.values(), key=lambda outcome: outcome.step)
        if outcome.step not in ("dist", "report")
    ]


def _accuracy_steps(model: Model, name: str) -> list[str]:
    steps = [artifact_step(model.name, name)]
    return [*steps, f"evaluate:{model.name}/{name}"] if model.evaluation is not None else steps


def _evaluation_inputs(model: Model, name: str, outcomes: Outcomes) -> dict[str, Input]:
    role = f"{model.name}/{name}"
    artifact, evaluate = artifact_step(model.name, name), f"evaluate:{role}"
    inputs: dict[str, Input] = {}
    if is_done(outcomes, artifact):
        inputs[f"{role}:description"] = Input(path=description_path(model.name, name), step=artifact)
        if is_done(outcomes, evaluate):
            inputs[f"{role}:evaluation"] = Input(path=f"build/{role}/evaluation.json", step=evaluate)
            inputs[f"{role}:samples"] = Input(path=f"build/{role}/samples.npz", step=evaluate)
    return inputs


def _linted_inputs(model: Model, outcomes: Outcomes) -> dict[str, Input]:
    """Return the facts of the samples that the model was calibrated and judged on."""
    places = {
        "calibration": (calibration_samples_path(model.name), f"calibrate:{model.name}"),
        "evaluation": (evaluation_inputs_path(model.name), f"evaluate:{model.name}/{FLOAT32}"),
    }
    return {
        f"{model.name}:{role}_samples": Input(path=path, step=step)
        for role, (path, step) in places.items()
        if is_done(outcomes, step)
    }


def _benchmark_input(model: Model, name: str, device: Device, outcomes: Outcomes) -> dict[str, Input]:
    step = f"benchmark:{model.name}/{name}@{device.name}"
    if not is_done(outcomes, step):
        return {}
    path = f"build/{model.name}/{name}/benchmark@{device.name}.json"
    return {f"{model.name}/{name}@{device.name}:result": Input(path=path, step=step)}


def _gate(gate: Gate | None) -> dict[str, Any]:
    """Return only the gates that are set: an unset one enters no key."""
    return {} if gate is None else {k: v for k, v in msgspec.to_builtins(gate).items() if v not in (None, {})}


def _limits_device(gate: Gate | None, device: Device) -> bool:
    return gate is not None and any(
        limits and device.name in limits for limits in (gate.max_latency_ratio, gate.max_peak_memory_ratio)
    )


def contract_data(workspace: Workspace, model: Model, variant: Variant) -> dict[str, Any]:
    """Return what the manifest says of a variant that its contract repeats for the app."""
    dataset = workspace.datasets.get(model.evaluation or model.calibration or "")
    options = msgspec.to_builtins(dataset.options) if dataset else {}
    # Sound has no table of its own: what an app must do is said by keys of the data set.
    keys = getattr(dataset.options, "PREPROCESSING", ()) if dataset else ()
    preprocess = {key: options[key] for key in keys} if keys else options.get("preprocess")
    return {
        "model": model.name,
        "variant": variant.name,
        "scheme": variant.scheme,
        "preprocess": preprocess,
    }


def dist_step(
    workspace: Workspace, steps: Mapping[str, Step], outcomes: Outcomes, verdicts: Mapping[str, str | None]
) -> Step:
    """Return the step that brings dist/ in line with what was built.

    `steps` are the planned ones by id; `verdicts` has a verdict (or None) by MODEL/VARIANT.
    """
    inputs: dict[str, Input] = {}
    artifacts = []
    ship = {}
    for model in workspace.models.values():
        if model.labels is not None:
            inputs[f"{model.name}:labels"] = Input(path=model.labels)
        for variant in model.variants.values():
            name = f"{model.name}/{variant.name}"
            step = artifact_step(model.name, variant.name)
            outcome = outcomes.get(step)
            if outcome is None or outcome.result is None:
                artifacts.append({"name": name, "failed": True})
                continue
            inputs[f"{name}:model"] = Input(path=artifact_path(model.name, variant.name), step=step)
            inputs[f"{name}:description"] = Input(path=description_path(model.name, variant.name), step=step)
            artifacts.append(
                {
                    "name": name,
                    "failed": False,
                    "key": outcome.result.key,
                    "inputs": _leaf_inputs(step, steps, outcomes),
                    "verdict": verdicts.get(name),
                    "contract": contract_data(workspace, model, variant),
                }
            )
        if model.shipped():
            ship[model.name] = model.shipped()
    tools: dict[str, str] = {}
    for name, outcome in outcomes.items():
        if outcome.result is not None and name.startswith(("convert:", "calibrate:", "quantize:")):
            tools |= outcome.result.preimage.get("tools", {})
    artifacts.sort(key=lambda artifact: str(artifact["name"]))  # the lock's order, whatever the manifests' is
    return Step(
        id="dist",
        action="dist",
        parameters={
            "artifacts": artifacts,
            "ship": ship,
            "tools": dict(sorted(tools.items())),
            "manifests": sorted(workspace.files),  # by name: the depfile lists them
        },
        inputs=inputs,
        outputs={"lock": "dist/quantbuild.lock.json"},
        tolerant=True,
    )


def _leaf_inputs(step: str, steps: Mapping[str, Step], outcomes: Outcomes) -> dict[str, str]:
    """Return path to sha256 of every file of the user's that an artifact was made from."""
    found: dict[str, str] = {}
    waiting = [step]
    while waiting:
        current = steps[waiting.pop()]
        outcome = outcomes.get(current.id)
        if outcome is None or outcome.result is None:
            continue
        digests = outcome.result.preimage["inputs"]
        found |= {given.path: digests[role] for role, given in current.inputs.items() if given.step is None}
        waiting.extend(current.needs)
    return dict(sorted(found.items()))
