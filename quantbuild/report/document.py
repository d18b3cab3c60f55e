"""Joins what every step found into the one document that report.json is: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild.report.schema import SCHEMA

Json = dict[str, Any]

ACCURACY_KEYS = ("value", "baseline", "loss", "loss_low", "loss_high", "n", "agreement", "sqnr_db", "verdict")
EVALUATION_KEYS = ("higher_is_better", "pairs", "tied", "flipped", "agreed", "outputs")
DESCRIBED = (
    "float_ops",
    "ops",
    "op_versions",
    "conversions",
    "custom_ops",
    "sizes",
    "inputs",
    "outputs",
    "minimal_runtime",
    "runtime_unknown",
    "noted_runtime",
    "constant_outputs",
)
"""Keys of the probe's description that the report repeats."""
TOLD_ELSEWHERE = ("scheme", "kept_float", "kept_int16", "float_ops", "search", "provisional")
"""Values of a quantize step that have a key of their own in the report."""
DEVICE_KEYS = ("status", "latency_ms", "latency_ratio", "peak_memory_bytes", "memory_ratio")


def build(parameters: Json, results: Mapping[str, Json]) -> Json:
    """Return report.json.

    `parameters` are the report step's; `results` are the contents of its JSON inputs by role:
    ``MODEL/VARIANT:description``, ``MODEL/VARIANT:evaluation``, ``MODEL/VARIANT:sensitivity``,
    ``MODEL/VARIANT@DEVICE:result`` and ``check``, each absent where its step was not done.
    """
    check = results.get("check", {})
    outcomes = {step["id"]: step for step in parameters["steps"]}
    return {
        "schema": SCHEMA,
        "models": [_model(model, results, check, outcomes) for model in parameters["models"]],
        "failed": check.get("failed", []),
        "steps": [
            {"reason": None, "message": None} | {key: step[key] for key in step if key != "seconds"}
            for step in parameters["steps"]
        ],
        "tools": parameters["tools"],
    }


def _model(model: Json, results: Mapping[str, Json], check: Json, outcomes: Mapping[str, Json]) -> Json:
    judged = _named(_named(check.get("models", [])).get(model["name"], {}).get("variants", []))
    float32_size = model["variants"][0]["size_bytes"]
    return {
        "name": model["name"],
        "metric": model["metric"],
        "source": model["source"],
        "ship": model["ship"],
        "devices": model["devices"],
        "calibration": _without(model.get("calibration"), "lint"),
        "lint": _named(check.get("models", [])).get(model["name"], {}).get("lint", []),
        "variants": [
            _variant(
                model,
                variant,
                judged=judged.get(variant["name"], {}),
                results=results,
                outcomes=outcomes,
                float32_size=float32_size,
            )
            for variant in model["variants"]
        ],
    }


def _variant(
    model: Json,
    variant: Json,
    *,
    judged: Json,
    results: Mapping[str, Json],
    outcomes: Mapping[str, Json],
    float32_size: int | None,
) -> Json:
    role = f"{model['name']}/{variant['name']}"
    gates = judged.get("gates", [])
    values = variant.get("values") or {}
    return {
        "name": variant["name"],
        "scheme": variant["scheme"],
        "options": variant["options"],
        "artifact": _artifact(variant, values, results.get(f"{role}:description"), float32_size),
        "accuracy": _accuracy(judged.get("accuracy"), results.get(f"{role}:evaluation")),
        "search": values.get("search"),
        "sensitivity": _sensitivity(variant, results.get(f"{role}:sensitivity")),
        "devices": {
            device["name"]: _device(f"{role}@{device['name']}", results, outcomes) for device in model["devices"]
        },
        "gates": gates,
        "verdict": "fail" if variant["error"] is not None else overall(gates),
        "error": variant["error"],
    }


def _artifact(variant: Json, values: Json, description: Json | None, float32_size: int | None) -> Json | None:
    if variant["artifact_path"] is None:
        return None
    found = description or {}
    return {
        "path": variant["artifact_path"],
        "sha256": variant["sha256"],
        "size_bytes": variant["size_bytes"],
        "size_ratio": variant["size_bytes"] / float32_size if float32_size else None,
        **{key: found.get(key) for key in DESCRIBED},
        "kept_float": values.get("kept_float", []),
        "kept_int16": values.get("kept_int16", []),
        "quantized_by": {key: value for key, value in values.items() if key not in TOLD_ELSEWHERE},
    }


def _accuracy(judged: Json | None, evaluation: Json | None) -> Json | None:
    if judged is None:
        return None
    found = {key: judged.get(key) for key in ACCURACY_KEYS}
    return {"slices": [], **judged, **found, **{key: (evaluation or {}).get(key) for key in EVALUATION_KEYS}}


def _sensitivity(variant: Json, found: Json | None) -> Json | None:
    return None if found is None else {**found, "node_data": variant.get("node_data", {})}


def _device(role: str, results: Mapping[str, Json], outcomes: Mapping[str, Json]) -> Json:
    result = results.get(f"{role}:result")
    step = outcomes.get(f"benchmark:{role}")
    if result is None:
        failed = step is not None and step["outcome"] == "failed"
        found: Json = {"status": "failed" if failed else "not_measured", "message": step and step.get("message")}
    else:
        kept = (*DEVICE_KEYS, "runtime", "provenance", "message")
        found = {"message": None, **{key: result[key] for key in kept if key in result}}
    missing: Json = dict.fromkeys(DEVICE_KEYS)
    return {**missing, "runtime": {}, "provenance": {}, **found}


def overall(gates: list[Json]) -> str:
    """Sum up gates: one that fails decides, then one that is undecided; what was not measured does not pass."""
    if any(gate.get("fails") for gate in gates):
        return "fail"
    verdicts = [gate["verdict"] for gate in gates]
    return next((worst for worst in ("fail", "undecided", "pass") if worst in verdicts), "not_measured")


def _without(values: Json | None, key: str) -> Json | None:
    return None if values is None else {name: value for name, value in values.items() if name != key}


def _named(items: list[Json]) -> dict[str, Json]:
    return {item["name"]: item for item in items}
