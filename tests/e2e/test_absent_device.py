"""A device that cannot be reached: a failure where it is required, "not measured" where it is not.

The device is a runner of this test's own: a phone that answers while a file named plugged is there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from workspace import MANIFEST, Workspace, write_light

RUNNER = """
import pathlib
import msgspec
from quantbuild.errors import StepError, UnreachableError

TOOLS = ()
EXCLUSIVE = False

class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass

def _reach():
    if not pathlib.Path("plugged").exists():
        raise UnreachableError("phone: no answer; plug it in")

def fingerprint(options):
    _reach()
    return {"serial": pathlib.Path("plugged").read_text()}

def identity(options):
    return "phone"

def benchmark(job):
    if pathlib.Path("pulled").exists():
        raise UnreachableError("phone: the cable was pulled; plug it in")
    if pathlib.Path("broken").exists():
        raise StepError("the model crashed on the phone")
    pathlib.Path(job.outputs["samples"]).write_bytes(b"")
    latency = dict.fromkeys(("min", "p50", "p90", "p99"), 1.5) | {"n": 100}
    return {"status": "measured", "latency_ms": latency, "latency_ratio": 1.0, "memory_ratio": None,
            "peak_memory_bytes": None, "runtime": {}, "provenance": {}}
"""
PHONE = '\n[device.phone]\nrunner = "phone"\n'
GATE = "\n[model.m.gate]\nmax_latency_ratio = { phone = 1.1 }\n"
BENCHMARKS = {f"benchmark:m/{variant}@phone" for variant in ("a", "b", "float32")}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    """Write a workspace with a phone; the manifest's lines of the device beside its runner are given."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "phone.py").write_text(RUNNER)
    (tmp_path / "hook" / "sitecustomize.py").write_text(
        f"import quantbuild.runners\nquantbuild.runners.__path__.append({str(tmp_path / 'hook')!r})\n"
    )

    def made(keys: str = "", gate: str = "") -> Workspace:
        workspace = write_light(tmp_path / "phone", MANIFEST + gate + PHONE + keys)
        workspace.environment["PYTHONPATH"] = str(tmp_path / "hook")
        return workspace

    return made


def rows(workspace: Workspace) -> dict[str, dict[str, Any]]:
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    return {variant["name"]: variant for variant in report["models"][0]["variants"]}


def statuses(workspace: Workspace) -> set[str]:
    return {row["devices"]["phone"]["status"] for row in rows(workspace).values()}


def plug(workspace: Workspace, serial: str = "1") -> None:
    (workspace.root / "plugged").write_text(serial)


def unplug(workspace: Workspace) -> None:
    (workspace.root / "plugged").unlink()


def test_a_device_that_is_not_required_and_absent_is_not_measured(make: Any) -> None:
    workspace = make("required = false\n", GATE)
    output = workspace.doit("report")
    assert "  benchmark:m/a@phone  not measured: phone: no answer; plug it in\n" in output
    assert "0 failed" in output.splitlines()[-1]
    assert workspace.last_run()["failed"] == 0
    assert workspace.last_run()["not_measured"] == 3
    assert workspace.steps("not_measured") == BENCHMARKS
    for row in rows(workspace).values():
        device = row["devices"]["phone"]
        assert (device["status"], device["latency_ms"]) == ("not_measured", None)
        assert device["message"] == "phone: no answer; plug it in"
        assert row["error"] is None
        assert row["verdict"] != "fail"
    assert {gate["verdict"] for gate in rows(workspace)["a"]["gates"]} == {"not_measured"}
    page = (workspace.root / "build/report/index.html").read_text()
    assert "not measured" in page
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    assert {step["id"] for step in report["steps"] if step["outcome"] == "not_measured"} == BENCHMARKS


def test_a_required_device_that_is_absent_is_a_failure(make: Any) -> None:
    workspace = make(gate=GATE)
    output = workspace.doit("report", code=1)
    assert "  benchmark:m/a@phone  failed: phone: no answer; plug it in\n" in output
    assert workspace.steps("failed") == BENCHMARKS
    assert workspace.last_run()["failed"] == 3
    assert statuses(workspace) == {"failed"}
    assert rows(workspace)["a"]["error"] == "phone: no answer; plug it in"
    assert (workspace.root / "build/report/index.html").exists()
    assert (workspace.root / "dist/m/a.tflite").exists()
    workspace.doit("check", code=1)
    assert "no answer" in (workspace.root / "build/report/junit.xml").read_text()


def test_it_is_asked_for_again_in_every_build(make: Any) -> None:
    workspace = make("required = false\n")
    for _ in range(2):
        output = workspace.doit("report")
        assert "not measured: phone" in output
    assert workspace.last_run()["executed"] == 0
    assert workspace.last_run()["not_measured"] == 3
    assert "no answer" in workspace.quantbuild("explain", "benchmark:m/a@phone")
    plug(workspace)
    told = workspace.quantbuild("explain", "benchmark:m/a@phone")
    assert told.startswith("benchmark:m/a@phone: not measured before: ")
    workspace.doit("report")
    assert workspace.steps("executed") == {*BENCHMARKS, "report"}
    assert statuses(workspace) == {"measured"}
    workspace.doit("report")
    assert workspace.last_run()["up_to_date"] == len(workspace.last_run()["steps"])
    unplug(workspace)
    workspace.doit("report")
    assert statuses(workspace) == {"not_measured"}
    plug(workspace)
    workspace.doit("report")
    assert workspace.steps("restored") >= BENCHMARKS
    assert statuses(workspace) == {"measured"}


def test_another_device_that_comes_while_nobody_looks_is_measured(make: Any) -> None:
    workspace = make("required = false\n")
    plug(workspace)
    workspace.doit("report")
    unplug(workspace)
    workspace.doit("quantize")
    plug(workspace, "2")
    workspace.doit("report")
    assert workspace.steps("executed") >= BENCHMARKS


@pytest.mark.parametrize(("keys", "code", "status"), [("required = false\n", 0, "not_measured"), ("", 1, "failed")])
def test_a_device_that_goes_while_it_measures_is_told_alike(make: Any, keys: str, code: int, status: str) -> None:
    workspace = make(keys)
    plug(workspace)
    (workspace.root / "pulled").touch()
    output = workspace.doit("report", code=code)
    assert f"{status.replace('_', ' ')}: phone: the cable was pulled; plug it in" in output
    assert statuses(workspace) == {status}


def test_a_failure_on_a_device_that_is_there_is_a_failure_whether_required_or_not(make: Any) -> None:
    workspace = make("required = false\n")
    plug(workspace)
    (workspace.root / "broken").touch()
    output = workspace.doit("report", code=1)
    assert "failed: the model crashed on the phone" in output
    assert statuses(workspace) == {"failed"}
