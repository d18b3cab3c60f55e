"""SARIF: a result for all that is not well, each where its limit is written in the repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from quantbuild import sarif
from quantbuild.digests import sha256_of_bytes

MANIFEST = """schema = 1
[model.m]
gate.min_agreement = 0.9
[model.m.gate]
max_size_ratio = 0.01
max_latency_ratio = { host = 1.1 }
[model.m.variant.a]
scheme = "int8"
  [model.m.variant.a.gate]
  max_accuracy_loss = 0.02
[model.m.variant.b]
scheme = "int8"
"""
FAILED = {"step": "calibrate:m", "message": "sample 3 holds NaN", "log": "build/.logs/calibrate.m.log"}


def row(name: str, verdict: str = "fail", **more: Any) -> dict[str, Any]:
    return {"name": name, "device": None, "verdict": verdict, "fails": verdict == "fail", "message": name, **more}


def variant(name: str, *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "gates": list(rows), "error": None, "cause": None, **more}


@pytest.fixture
def written(tmp_path: Path) -> dict[str, Any]:
    """The log of a model whose variants break limits, are undecided, and could not be made."""
    text = MANIFEST.replace("gate.min_agreement = 0.9\n", "")
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests/my models.toml").write_text(text)
    a = variant(
        "a",
        row("max_accuracy_loss", "undecided"),
        row("max_size_ratio"),
        row("max_latency_ratio", device="host"),
        row("fully_integer", "pass"),
    )
    b = variant("b", row("max_size_ratio"), error="blocked by calibrate:m", cause=FAILED)
    verdicts = {"models": [{"name": "m", "variants": [variant("float32"), a, b]}]}
    sarif.write(tmp_path, "results.sarif", verdicts, [("manifests/my models.toml", sha256_of_bytes(text.encode()))])
    found: dict[str, Any] = json.loads((tmp_path / "results.sarif").read_bytes())
    return found


def places(log: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    found = []
    for result in log["runs"][0]["results"]:
        (location,) = result["locations"]
        region = location["physicalLocation"]["region"]
        name = location["logicalLocations"][0]["fullyQualifiedName"]
        found.append((result["ruleId"], name, region["startLine"], region["startColumn"]))
    return found


def test_every_result_has_a_rule_and_a_level(written: dict[str, Any]) -> None:
    (run,) = written["runs"]
    assert written["version"] == "2.1.0"
    assert {(found["ruleId"], found["level"]) for found in run["results"]} == {
        ("max_accuracy_loss", "warning"),
        ("max_size_ratio", "error"),
        ("max_latency_ratio", "error"),
        ("step_failed", "error"),
    }
    assert {found["ruleId"] for found in run["results"]} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_a_result_stands_where_its_limit_is_written_and_names_the_artifact_besides(written: dict[str, Any]) -> None:
    assert places(written) == [
        ("max_accuracy_loss", "m/a", 9, 3),
        ("max_size_ratio", "m/a", 4, 1),
        ("max_latency_ratio", "m/a", 5, 23),
        ("step_failed", "m/b", 10, 1),
        ("max_size_ratio", "m/b", 4, 1),
    ]
    results = written["runs"][0]["results"]
    uris = {found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for found in results}
    assert uris == {"manifests/my%20models.toml"}
    related = [found["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"] for found in results[:2]]
    assert related == ["dist/m/a.tflite"] * 2
    assert "relatedLocations" not in results[3]


def test_variants_that_break_one_limit_are_results_of_their_own(written: dict[str, Any]) -> None:
    hashes = [found["partialFingerprints"]["primaryLocationLineHash"] for found in written["runs"][0]["results"]]
    assert len(set(hashes)) == len(hashes)


def test_what_failed_behind_a_blocked_variant_is_told(written: dict[str, Any]) -> None:
    (failed,) = (found for found in written["runs"][0]["results"] if found["ruleId"] == "step_failed")
    assert failed["message"]["text"] == "m/b: blocked by calibrate:m: sample 3 holds NaN"
    assert failed["properties"] == {"step": "calibrate:m", "log": "build/.logs/calibrate.m.log"}


def test_of_a_manifest_that_was_edited_since_no_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text("no TOML any more [")
    verdicts = {"models": [{"name": "m", "variants": [variant("a", row("max_size_ratio"))]}]}
    sarif.write(tmp_path, "results.sarif", verdicts, [("m.toml", "0" * 64)])
    (result,) = json.loads((tmp_path / "results.sarif").read_bytes())["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"] == {"artifactLocation": {"uri": "m.toml"}}
