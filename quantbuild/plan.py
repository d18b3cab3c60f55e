"""From a workspace to its steps: pure, sorted, printable. The steps that close a build are in ``closing.py``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from quantbuild.declared_files import code_path
from quantbuild.leftovers import DIST_RECORD
from quantbuild.manifest.definitions import Dataset, Device, Model, Variant, Workspace
from quantbuild.step import Input, Step
from quantbuild.steps import (
    PROBE_MODULE,
    RUNTIME_TOOLS,
    benchmark_step,
    calibrate_step,
    evaluate_step,
    plug_in,
    quantize_step,
    tools_of,
)

FLOAT32 = "float32"
# Held back from the calibration set when a model names no selection set: nothing is ever chosen on the gate's own data.
HOLD_BACK = {"fraction": 0.2, "seed": 0}
# What a selection set without labels is judged by: how far the outputs are from float32's.
WITHOUT_LABELS = "sqnr"


def plan(workspace: Workspace) -> tuple[Step, ...]:
    """Return every step that makes or measures an artifact, each after the steps it needs."""
    return tuple(step for model in workspace.models.values() for step in _model_steps(workspace, model))


def devices_of(workspace: Workspace, model: Model) -> list[Device]:
    """Return the devices a model is measured on, in the manifest's order."""
    return [workspace.devices[name] for name in model.devices]


def variant_names(model: Model) -> list[str]:
    """Return the model's variants with float32, the baseline, first."""
    return [FLOAT32, *model.variants]


def artifact_step(model: str, variant: str) -> str:
    """Return the id of the step that makes a variant's artifact."""
    return f"convert:{model}" if variant == FLOAT32 else f"quantize:{model}/{variant}"


def artifact_path(model: str, variant: str) -> str:
    """Return where a variant's artifact lies, relative to the root."""
    return f"build/{model}/float32.tflite" if variant == FLOAT32 else f"build/{model}/{variant}/model.tflite"


def description_path(model: str, variant: str) -> str:
    """Return where the description of a variant's artifact lies."""
    return f"build/{model}/float32.json" if variant == FLOAT32 else f"build/{model}/{variant}/artifact.json"


def calibration_samples_path(model: str) -> str:
    """Return where the lint's facts of the calibration samples lie."""
    return f"build/{model}/calibration_samples.json"


def evaluation_inputs_path(model: str) -> str:
    """Return where the lint's facts of the evaluation samples lie."""
    return f"build/{model}/{FLOAT32}/evaluation_inputs.json"


def sensitivity_step(model: str, variant: str) -> str:
    """Return the id of the step that takes a variant's noise apart."""
    return f"sensitivity:{model}/{variant}"


def sensitivity_paths(model: str, variant: str) -> dict[str, str]:
    """Return where that step's results lie, by role: the figures, and two files for Model Explorer."""
    return {
        "sensitivity": f"build/{model}/{variant}/sensitivity.json",
        "sqnr_node_data": f"build/{model}/{variant}/sqnr.node_data.json",
        "noise_node_data": f"build/{model}/{variant}/noise.node_data.json",
    }


def is_calibrated(variant: Variant) -> bool:
    """Whether a variant's artifact depends on the calibration samples."""
    return not _needs(variant).isdisjoint({"statistics", "samples"})


def record_path(step: Step) -> str:
    """Return where a step's record lies: beside its first output, but for dist/, which holds what apps take alone."""
    if step.action == "dist":
        return DIST_RECORD
    return f"{next(iter(step.outputs.values()))}.record.json"


def _model_steps(workspace: Workspace, model: Model) -> Iterator[Step]:
    yield _convert(model)
    needs = {name: _needs(variant) for name, variant in model.variants.items()}
    if any("statistics" in needed for needed in needs.values()):
        yield _calibrate(workspace, model)
    if model.evaluation is not None:
        yield _evaluate(workspace, model, FLOAT32)  # what a variant may be chosen beside
    for name, variant in model.variants.items():
        yield _quantize(workspace, model, variant, needs[name])
    if model.evaluation is not None:
        for name in model.variants:
            yield _evaluate(workspace, model, name)
    for variant in model.variants.values():
        if variant.sensitivity_samples:
            yield _sensitivity(workspace, model, variant)
    for device in devices_of(workspace, model):
        for name in variant_names(model):
            yield _benchmark(model, name, device)


def _needs(variant: Variant) -> frozenset[str]:
    needed: frozenset[str] = plug_in("schemes", variant.scheme).needs(variant.options)
    return needed


def _convert_parameters(model: Model) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "source": model.source,
        "signature": model.signature,
        "input_shapes": model.input_shapes,
    }
    if getattr(plug_in("sources", model.source), "REFERENCE", False):
        parameters |= {"function": model.path, "inputs": list(model.inputs)}
    return parameters


def _source_tools(model: Model) -> tuple[str, ...]:
    """Return what a source reads this very file with, besides what it reads every file with."""
    tools = getattr(plug_in("sources", model.source), "tools", None)
    return () if tools is None else tuple(tools(model.path))


def _source_files(model: Model, role: str) -> dict[str, Input]:
    """Return the files a model is read from: `role` for the first, `role`.1 and on for the others."""
    files: list[str] = plug_in("sources", model.source).files(model.path, model.inputs)
    return {role if place == 0 else f"{role}.{place}": Input(path=path) for place, path in enumerate(files)}


def _convert(model: Model) -> Step:
    source = plug_in("sources", model.source)
    return Step(
        id=f"convert:{model.name}",
        action="convert",
        parameters=_convert_parameters(model),
        inputs=_source_files(model, "model"),
        outputs={
            "model": artifact_path(model.name, FLOAT32),
            "description": description_path(model.name, FLOAT32),
        },
        code=(f"quantbuild.sources.{model.source}", PROBE_MODULE),
        tools=tuple(sorted({*tools_of(source, *RUNTIME_TOOLS), *_source_tools(model)})),
    )


def _dataset(workspace: Workspace, name: str) -> tuple[Dataset, dict[str, Any], dict[str, Input]]:
    """Return a dataset, its parameters as the actions read them, and its files by role."""
    dataset = workspace.datasets[name]
    loader = plug_in("datasets", dataset.loader)
    parameters = {
        "name": dataset.name,
        "loader": dataset.loader,
        "options": msgspec.to_builtins(dataset.options),
        "samples": dataset.samples,
        "seed": dataset.seed,
    }
    files = loader.files(dataset.options, workspace.root)
    roles = ["data"] if len(files) == 1 else [f"data.{index}" for index in range(len(files))]
    return dataset, parameters, {role: Input(path=path) for role, path in zip(roles, files, strict=True)}


def _calibration(workspace: Workspace, model: Model) -> tuple[dict[str, Any], dict[str, Input]]:
    assert model.calibration is not None, "the manifest's checks ask for a calibration set wherever one is needed"
    _, parameters, files = _dataset(workspace, model.calibration)
    return {"dataset": parameters, "hold_back": HOLD_BACK if model.selection is None else None}, files


def _selection(workspace: Workspace, model: Model) -> tuple[dict[str, Any], dict[str, Input]]:
    """Return what is evaluated to choose by: the selection set, else the part of the calibration set held back."""
    if model.selection is None:
        calibration, files = _calibration(workspace, model)
    else:
        _, parameters, files = _dataset(workspace, model.selection)
        calibration = {"dataset": parameters}
    return {**calibration, "metric": model.metric, "metric_without_labels": WITHOUT_LABELS}, files


def _evaluation(workspace: Workspace, model: Model) -> tuple[dict[str, Any], dict[str, Input]]:
    assert model.evaluation is not None
    _, parameters, files = _dataset(workspace, model.evaluation)
    return {"dataset": parameters, "metric": model.metric}, files


def _calibrate(workspace: Workspace, model: Model) -> Step:
    calibration, files = _calibration(workspace, model)
    step = calibrate_step(
        f"calibrate:{model.name}",
        model=_artifact(model.name, FLOAT32),
        calibration=calibration,
        files=files,
        output=f"build/{model.name}/statistics.npz",
        needs=(artifact_step(model.name, FLOAT32),),
    )
    return msgspec.structs.replace(
        step,
        parameters={**step.parameters, "lint": {"ignore": sorted(model.lint_ignore)}},
        outputs={**step.outputs, "samples": calibration_samples_path(model.name)},
    )


def _quantize(workspace: Workspace, model: Model, variant: Variant, needed: frozenset[str]) -> Step:
    scheme = plug_in("schemes", variant.scheme)
    inputs = {"model": _artifact(model.name, FLOAT32)}
    needs = [artifact_step(model.name, FLOAT32)]
    if "statistics" in needed:
        calibrate = f"calibrate:{model.name}"
        inputs["statistics"] = _statistics(model.name)
        needs.append(calibrate)
    step = quantize_step(
        artifact_step(model.name, variant.name),
        scheme=variant.scheme,
        options=msgspec.to_builtins(variant.options),
        inputs=inputs,
        outputs={
            "model": artifact_path(model.name, variant.name),
            "description": description_path(model.name, variant.name),
        },
        needs=tuple(needs),
    )
    if "samples" in needed:
        step = _from_source(workspace, model, step)
    is_driven = hasattr(scheme, "driver") and scheme.driver(variant.options) is not None
    return _driven(workspace, model, variant, step, needed) if is_driven else step


def _from_source(workspace: Workspace, model: Model, step: Step) -> Step:
    """Return a quantize step that starts from the model's source and calibrates anew, as the plain converter does."""
    calibration, files = _calibration(workspace, model)
    loader, source = plug_in("datasets", calibration["dataset"]["loader"]), plug_in("sources", model.source)
    return msgspec.structs.replace(
        step,
        parameters={**step.parameters, **calibration, "source": _convert_parameters(model)},
        inputs={**step.inputs, **_source_files(model, "source"), **files},
        code=(*step.code, source.__name__, loader.__name__),
        tools=tuple(sorted({*step.tools, *tools_of(loader), *tools_of(source), *_source_tools(model)})),
        by_cpu=True,
    )


def _driven(workspace: Workspace, model: Model, variant: Variant, step: Step, needed: frozenset[str]) -> Step:
    """Return a quantize step that a driver makes: it has all that the steps it may have made read."""
    driver = plug_in("drivers", plug_in("schemes", variant.scheme).driver(variant.options))
    parameters, inputs, needs = dict(step.parameters), dict(step.inputs), list(step.needs)
    # What it has made by others decides what it makes: their code is its own.
    code = [*step.code, driver.__name__, *(f"quantbuild.actions.{action}" for action in driver.ACTIONS)]
    tools = {*step.tools, *driver.TOOLS}
    owners = {"calibration": _calibration, "selection": _selection, "evaluation": _evaluation}
    if model.evaluation is None:  # what is chosen cannot be confirmed
        needed -= {"evaluation"}
    for owner in sorted(needed & owners.keys()):
        parameters[owner], files = owners[owner](workspace, model)
        inputs |= {f"{owner}.{role}": given for role, given in files.items()}
        loader = plug_in("datasets", parameters[owner]["dataset"]["loader"])
        code.append(loader.__name__)
        tools |= set(tools_of(loader))
    if driver.BY_METRIC:
        inputs |= _metric_code(model.metric)
    elif "selection" in parameters:
        parameters["selection"] = {**parameters["selection"], "metric": WITHOUT_LABELS}
    if "evaluation" in needed:
        parameters["confidence"] = variant.gate.confidence
        baseline = f"evaluate:{model.name}/{FLOAT32}"
        inputs["evaluation.baseline"] = Input(path=f"build/{model.name}/{FLOAT32}/samples.npz", step=baseline)
        needs.append(baseline)
    device = _device_of_choice(workspace, variant)
    if device is not None:
        options = msgspec.to_builtins(device.options)
        parameters["device"] = {"name": device.name, "runner": device.runner, "options": options}
        code += ["quantbuild.actions.benchmark", f"quantbuild.runners.{device.runner}"]
        tools |= set(tools_of(plug_in("runners", device.runner), *RUNTIME_TOOLS))
    return msgspec.structs.replace(
        step,
        parameters=parameters,
        inputs=inputs,
        needs=tuple(needs),
        code=tuple(dict.fromkeys(code)),
        tools=tuple(sorted(tools)),
        by_cpu=True,
        runner=device.runner if device is not None else None,
        driver=driver.__name__.rpartition(".")[2],
    )


def _device_of_choice(workspace: Workspace, variant: Variant) -> Device | None:
    """Return the device whose latencies decide what a driver chooses; None where none do."""
    scheme = plug_in("schemes", variant.scheme)
    name = scheme.device(variant.options) if hasattr(scheme, "device") else None
    return None if name is None else workspace.devices[name]


def _evaluate(workspace: Workspace, model: Model, variant: str) -> Step:
    parameters, files = _evaluation(workspace, model)
    inputs = {"model": _artifact(model.name, variant)}
    needs = [artifact_step(model.name, variant)]
    if variant != FLOAT32:
        baseline = f"evaluate:{model.name}/{FLOAT32}"
        inputs["baseline"] = Input(path=f"build/{model.name}/{FLOAT32}/samples.npz", step=baseline)
        needs.append(baseline)
    outputs = {
        "evaluation": f"build/{model.name}/{variant}/evaluation.json",
        "samples": f"build/{model.name}/{variant}/samples.npz",
    }
    return evaluate_step(
        f"evaluate:{model.name}/{variant}",
        inputs=inputs,
        parameters=parameters if variant != FLOAT32 else {**parameters, "fingerprint": True},
        files={**files, **_metric_code(model.metric)},
        outputs=outputs if variant != FLOAT32 else {**outputs, "inputs": evaluation_inputs_path(model.name)},
        needs=tuple(needs),
    )


def _sensitivity(workspace: Workspace, model: Model, variant: Variant) -> Step:
    """Return the step that takes a variant's noise apart, on what is never judged on."""
    selection, files = _selection(workspace, model)
    parameters: dict[str, Any] = {key: selection[key] for key in ("dataset", "hold_back") if key in selection}
    float32, artifact = artifact_step(model.name, FLOAT32), artifact_step(model.name, variant.name)
    inputs, needs = (
        {"model": _artifact(model.name, FLOAT32), "artifact": _artifact(model.name, variant.name)},
        [float32],
    )
    may_equalize = getattr(plug_in("schemes", variant.scheme), "MAY_EQUALIZE", False)
    if may_equalize or getattr(variant.options, "equalize", False):
        inputs["statistics"] = _statistics(model.name)
        needs.append(f"calibrate:{model.name}")
    loader = plug_in("datasets", parameters["dataset"]["loader"])
    return Step(
        id=sensitivity_step(model.name, variant.name),
        action="sensitivity",
        parameters={**parameters, "samples": variant.sensitivity_samples},
        inputs={**inputs, **files},
        outputs=sensitivity_paths(model.name, variant.name),
        needs=(*needs, artifact),
        code=(loader.__name__,),
        tools=tools_of(loader, *RUNTIME_TOOLS),
        by_cpu=True,
    )


def _metric_code(metric: str) -> dict[str, Input]:
    """Return what a metric of the user's own is made of, so that editing it evaluates again."""
    return {"metric": Input(path=code_path(metric))} if ":" in metric else {}


def _benchmark(model: Model, variant: str, device: Device) -> Step:
    inputs = {"model": _artifact(model.name, variant)}
    needs = [artifact_step(model.name, variant)]
    if variant != FLOAT32:
        inputs["reference"] = _artifact(model.name, FLOAT32)
        needs.append(artifact_step(model.name, FLOAT32))
    return benchmark_step(
        f"benchmark:{model.name}/{variant}@{device.name}",
        runner=device.runner,
        options=msgspec.to_builtins(device.options),
        inputs=inputs,
        folder=f"build/{model.name}/{variant}",
        device=device.name,
        needs=tuple(needs),
    )


def _statistics(model: str) -> Input:
    return Input(path=f"build/{model}/statistics.npz", step=f"calibrate:{model}")


def _artifact(model: str, variant: str) -> Input:
    return Input(path=artifact_path(model, variant), step=artifact_step(model, variant))
