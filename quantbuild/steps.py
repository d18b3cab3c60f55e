"""The steps that a plan and a driver have in common, made from the same arguments: so they have the same keys.

Where a driver tries what a variant asks for outright, or confirms what is evaluated later, the work is done once.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from quantbuild.step import Input, Step

RUNTIME_TOOLS = ("ai-edge-litert", "numpy")
PROBE_MODULE = "quantbuild.actions.probe"

Files = Mapping[str, Input]
Parameters = Mapping[str, Any]


def plug_in(kind: str, name: str) -> ModuleType:
    """Return the plug-in module `name` of `kind` (schemes, sources, datasets, runners)."""
    return importlib.import_module(f"quantbuild.{kind}.{name}")


def tools_of(module: ModuleType, *others: str) -> tuple[str, ...]:
    """Return the distributions that `module` uses, and `others`, sorted."""
    return tuple(sorted({*module.TOOLS, *others}))


def calibrate_step(
    step_id: str,
    *,
    model: Input,
    calibration: Parameters,
    files: Files,
    output: str,
    needs: tuple[str, ...] = (),
) -> Step:
    """Return the step that measures `model` on the calibration set.

    `calibration` is ``{"dataset", "hold_back"}``; `files` are the dataset's, by role.
    """
    loader = calibration["dataset"]["loader"]
    return Step(
        id=step_id,
        action="calibrate",
        parameters={**calibration, "statistics": "all"},
        inputs={"model": model, **files},
        outputs={"statistics": output},
        needs=needs,
        code=(f"quantbuild.datasets.{loader}",),
        tools=tools_of(plug_in("datasets", loader), *RUNTIME_TOOLS),
        by_cpu=True,
    )


def quantize_step(
    step_id: str,
    *,
    scheme: str,
    options: Parameters,
    inputs: Files,
    outputs: Mapping[str, str],
    needs: tuple[str, ...] = (),
) -> Step:
    """Return the step that makes an artifact of ``inputs["model"]`` and what else the scheme's `needs` names."""
    return Step(
        id=step_id,
        action="quantize",
        parameters={"scheme": scheme, "options": dict(options)},
        inputs=dict(inputs),
        outputs=dict(outputs),
        needs=needs,
        code=(f"quantbuild.schemes.{scheme}", PROBE_MODULE),
        tools=tools_of(plug_in("schemes", scheme), *RUNTIME_TOOLS),
    )


def benchmark_step(
    step_id: str,
    *,
    runner: str,
    options: Parameters,
    inputs: Files,
    folder: str,
    device: str,
    needs: tuple[str, ...] = (),
) -> Step:
    """Return the step that measures ``inputs["model"]``, beside ``inputs["reference"]`` where it is given, on `device`.

    `options` are those of its `runner`; what it finds lies in `folder`.
    """
    return Step(
        id=step_id,
        action="benchmark",
        parameters={"runner": runner, "options": dict(options)},
        inputs=dict(inputs),
        outputs={"result": f"{folder}/benchmark@{device}.json", "samples": f"{folder}/benchmark@{device}.npz"},
        needs=needs,
        code=(f"quantbuild.runners.{runner}",),
        tools=tools_of(plug_in("runners", runner), *RUNTIME_TOOLS),
        runner=runner,
    )


def evaluate_step(
    step_id: str,
    *,
    inputs: Files,
    parameters: Parameters,
    files: Files,
    outputs: Mapping[str, str],
    needs: tuple[str, ...] = (),
) -> Step:
    """Return the step that runs ``inputs["model"]`` over a dataset, beside ``inputs["baseline"]`` where it is given.

    `parameters` are ``{"dataset", "metric"}`` and those of `actions.evaluate`; `files` are the dataset's and the
    metric's, by role.
    """
    loader = parameters["dataset"]["loader"]
    return Step(
        id=step_id,
        action="evaluate",
        parameters=dict(parameters),
        inputs={**inputs, **files},
        outputs=dict(outputs),
        needs=needs,
        code=(f"quantbuild.datasets.{loader}",),
        tools=tools_of(plug_in("datasets", loader), *RUNTIME_TOOLS),
        by_cpu=True,
    )
