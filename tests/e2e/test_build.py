"""A whole build through real doit: what it leaves, what runs again, what is repaired, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from workspace import Workspace, write_light

from quantbuild.digests import Stamp
from quantbuild.report import schema
from quantbuild.standing import Snapshot


def last_line(output: str) -> str:
    return output.strip().splitlines()[-1]


def test_doit_lists_exactly_the_public_tasks(light: Workspace) -> None:
    listed = {line.split()[0] for line in light.doit("list", "--all").splitlines()}
    assert listed == {
        *("benchmark", "benchmark:m/a@host", "benchmark:m/b@host", "benchmark:m/float32@host"),
        *("calibrate", "check", "convert", "convert:m", "dist"),
        *("evaluate", "evaluate:m/a", "evaluate:m/b", "evaluate:m/float32"),
        *("quantize", "quantize:m/a", "quantize:m/b", "report"),
    }


def test_calibrate_exists_where_a_scheme_needs_it(light: Workspace) -> None:
    light.edit('scheme = "dynamic"', 'scheme = "int8"')
    light.edit('evaluation = "data"', 'calibration = "data"')
    listed = {line.split()[0] for line in light.doit("list", "--all").splitlines()}
    assert "calibrate:m" in listed
    assert not {task for task in listed if task.startswith("evaluate:")}


def test_a_build_leaves_everything_and_the_second_does_nothing(light: Workspace) -> None:
    first = light.doit()
    assert last_line(first) == "quantbuild: 12 executed, 0 restored, 0 up to date, 0 failed"
    for path in (
        *("build/m/float32.tflite", "build/m/float32.tflite.record.json", "build/m/a/model.tflite"),
        *(
            "build/report/index.html",
            "build/report/report.json",
            "build/report/junit.xml",
            "build/report/results.sarif",
        ),
        *("dist/m/a.tflite", "dist/m/a.json", "dist/m/model.tflite", "dist/quantbuild.lock.json", "dist/quantbuild.d"),
    ):
        assert (light.root / path).is_file(), path
    second = light.doit()
    assert last_line(second) == "quantbuild: 0 executed, 0 restored, 12 up to date, 0 failed"
    run = light.last_run()
    assert (run["executed"], run["restored"], run["up_to_date"], run["failed"]) == (0, 0, 12, 0)
    schema.validate(json.loads((light.root / "build/report/report.json").read_bytes()))


def test_the_report_holds_size_accuracy_latency_and_memory_of_each_variant(built: Workspace) -> None:
    report = json.loads((built.root / "build/report/report.json").read_bytes())
    variants = report["models"][0]["variants"]
    assert [variant["name"] for variant in variants] == ["float32", "a", "b"]
    for variant in variants:
        assert variant["artifact"]["size_bytes"] == (built.root / variant["artifact"]["path"]).stat().st_size
        assert variant["accuracy"]["n"] == 60
        host = variant["devices"]["host"]
        assert host["latency_ms"]["p50"] > 0
        assert host["peak_memory_bytes"] > 0


@pytest.mark.parametrize(
    ("task", "left"),
    [
        ("quantize:m/a", {"dist/m/a.tflite", "dist/m/a.json", "dist/m/model.tflite"}),
        ("quantize", {"dist/m/a.tflite", "dist/m/b.tflite", "dist/quantbuild.lock.json"}),
        ("evaluate:m/a", {"build/m/a/evaluation.json", "build/m/float32/evaluation.json"}),
        ("benchmark:m/a@host", {"build/m/a/benchmark@host.json"}),
        ("check", {"build/report/junit.xml", "dist/quantbuild.lock.json"}),
        ("dist", {"dist/m/b.json", "dist/quantbuild.lock.json"}),
    ],
)
def test_a_task_alone_does_what_it_needs(light: Workspace, task: str, left: set[str]) -> None:
    light.doit(task)
    for path in left:
        assert (light.root / path).is_file(), path
    assert not (light.root / "build/report/index.html").exists()
    assert last_line(light.doit(task)).startswith("quantbuild: 0 executed, 0 restored")


def test_what_depends_on_a_step_that_was_built_alone_is_built_after_it(light: Workspace) -> None:
    light.doit()
    write_light(light.root, seed=5)
    light.doit("convert:m")
    assert light.steps("executed") == {"convert:m"}
    before = light.files("dist")
    light.doit("quantize:m/a")
    assert light.steps("executed") == {"quantize:m/a"}
    assert light.files("dist")["m/a.tflite"] != before["m/a.tflite"]
    light.doit()
    assert light.steps("up_to_date") == {"convert:m", "quantize:m/a"}


def test_a_snapshot_from_before_a_killed_build_makes_nothing_stale_stand(light: Workspace) -> None:
    """A build killed after a step leaves the record of that step and the snapshot of the build before."""
    light.doit()
    snapshot = light.root / "build/.state/standing.msgpack"
    old = snapshot.read_bytes()
    write_light(light.root, seed=5)
    light.doit("convert:m")
    snapshot.write_bytes(old)
    light.doit("convert:m")
    assert light.steps("executed") == set()
    light.doit("quantize:m/a")
    assert light.steps("executed") == {"quantize:m/a"}


@pytest.mark.parametrize("task", ["quantize:m/a", "evaluate:m/a"])
def test_a_task_alone_repairs_dist_where_nothing_else_changed(light: Workspace, task: str) -> None:
    light.doit()
    light.doit()
    before = light.files("dist")
    (light.root / "dist/m/a.tflite").unlink()
    light.doit(task)
    assert light.files("dist") == before


@pytest.mark.parametrize("task", ["quantize:m/a", "evaluate:m/a"])
def test_a_task_alone_repairs_what_it_published(built: Workspace, task: str) -> None:
    before = built.files("dist")
    (built.root / "dist/m/a.tflite").unlink()
    (built.root / "dist/m/a.json").write_text("tampered with")
    built.doit(task)
    assert built.files("dist") == before


def test_one_task_at_a_time_gives_the_same(light: Workspace) -> None:
    assert last_line(light.doit("-n", "1", "report")) == "quantbuild: 12 executed, 0 restored, 0 up to date, 0 failed"


def test_a_comment_rebuilds_nothing(built: Workspace) -> None:
    built.edit("schema = 1", "# a comment\nschema = 1   # and another")
    built.doit()
    assert built.last_run()["executed"] == 0


def sarif_results(workspace: Workspace) -> list[dict[str, Any]]:
    (run,) = json.loads((workspace.root / "build/report/results.sarif").read_bytes())["runs"]
    results: list[dict[str, Any]] = run["results"]
    return results


def test_sarif_follows_the_line_of_a_limit_and_executes_nothing_for_it(light: Workspace) -> None:
    light.manifest.write_text(light.manifest.read_text() + "[model.m.gate]\nmax_size_ratio = 0.01\n")
    light.doit("check", code=1)

    def place() -> tuple[str, int]:
        physical = sarif_results(light)[0]["locations"][0]["physicalLocation"]
        return physical["artifactLocation"]["uri"], physical["region"]["startLine"]

    line = light.manifest.read_text().splitlines().index("max_size_ratio = 0.01") + 1
    assert place() == ("manifests/m.toml", line)
    light.edit("schema = 1", "# a comment\n# and another\nschema = 1")
    light.doit("check", code=1)
    assert light.steps("executed") == set()
    assert place() == ("manifests/m.toml", line + 2)


@pytest.mark.parametrize("tamper", [True, False])
def test_a_sarif_that_was_deleted_or_tampered_with_is_repaired(built: Workspace, tamper: bool) -> None:
    path = built.root / "build/report/results.sarif"
    good = path.read_bytes()
    if tamper:
        path.write_bytes(good.replace(b"quantbuild", b"quantbuilt"))
    else:
        path.unlink()
    built.doit("check")
    assert path.read_bytes() == good
    built.doit("clean", "check")
    assert not path.exists()


def test_one_option_of_one_variant_rebuilds_it_and_what_depends_on_it(light: Workspace) -> None:
    light.doit()
    light.edit('[model.m.variant.b]\nscheme = "dynamic"', '[model.m.variant.b]\nscheme = "float16"')
    light.doit()
    # b's artifact is now a's, byte for byte: the very same action was done before.
    touched = {"quantize:m/b", "evaluate:m/b", "benchmark:m/b@host", "check", "dist", "report"}
    assert light.steps("executed") | light.steps("restored") == touched
    assert "quantize:m/b" in light.steps("restored")


def test_an_option_put_back_executes_nothing(light: Workspace) -> None:
    light.doit()
    light.edit('scheme = "dynamic"', 'scheme = "float16"')
    light.doit()
    light.edit('[model.m.variant.b]\nscheme = "float16"', '[model.m.variant.b]\nscheme = "dynamic"')
    light.doit()
    assert light.steps("executed") == set()


def test_a_model_that_converts_to_the_same_bytes_is_cut_off(light: Workspace) -> None:
    light.doit()
    from quantbuild.tflite import graph

    model = graph.read((light.root / "m.tflite").read_bytes())
    assert model.signatureDefs is not None
    model.signatureDefs[0].signatureKey = "score"  # convert calls it serving_default, whatever it was
    (light.root / "m.tflite").write_bytes(graph.write(model))
    light.doit()
    assert light.steps("executed") >= {"convert:m"}
    assert not {step for step in light.steps("executed") if step.startswith(("quantize:", "evaluate:", "benchmark:"))}


@pytest.mark.parametrize("path", ["build/m/a/model.tflite", "dist/m/a.tflite", "dist/m/a.json", "dist/m/model.tflite"])
@pytest.mark.parametrize("tamper", [True, False])
def test_what_was_deleted_or_tampered_with_is_repaired(built: Workspace, path: str, tamper: bool) -> None:
    good = (built.root / path).read_bytes()
    if tamper:
        (built.root / path).write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    else:
        (built.root / path).unlink()
    built.doit()
    assert (built.root / path).read_bytes() == good


def test_touching_everything_executes_nothing(built: Workspace) -> None:
    for path in (*built.root.glob("*.*"), *built.root.glob("manifests/*")):
        path.touch()
    built.doit()
    assert built.last_run()["executed"] == 0


def test_clean_removes_a_steps_results(built: Workspace) -> None:
    built.doit("clean", "quantize:m/a")
    assert not (built.root / "build/m/a/model.tflite").exists()
    assert not (built.root / "dist/m/a.tflite").exists()
    built.doit("quantize")
    assert (built.root / "dist/m/a.tflite").is_file()


def test_forget_makes_a_step_run_again(light: Workspace) -> None:
    light.doit("quantize")
    light.doit("forget", "quantize:m/a")
    light.doit("quantize")
    assert light.steps("executed") == {"quantize:m/a"}


def test_always_execute_runs_everything(light: Workspace) -> None:
    light.doit("quantize")
    light.doit("-a", "quantize")
    assert light.steps("executed") == {"convert:m", "quantize:m/a", "quantize:m/b", "dist"}


@pytest.mark.parametrize("task", ["check", "report"])
def test_a_broken_limit_fails_the_build_after_everything_is_written(light: Workspace, task: str) -> None:
    light.manifest.write_text(light.manifest.read_text() + "[model.m.gate]\nmax_size_ratio = 0.01\n")
    output = light.doit(task, code=1)
    assert "gate failed: m/a: " in output
    assert "max_size_ratio" in output
    assert (light.root / "dist/quantbuild.lock.json").is_file()
    assert task == "check" or (light.root / "build/report/index.html").is_file()
    failures = ET.parse(light.root / "build/report/junit.xml").iter("failure")
    messages = [failure.get("message", "") for failure in failures]
    assert messages
    for message in messages:
        assert "max_size_ratio" in message
        assert "0.01" in message
    again = light.doit(task, code=1)
    assert last_line(again).startswith("quantbuild: 0 executed")
    lock = json.loads((light.root / "dist/quantbuild.lock.json").read_bytes())
    assert {artifact["verdict"] for artifact in lock["artifacts"].values()} == {"fail"}


def test_two_builds_give_the_same_bytes_with_another_number_of_processors(tmp_path: Path) -> None:
    one, two = write_light(tmp_path / "one"), write_light(tmp_path / "elsewhere" / "two")
    one.doit("report")
    command = ["taskset", "-c", "0", *two.command("doit", "report")]
    subprocess.run(command, cwd=two.root, env=two.environment, check=True, capture_output=True)
    assert one.files("dist") == two.files("dist")
    assert str(tmp_path).encode() not in b"".join(one.files("dist").values())


def test_quantize_alone_keeps_the_verdicts_of_an_earlier_check(built: Workspace) -> None:
    before = (built.root / "dist/quantbuild.lock.json").read_bytes()
    assert last_line(built.doit("quantize")).startswith("quantbuild: 0 executed, 0 restored")
    assert (built.root / "dist/quantbuild.lock.json").read_bytes() == before


@pytest.mark.parametrize("task", [None, "evaluate:m/a"])
def test_a_verdict_on_other_samples_is_no_verdict_in_the_lock(light: Workspace, task: str | None) -> None:
    light.manifest.write_text(light.manifest.read_text() + "[model.m.gate]\nmin_agreement = 0.1\n")
    light.doit("check")
    assert verdicts(light) == {"m/a": "pass", "m/b": "pass"}
    model = (light.root / "m.tflite").read_bytes()
    write_light(light.root, light.manifest.read_text(), seed=5)
    (light.root / "m.tflite").write_bytes(model)
    if task is not None:
        light.doit(task)
    light.doit("quantize")
    assert verdicts(light) == {"m/a": None, "m/b": None}
    light.doit("check")
    assert verdicts(light) == {"m/a": "pass", "m/b": "pass"}


def verdicts(workspace: Workspace) -> dict[str, str | None]:
    lock = json.loads((workspace.root / "dist/quantbuild.lock.json").read_bytes())
    return {name: artifact["verdict"] for name, artifact in lock["artifacts"].items()}


def test_a_removed_variant_leaves_dist(built: Workspace) -> None:
    built.edit('[model.m.variant.b]\nscheme = "dynamic"\n', "")
    built.doit("quantize")
    assert not (built.root / "dist/m/b.tflite").exists()
    assert (built.root / "dist/m/a.tflite").is_file()


def test_plan_explain_and_schema(built: Workspace) -> None:
    plan = json.loads(built.quantbuild("plan", "--json"))
    assert plan["schema"] == 1
    assert all(set(step) == {"id", "action", "inputs", "outputs", "key"} for step in plan["steps"])
    assert all(step["key"] for step in plan["steps"])
    assert built.quantbuild("explain", "quantize:m/a").strip() == "quantize:m/a: up to date"
    assert built.quantbuild("explain", "report").strip() == "report: up to date"
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    explained = built.quantbuild("explain", "quantize:m/b")
    assert "option changed: scheme: dynamic → float16" in explained
    assert "unknown until quantize:m/b is built" in built.quantbuild("explain", "evaluate:m/b")
    assert 'did you mean "quantize:m/a"?' in built.quantbuild("explain", "quantise:m/a", code=2)
    assert json.loads(built.quantbuild("schema"))["type"] == "object"


def test_a_key_is_null_until_its_inputs_exist(light: Workspace) -> None:
    keys = {step["id"]: step["key"] for step in json.loads(light.quantbuild("plan", "--json"))["steps"]}
    assert keys["convert:m"] is not None
    assert keys["quantize:m/a"] is None


def test_a_null_build_imports_nothing_heavy(built: Workspace, tmp_path: Path) -> None:
    built.doit()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(
        "import atexit, os, sys\n"
        "atexit.register(lambda: open(os.environ['SEEN'], 'a').write('\\n'.join(sys.modules) + '\\n'))\n"
    )
    built.environment |= {"PYTHONPATH": str(tmp_path / "hook"), "SEEN": str(tmp_path / "seen")}
    output = built.doit()
    assert last_line(output).startswith("quantbuild: 0 executed, 0 restored")
    seen = set((tmp_path / "seen").read_text().split())
    assert "quantbuild.shell" in seen
    heavy = ("tensorflow", "keras", "numpy", "jinja2", "rich", "urllib3", "ai_edge_litert", "litert_quantizer")
    assert not seen & {*heavy, "quantbuild.manifest", "quantbuild.build", "tomli"}


def test_the_wheel_holds_templates_and_starter(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(tmp_path),
    ]
    subprocess.run([*command, str(root)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("quantbuild-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "quantbuild/templates/report.html.j2" in names
    assert any(name.startswith("quantbuild/templates/vendor/") for name in names)
    assert "quantbuild/starter/digits/model.keras" in names
    assert "quantbuild/starter/workspace.toml" in names


def test_after_touching_everything_one_build_looks_and_the_next_ones_cost_what_the_first_did(light: Workspace) -> None:
    light.doit()
    light.doit()
    state = [light.root / "build/.state" / name for name in ("standing.msgpack", "digests.msgpack")]
    for path in [path for path in light.root.rglob("*") if path.is_file() and ".state" not in path.parts]:
        path.touch()
    light.doit()
    assert light.steps("executed") == set()
    after_the_look = [path.stat().st_mtime_ns for path in state]
    light.doit()
    assert [path.stat().st_mtime_ns for path in state] == after_the_look
    snapshot = msgspec.msgpack.decode(state[0].read_bytes(), type=Snapshot)
    kept = [*snapshot.files, *snapshot.manifests]
    moved = [file.path for file in kept if file.stamp != stamp_of(light.root / file.path)]
    assert moved == []


def stamp_of(path: Path) -> Stamp:
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def test_an_undecided_limit_is_told_each_time_and_fails_nothing(light: Workspace) -> None:
    light.manifest.write_text(light.manifest.read_text() + "[model.m.gate]\nmax_accuracy_loss = 0.001\n")
    for executed in (True, False):
        output = light.doit("check")
        assert last_line(output).startswith("quantbuild: 0 executed") is not executed
        assert "gate undecided: m/a: max_accuracy_loss: loss " in output
        assert "gate failed" not in output
        told = [(gate["variant"], gate["gate"]) for gate in light.last_run()["undecided_gates"]]
        assert told == [("a", "max_accuracy_loss"), ("b", "max_accuracy_loss")]
