"""The verdicts as SARIF 2.1.0 (OASIS), for GitHub code scanning and whatever else reads it. Runs in the parent.

A result stands where its limit is written: readers show only files of the repository, and dist/ is none. The line of a
limit enters no key (a comment above it changes nothing), so this file is no output of the check step: it is made from
that step's verdicts at the end of every build that judged them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quantbuild import dist
from quantbuild.actions.check import error_text
from quantbuild.digests import sha256_of_bytes
from quantbuild.manifest.locate import KeyPath, Position, locate

Json = Mapping[str, Any]
Positions = Mapping[str, Mapping[KeyPath, Position]]
"""Of every key, by the manifest it is written in."""

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
MEANING = {
    "max_accuracy_loss": "The loss against float32 stays within the limit, with confidence.",
    "max_slice_loss": "The loss of every slice against float32 stays within the limit, with confidence.",
    "min_agreement": "Share of samples with float32's prediction.",
    "min_sqnr_db": "Output signal to quantization noise, in dB.",
    "max_size_ratio": "Size of the file against the float32 file.",
    "max_latency_ratio": "Latency on the device against float32.",
    "max_peak_memory_ratio": "Peak memory on the device against float32.",
    "fully_integer": "No float op is left in the graph.",
    "allow_ops": "Only ops that the manifest allows.",
    "min_runtime": "It runs on that TensorFlow Lite, and on every newer one.",
    "search.max_accuracy_loss": "The search found an artifact whose loss stays within its limit.",
    "lint": "Nothing is ruinously wrong with the samples that it was calibrated and judged on.",
}


def write(root: Path, path: str, verdicts: Json, manifests: Iterable[tuple[str, str]]) -> None:
    """Bring the file `path` in line with `verdicts`, the check step's.

    `manifests` are path and sha256 of the manifests that were judged by: of one that was edited since, no line is told.

    Raises:
        OSError: it could not be written.
    """
    positions = {name: _positions(root / name, sha256) for name, sha256 in manifests}
    text = json.dumps(log(verdicts["models"], positions), indent=2, ensure_ascii=False) + "\n"
    dist.write_file(root, path, text.encode())


def log(models: Sequence[Json], positions: Positions) -> dict[str, Any]:
    """Return the log: a rule per gate and of the lint, a result per gate not passed, failed step and finding."""
    from quantbuild.lint import rules as lint_rules

    results = []
    for model in models:
        for variant in model["variants"]:
            results += _results(model["name"], variant, positions)
        results += [_finding(model["name"], finding, positions) for finding in model.get("lint", ())]
    rules = {"step_failed": "Every step of the variant succeeds.", **MEANING}
    rules |= {f"lint.{name}": meaning for name, meaning in lint_rules.MEANING.items()}
    driver = {
        "name": "quantbuild",
        "rules": [{"id": name, "shortDescription": {"text": text}} for name, text in rules.items()],
    }
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _results(model: str, variant: Json, positions: Positions) -> list[dict[str, Any]]:
    name, results = f"{model}/{variant['name']}", []
    if variant["error"] is not None:
        written: KeyPath = ("model", model, "variant", variant["name"])
        cause = variant["cause"]
        failed = _result("step_failed", "error", name, error_text(variant), _location(name, [written], positions))
        results.append({**failed, "properties": {"step": cause["step"], "log": cause["log"]}})
    for row in variant["gates"]:
        if row["fails"] or row["verdict"] == "undecided":
            key = (row["name"], row["device"]) if row["device"] else (row["name"],)
            # A search's limit is the variant's own, and named by the path to it.
            keys: list[KeyPath] = [
                ("model", model, "variant", variant["name"], *row["name"].split(".")),
                ("model", model, "variant", variant["name"], "gate", *key),
                ("model", model, "gate", *key),
            ]
            level, place = "error" if row["fails"] else "warning", _location(name, keys, positions)
            result = _result(row["name"], level, name, row["message"], place, device=row["device"])
            results.append({**result, "relatedLocations": [_artifact(name)]})
    return results


def _finding(model: str, finding: Json, positions: Positions) -> dict[str, Any]:
    """Return the result of a finding of the lint: it is about data, and stands where the model is written."""
    level, name = "note" if finding["severity"] == "info" else finding["severity"], f"{model}/{finding['subject']}"
    place = _location(name, [("model", model)], positions)
    found = _result(f"lint.{finding['rule']}", level, name, finding["message"], place)
    return {**found, "message": {"text": f"{model}: {finding['message']}"}}


def _result(
    rule: str, level: str, name: str, message: str, location: dict[str, Any], *, device: str | None = None
) -> dict[str, Any]:
    # Where several variants break one limit of their model, file, line and rule are the same: GitHub, which tells
    # results apart by these and this hash, would show but one.
    identity = sha256_of_bytes("\0".join((rule, name, device or "")).encode())[:16]
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": f"{name}: {message}"},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": f"{identity}:1"},
    }


def _location(name: str, keys: Sequence[KeyPath], positions: Positions) -> dict[str, Any]:
    """Return where the first of `keys` that is written stands, else the longest part of the last one."""
    logical = [{"fullyQualifiedName": name}]
    shortened = [keys[-1][:length] for length in range(len(keys[-1]) - 1, 0, -1)]
    for key in (*keys, *shortened):
        found = [(file, known[key]) for file, known in positions.items() if key in known]
        if found:
            file, position = next((hit for hit in found if hit[1].explicit), found[0])
            region = {"startLine": position.line, "startColumn": position.column}
            physical = {"artifactLocation": {"uri": _uri(file)}, "region": region}
            return {"physicalLocation": physical, "logicalLocations": logical}
    file = next(iter(positions), "manifests")
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(file)}}, "logicalLocations": logical}


def _artifact(name: str) -> dict[str, Any]:
    physical = {"artifactLocation": {"uri": _uri(dist.artifact_file(name))}}
    return {"id": 1, "message": {"text": "the artifact that was judged"}, "physicalLocation": physical}


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(path)


def _positions(path: Path, sha256: str) -> Mapping[KeyPath, Position]:
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    return locate(content.decode("utf-8-sig")) if sha256_of_bytes(content) == sha256 else {}
