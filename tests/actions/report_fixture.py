"""A made-up but complete build for the report's tests: good, doubtful, failing and broken variants, a lost phone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from quantbuild.step import Job

FLOAT32_BYTES = 824_004
BROKEN = "op 3 </script><b>CONV_2D</b> has no int16 kernel; keep it in float"
Json = dict[str, Any]


def accuracy(value: float, low: float, high: float, verdict: str, **more: Any) -> Json:
    block = {
        "value": value, "baseline": 0.98667, "loss": 0.98667 - value, "loss_low": low, "loss_high": high, "n": 600,
        "agreement": 0.99, "sqnr_db": 41.3, "verdict": verdict, "confidence": 0.95, "slices": [],
    }  # fmt: skip
    return {**block, **more}


def slice_of(name: str, loss: float, low: float, high: float, verdict: str) -> Json:
    figures = {"value": 0.98 - loss, "baseline": 0.98, "loss": loss, "loss_low": low, "loss_high": high}
    return {"name": name, "n": 300, **figures, "verdict": verdict}


def gate(name: str, limit: Any, value: Any, verdict: str, device: str | None = None) -> Json:
    return {
        "name": name, "device": device, "limit": limit, "value": value, "verdict": verdict,
        "message": f"{name}: made up", "fails": verdict == "fail",
    }  # fmt: skip


def measured(p50: float, ratio: float | None, status: str = "measured") -> Json:
    return {
        "status": status,
        "latency_ms": {"min": p50 * 0.97, "p50": p50, "p90": p50 * 1.08, "p99": None, "n": 640},
        "latency_ratio": ratio,
        "peak_memory_bytes": 2_345_678,
        "memory_ratio": None if ratio is None else 0.7,
        "processes": [{"p50_ms": p50}],
        "runtime": {"name": "ai-edge-litert", "version": "2.3.0", "delegate": "XNNPACK", "threads": 1},
        "provenance": {"cpu": "Imaginary CPU 9000", "cpus": 2, "load": p50 * 10, "governor": None, "attempts": 1},
    }


def description(size_bytes: int, float_ops: list[Json], dtype: str = "float32") -> Json:
    scale, zero_point = (None, None) if dtype == "float32" else (0.00390625, -128)
    tensor = {"shape": [1, 10], "dtype": dtype, "scale": scale, "zero_point": zero_point}
    return {
        "signature": "serving_default",
        "inputs": [{"name": "image", "tensor": "image:0", **tensor, "shape": [1, 8, 8, 1]}],
        "outputs": [{"name": "probabilities", "tensor": "out:0", **tensor}],
        "ops": {"CONV_2D": 7, "DEPTHWISE_CONV_2D": 6, "ADD": 3, "MEAN": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1},
        "op_versions": [
            {"op": "CONV_2D", "version": 3, "count": 7, "runtime": "1.14.0"},
            {"op": "FULLY_CONNECTED", "version": 9, "count": 1, "runtime": "2.3.0"},
        ],
        "float_ops": float_ops,
        "conversions": {
            "pairs": 1 if float_ops else 0,
            "ops": [{"op": "DEQUANTIZE", "name": "logits;<i>", "from": "int8", "to": "float32"}] if float_ops else [],
        },
        "custom_ops": [],
        "size_bytes": size_bytes,
        "sizes": {
            "constant_bytes": size_bytes - 20_000,
            "other_bytes": 20_000,
            "largest": [{"name": "dense/kernel", "dtype": dtype, "bytes": 65_536, "share": 65_536 / size_bytes}],
        },
        "minimal_runtime": "2.3.0",
        "runtime_unknown": [],
        "noted_runtime": "2.3.0",
        "runtime": {"name": "ai-edge-litert", "version": "2.3.0"},
        "constant_outputs": [],
    }


def variant(name: str, scheme: str, size_bytes: int | None, error: str | None = None, **options: Any) -> Json:
    built = size_bytes is not None
    return {
        "name": name,
        "scheme": scheme,
        "options": options,
        "artifact_path": f"build/digits/{name}/model.tflite" if built else None,
        "sha256": f"{len(name):x}" * 64 if built else None,
        "size_bytes": size_bytes,
        "error": error,
    }


KEPT_FLOAT = [{"op": "SOFTMAX", "name": "StatefulPartitionedCall:0", "layer": "probabilities"}]


def parameters() -> Json:
    variants = [
        variant("float32", "float32", FLOAT32_BYTES),
        variant("float16", "float16", 417_300),
        variant("dynamic", "dynamic", 247_100),
        variant("int8", "int8", 261_504, io="float32", ranges="sample_mean"),
        variant("int8_io", "int8", 261_000, io="int8", ranges="sample_mean"),
        variant("clipped", "int8", 258_900, ranges="percentile"),
        variant("broken", "int16x8", None, BROKEN),
    ]
    variants[3]["node_data"] = {"sqnr_db": "build/digits/int8/sqnr.json", "noise": "build/digits/int8/noise.json"}
    variants[3]["values"] = {
        "scheme": "int8",
        "ranges": "sample_mean",
        "kept_float": KEPT_FLOAT,
        "kept_int16": [{"op": "ADD", "name": "net_1/sum_1/Add", "layer": ""}],
        "search": None,
    }
    devices = [
        {"name": "host", "runner": "host", "required": True},
        {"name": "pixel4", "runner": "adb", "required": False},
    ]
    limits = {"max_accuracy_loss": 0.02, "min_agreement": 0.98}
    model = {"name": "digits", "metric": "top1", "source": "keras", "gate": limits, "variants": variants}
    model["calibration"] = {
        "samples": 240, "held_back": 60, "tensors": 21, "route": "all-tensors",
        "route_reason": "the model calls subgraphs (WHILE); tensors inside them are not measured",
    }  # fmt: skip
    model["ship"] = {"default": "int8", "low_end": "broken"}
    steps = [
        step("benchmark:digits/broken@host", "blocked", message="quantize:digits/broken failed"),
        step("calibrate:digits", "done"),
        step("check", "done"),
        step("convert:digits", "done"),
        step("evaluate:digits/broken", "blocked", message="quantize:digits/broken failed"),
        step("quantize:digits/broken", "failed", message=BROKEN),
        step("quantize:digits/int8", "done", reason="option ranges changed: minmax → sample_mean"),
    ]
    tools = {"ai-edge-litert": "2.3.0", "numpy": "2.4.6", "tensorflow": "2.21.0"}
    return {"models": [{**model, "devices": devices}], "steps": steps, "tools": tools}


def step(name: str, outcome: str, message: str | None = None, reason: str = "never built") -> Json:
    return {"id": name, "outcome": outcome, "reason": reason, "message": message}


def check() -> Json:
    same = accuracy(0.98667, -0.0064, 0.0064, "pass", agreement=1.0)
    good = accuracy(0.985, -0.0031, 0.0078, "pass")
    size = gate("max_size_ratio", 0.35, 0.3174, "pass")
    integer = gate("fully_integer", True, True, "pass")
    agreement = gate("min_agreement", 0.98, 0.99, "pass")
    loss = {
        value: gate("max_accuracy_loss", 0.02, 0.98667 - value, verdict)
        for value, verdict in ((0.98667, "pass"), (0.985, "pass"), (0.975, "undecided"))
    }
    judged = [
        ("float32", accuracy(0.98667, 0.0, 0.0, "not_measured", agreement=1.0, sqnr_db=None), []),
        ("float16", {**same, "sqnr_db": 61.2}, [loss[0.98667], agreement]),
        ("dynamic", {**same, "sqnr_db": 48.4}, [loss[0.98667], agreement]),
        ("int8", good, [loss[0.985], agreement, size, integer]),
        ("int8_io", accuracy(0.975, -0.001, 0.024, "undecided"), [loss[0.975], agreement, size, integer]),
        (
            "clipped",
            accuracy(0.945, 0.0253, 0.061, "fail", agreement=0.951),
            [
                gate("max_accuracy_loss", 0.02, 0.041667, "fail"),
                gate("min_agreement", 0.98, 0.951, "fail"),
                gate("max_latency_ratio", 1.1, None, "not_measured", "pixel4"),
                gate("fully_integer", True, False, "fail"),
                gate("allow_ops", ["CONV_2D"], ["ADD", "SOFTMAX"], "fail"),
                gate("min_runtime", "2.1", "2.3.0", "fail"),
                {**gate("lint", True, False, "fail"), "message": "lint: cal: is noise; give it real samples"},
            ],
        ),
        ("broken", None, []),
    ]
    for name, loss, low, high, verdict in (("int8", 0.0, -0.01, 0.01, "pass"), ("clipped", 0.08, 0.05, 0.12, "fail")):
        found, gates = next((found, gates) for each, found, gates in judged if each == name)
        assert found is not None
        day = slice_of("day", 0.0, -0.01, 0.01, "pass")
        found["slices"] = [day, slice_of("night <i>", loss, low, high, verdict)]
        gates.append({**gate("max_slice_loss", 0.03, loss, verdict), "slice": "night <i>"})
    variants = [
        {"name": name, "accuracy": found, "gates": gates, "error": BROKEN if name == "broken" else None}
        for name, found, gates in judged
    ]
    failed = [{"model": "digits", "variant": "clipped", "gate": "max_accuracy_loss", "verdict": "fail"}]
    lint = [
        finding("range", "error", 'cal: input "image" goes from 0 to 255; prepare <both> in the same way'),
        finding("few_samples", "info", "cal: ranges are taken from 60 samples; give it 100 or more"),
    ]
    return {"models": [{"name": "digits", "variants": variants, "lint": lint}], "failed": failed}


def finding(rule: str, severity: str, message: str) -> Json:
    return {"rule": rule, "severity": severity, "subject": "cal", "message": message, "figures": {"n": 1}}


def evaluation(flipped: list[int]) -> Json:
    pairs = {"both_right": 588, "only_float32_right": 4, "only_variant_right": 3, "both_wrong": 5}
    output = {
        "name": "probabilities", "elements": 10, "constant_elements": 1, "stuck_elements": 1,
        "at_low": 0.42, "at_high": 0.05, "clipped": 0.001,
    }  # fmt: skip
    figures = {
        "higher_is_better": True,
        "n": 600,
        "pairs": pairs,
        "tied": 0,
        "flipped": flipped,
        "agreed": 594,
        "slices": [],
    }
    return {**figures, "outputs": [output]}


def sensitivity() -> Json:
    """What the step of that name found; the last op computes on floats."""
    op = {"op": "CONV_2D", "layer": "", "dtype": "int8", "own_rms": 0.01, "own_sqnr_db": 38.5}
    tensor = {"dtype": "int8", "step": 0.0235, "rms": 0.766, "error_rms": 0.0208}
    kept = {"own_rms": None, "own_sqnr_db": None, "noise": None, "share": None, "dtype": "float32"}
    return {
        "samples": 8,
        "noise": 0.00021,
        "noise_sum": 0.00091,
        "outputs": [{"name": "probabilities", "before": "SOFTMAX", "sqnr_db": 36.8}],
        "tensors": [{**tensor, "name": f"net/t{n}", "tensor": f"net/t{n}", "sqnr_db": 31.3 + n} for n in range(14)],
        "ops": [
            {**op, "name": f"net/op{n} <i>;more", "index": n, "noise": 0.0005 / 2**n, "share": 0.5 / 2**n}
            for n in range(12)
        ]
        + [{**op, **kept, "name": "net/kept", "index": 12}],
        "unmatched_tensors": ["net/lost"],
        "unmatched_ops": [{"op": "PACK", "name": "net/packed"}],
    }


def results() -> dict[str, Json]:
    """The report's inputs by role."""
    left = [{"op": "SOFTMAX", "name": "probabilities <b>"}]
    found: dict[str, Json] = {"check": check()}
    for number, each in enumerate(parameters()["models"][0]["variants"]):
        role = f"digits/{each['name']}"
        if each["size_bytes"] is None:
            continue
        floats = left if each["name"] == "clipped" else []
        dtype = "int8" if each["name"] == "int8_io" else "float32"
        found[f"{role}:description"] = description(each["size_bytes"], floats, dtype)
        found[f"{role}:evaluation"] = evaluation([17, 301] if number else [])
        status = "unstable" if each["name"] == "dynamic" else "measured"
        found[f"{role}@host:result"] = measured(0.0312 - 0.003 * number, 1 - 0.1 * number if number else None, status)
    found["digits/int8:sensitivity"] = sensitivity()
    found["digits/float32@pixel4:result"] = {
        "status": "not_measured", "latency_ms": None, "message": "device pixel4 is not reachable over adb",
        "runtime": {}, "provenance": {},
    }  # fmt: skip
    return found


def job(folder: Path, given: Json | None = None, found: dict[str, Json] | None = None) -> Job:
    """A report job whose inputs are files in `folder`."""
    inputs = {}
    for number, (role, content) in enumerate((results() if found is None else found).items()):
        path = folder / f"input.{number}.json"
        path.write_text(json.dumps(content))
        inputs[role] = str(path)
    return Job(
        step="report",
        action="report",
        parameters=parameters() if given is None else given,
        inputs=inputs,
        outputs={"page": str(folder / "index.html"), "report": str(folder / "report.json")},
        root=str(folder),
        scratch=str(folder),
    )
