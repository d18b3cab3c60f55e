"""Judges every variant against its gates and writes the verdicts as JSON and JUnit XML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantbuild.step import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from xml.etree.ElementTree import Element

    from quantbuild.lint.findings import Finding
    from quantbuild.lint.judgement import Judgement

WORKER = "light"
TOOLS = ("numpy",)

REFERENCE = "float32"


def run(job: Job) -> dict[str, Any]:
    """Judge the variants of ``parameters["models"]``.

    Inputs, each absent where its step failed or does not exist: ``MODEL/VARIANT:description``,
    ``MODEL/VARIANT:evaluation``, ``MODEL/VARIANT:samples``, ``MODEL/VARIANT@DEVICE:result``,
    ``MODEL:calibration_samples`` and ``MODEL:evaluation_samples``. Writes ``gates`` and ``junit``; returns the gates
    that failed, those left undecided, and what the lint found that was not told before.
    """
    models = [_model(job, model) for model in job.parameters["models"]]
    found = [finding for model in models for finding in model.pop("found_here")]
    failed = _told(models, lambda row: bool(row["fails"]))
    undecided = _told(models, lambda row: row["verdict"] == "undecided" and not row["fails"])
    _write_json(job.outputs["gates"], {"models": models, "failed": failed})
    _write_junit(job.outputs["junit"], models)
    verdicts = {
        f"{model['name']}/{variant['name']}": _overall(variant) for model in models for variant in model["variants"]
    }
    return {"failed": failed, "undecided": undecided, "verdicts": verdicts, "lint": found}


def _told(models: list[dict[str, Any]], which: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Return the judged gates that the build tells of, each with its model and variant."""
    return [
        {"model": model["name"], "variant": variant["name"], **_without(row, "name", "fails"), "gate": row["name"]}
        for model in models
        for variant in model["variants"]
        for row in variant["gates"]
        if which(row)
    ]


def _overall(variant: dict[str, Any]) -> str | None:
    """Return the worst verdict of a variant's gates, None where no gate is set: nothing was promised."""
    if variant["error"] is not None or any(row["fails"] for row in variant["gates"]):
        return "fail"
    verdicts = {row["verdict"] for row in variant["gates"]}
    return next((worst for worst in ("undecided", "not_measured", "pass") if worst in verdicts), None)


def _model(job: Job, model: dict[str, Any]) -> dict[str, Any]:
    from quantbuild.lint.findings import as_data

    judgement = _lint(job, model)
    return {
        "name": model["name"],
        "variants": [_variant(job, model, variant, judgement) for variant in model["variants"]],
        "lint": as_data([*judgement.earlier, *judgement.findings]),
        "found_here": as_data(judgement.findings),
    }


def _lint(job: Job, model: dict[str, Any]) -> Judgement:
    from quantbuild.lint import facts, judgement

    name = model["name"]
    sets = {
        role: facts.read(job.inputs[f"{name}:{role}_samples"]) if f"{name}:{role}_samples" in job.inputs else None
        for role in ("calibration", "evaluation")
    }
    evaluations = {variant["name"]: _read(job, f"{name}/{variant['name']}:evaluation") for variant in model["variants"]}
    return judgement.judge(
        name,
        calibration=sets["calibration"],
        evaluation=sets["evaluation"],
        evaluations={variant: found for variant, found in evaluations.items() if found is not None},
        calibrated=model["lint"]["calibrated"],
        ignored=model["lint"]["ignore"],
    )


def _variant(job: Job, model: dict[str, Any], variant: dict[str, Any], judgement: Judgement) -> dict[str, Any]:
    from quantbuild import artifact_gates, gates, search_gate
    from quantbuild.sample_file import read

    key = f"{model['name']}/{variant['name']}"
    reference = variant["name"] == REFERENCE
    # float32 is what the others are judged against: no ratio to itself can fail.
    gate = {} if reference else {name: limit for name, limit in variant["gate"].items() if limit is not None}
    evaluation = _read(job, f"{key}:evaluation")
    accuracy = None
    if evaluation is not None:
        accuracy = gates.accuracy(evaluation, read(job.inputs[f"{key}:samples"]), gate, reference=reference)
    description = _read(job, f"{key}:description")
    rows = gates.judge(
        gate,
        accuracy=accuracy,
        size_ratio=_size_ratio(description, _read(job, f"{model['name']}/{REFERENCE}:description")),
        float_ops=None if description is None else description["float_ops"],
        devices=_results(job, key),
    )
    rows += artifact_gates.judge(gate, description)
    rows += search_gate.judge(variant.get("search"), rows=rows, accuracy=accuracy)
    rows += [] if reference else _lint_rows(judgement.against.get(variant["name"], []))
    return {
        "name": variant["name"],
        "accuracy": accuracy,
        "gates": [{**row, "fails": gates.fails(row, gate)} for row in rows],
        "error": variant["error"],
        "cause": variant["cause"],
    }


def _lint_rows(ruin: list[Finding]) -> list[dict[str, Any]]:
    """Return a failed gate where the lint found an error; without one there is none to pass."""
    from quantbuild.artifact_gates import row

    if not ruin:
        return []
    messages = "; ".join(finding.message for finding in ruin)
    return [row("lint", True, False, "fail", messages)]


def _read(job: Job, role: str) -> dict[str, Any] | None:
    if role not in job.inputs:
        return None
    found: dict[str, Any] = msgspec.json.decode(Path(job.inputs[role]).read_bytes())
    return found


def _results(job: Job, key: str) -> dict[str, dict[str, Any]]:
    """Return device to benchmark result, of one variant."""
    devices = {}
    for role, path in job.inputs.items():
        if role.startswith(f"{key}@") and role.endswith(":result"):
            device = role.removeprefix(f"{key}@").removesuffix(":result")
            devices[device] = msgspec.json.decode(Path(path).read_bytes())
    return devices


def _size_ratio(description: dict[str, Any] | None, reference: dict[str, Any] | None) -> float | None:
    if description is None or reference is None:
        return None
    return float(description["size_bytes"] / reference["size_bytes"])


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _write_json(path: str, content: dict[str, Any]) -> None:
    Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def _write_junit(path: str, models: list[dict[str, Any]]) -> None:
    """Write a test suite per model and a test case per gate of a variant; a failed step is an error."""
    from xml.etree import ElementTree as ET

    root = ET.Element("testsuites", name="quantbuild")
    for model in models:
        suite = ET.SubElement(root, "testsuite", name=model["name"])
        for variant in model["variants"]:
            _cases(suite, f"{model['name']}.{variant['name']}", variant)
        for part, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            suite.set(part, str(len(suite.findall(f"testcase/{tag}"))))
        suite.set("tests", str(len(suite)))
    ET.indent(root)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _cases(suite: Element, class_name: str, variant: dict[str, Any]) -> None:
    from xml.etree import ElementTree as ET

    if variant["error"] is not None:
        case = ET.SubElement(suite, "testcase", classname=class_name, name="build")
        ET.SubElement(case, "error", message=error_text(variant)).text = _log(variant)
    for row in variant["gates"]:
        name = f"{row['name']}@{row['device']}" if row["device"] else row["name"]
        case = ET.SubElement(suite, "testcase", classname=class_name, name=name)
        if row["fails"]:
            ET.SubElement(case, "failure", type=row["verdict"], message=row["message"])
        elif row["verdict"] != "pass":
            ET.SubElement(case, "skipped", message=f"{row['verdict'].replace('_', ' ')}: {row['message']}")


def error_text(variant: Mapping[str, Any]) -> str:
    """Return why a variant could not be made or judged; where a step before it failed, with what that one said."""
    error, cause = variant["error"], variant["cause"]["message"]
    return str(error) if cause in (None, error) else f"{error}: {cause}"


def _log(variant: dict[str, Any]) -> str | None:
    log = variant["cause"]["log"]
    return f"step {variant['cause']['step']}; log: {log}" if log else f"step {variant['cause']['step']}"
