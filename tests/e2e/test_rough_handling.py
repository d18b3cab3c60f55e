"""How people treat a build besides `doit report`: other options, closed pipes, plain terminals, damaged files."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace

SECOND = """
[model.n]
source = "tflite"
path = "m.tflite"
ship = "a"
[model.n.variant.a]
scheme = "dynamic"
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_build_that_waits_for_another_can_be_interrupted(light: Workspace, number: signal.Signals) -> None:
    state = light.root / "build/.state"
    state.mkdir(parents=True)
    with (state / "lock").open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = light.start("quantize")
        assert waiting.stdout is not None
        assert "waiting for it" in waiting.stdout.readline()
        waiting.send_signal(number)
        output, _ = waiting.communicate(timeout=30)
    assert waiting.returncode == 128 + number
    assert output.strip() == f"quantbuild: interrupted by {number.name}; finished steps are kept"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quantise"], 'doit: quantise: no such task; did you mean "quantize"?'),
        (["run", "evaluate:m/A"], 'doit: evaluate:m/A: no such task; did you mean "evaluate:m/a"?'),
        (["report", "benchmark:m/a@hots"], 'did you mean "benchmark:m/a@host"?'),
        (["lisst"], 'doit: lisst: no such task; did you mean "list"?'),
        (["xyzzy"], "doit: xyzzy: no such task; `doit list --all` shows them all"),
        *(([command, "quantise"], 'did you mean "quantize"?') for command in ("list", "info", "clean", "forget")),
        (["ignore", "quantize:m/aa"], 'did you mean "quantize:m/a"?'),
    ],
)
def test_a_misspelt_task_is_told_with_the_one_that_was_meant(built: Workspace, arguments: list[str], said: str) -> None:
    output = built.doit(*arguments, code=2)
    assert said in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-r", "json", "report"], "-r: "),
        (["-P", "process", "-n", "2", "report"], "-P process: "),
        (["-s", "report"], "-s: "),
        (["-s", "quantize"], "-s: "),
    ],
)
def test_options_that_would_lose_outcomes_are_refused(built: Workspace, arguments: list[str], said: str) -> None:
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    before = built.files("dist")
    output = built.doit(*arguments, code=2)
    assert output.startswith(f"doit: {said}")
    assert output.count("\n") == 1
    assert built.files("dist") == before


def test_always_execute_executes_every_step_of_every_model_once(light: Workspace) -> None:
    light.manifest.write_text(light.manifest.read_text() + SECOND)
    light.doit("quantize")
    everything = {"convert:m", "convert:n", "quantize:m/a", "quantize:m/b", "quantize:n/a", "dist"}
    for cleaned in (False, True):
        if cleaned:
            light.doit("clean", "-a")
        light.doit("-a", "quantize")
        assert light.steps("executed") == everything


def test_forget_without_a_task_forgets_the_default_one(built: Workspace) -> None:
    built.doit("forget")
    built.doit()
    assert built.steps("executed") == {"report"}


def test_forget_all_makes_everything_run_again(light: Workspace) -> None:
    light.doit("quantize")
    light.doit("forget", "-a")
    light.doit("quantize")
    assert light.steps("executed") == {"convert:m", "quantize:m/a", "quantize:m/b", "dist"}


def test_clean_all_leaves_no_result(built: Workspace) -> None:
    built.doit("clean", "-a", "-n")
    assert (built.root / "dist/m/model.tflite").is_file()
    built.doit("clean", "-a")
    assert built.files("dist") == {}
    left = {name for name in built.files("build") if not name.startswith((".state/", ".logs/"))}
    assert left == {"last_run.json"}


def test_clean_speaks_of_tasks_and_files_alone(built: Workspace) -> None:
    lines = built.doit("clean", "quantize:m/a").splitlines()
    assert lines[0] == "quantize:m/a - executing 'remove what it made'"
    assert "removed dist/m/a.tflite" in lines
    assert not [line for line in lines if "object" in line or "Python" in line]


def test_clean_of_what_ships_takes_the_shipped_copy_too(built: Workspace) -> None:
    built.doit("clean", "quantize:m/a")
    assert set(built.files("dist")) == {"m/b.tflite", "m/b.json", "quantbuild.lock.json", "quantbuild.d"}
    built.doit("quantize")
    assert (built.root / "dist/m/model.tflite").read_bytes() == (built.root / "dist/m/a.tflite").read_bytes()


def test_one_variant_alone_copies_nothing_that_is_gone_or_altered(built: Workspace) -> None:
    shipped = (built.root / "dist/m/model.tflite").read_bytes()
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    (built.root / "dist/m/a.tflite").unlink()
    built.doit("quantize:m/b")
    (built.root / "dist/m/a.tflite").write_bytes(b"altered")
    built.doit("-a", "quantize:m/b")
    assert (built.root / "dist/m/model.tflite").read_bytes() == shipped
    built.doit("quantize")
    assert (built.root / "dist/m/a.tflite").read_bytes() == shipped


@pytest.fixture
def labelled(built: Workspace) -> Workspace:
    (built.root / "labels.txt").write_text("cat\ndog\nowl\n")
    built.edit('path = "m.tflite"', 'path = "m.tflite"\nlabels = "labels.txt"')
    built.doit("quantize")
    return built


def contract(workspace: Workspace, variant: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.root / f"dist/m/{variant}.json").read_bytes())
    return found


def test_an_app_finds_the_labels_beside_the_artifact(labelled: Workspace) -> None:
    found = contract(labelled, "a")
    content = (labelled.root / "dist/m" / found["labels"]).read_bytes()
    assert content == b"cat\ndog\nowl\n"
    assert found["labels_sha256"] == hashlib.sha256(content).hexdigest()
    lock = json.loads((labelled.root / "dist/quantbuild.lock.json").read_bytes())
    assert lock["labels"] == {"m": found["labels_sha256"]}
    (labelled.root / "dist/m/labels.txt").unlink()
    labelled.doit("quantize")
    assert (labelled.root / "dist/m/labels.txt").read_bytes() == content


def test_one_variant_alone_leaves_no_other_with_labels_that_are_gone(labelled: Workspace) -> None:
    (labelled.root / "labels.txt").write_text("dog\ncat\nowl\n")
    labelled.doit("quantize:m/a")
    found = [contract(labelled, name)["labels_sha256"] for name in "ab"]
    assert found == [hashlib.sha256(b"dog\ncat\nowl\n").hexdigest()] * 2
    alone = labelled.files("dist")
    labelled.doit("quantize")
    assert labelled.files("dist") == alone


def test_labels_that_the_manifest_no_longer_names_leave_dist(labelled: Workspace) -> None:
    labelled.edit('labels = "labels.txt"\n', "")
    labelled.doit("quantize")
    assert not (labelled.root / "dist/m/labels.txt").exists()
    assert contract(labelled, "a")["labels"] is None
    assert contract(labelled, "a")["labels_sha256"] is None


def test_a_labels_file_of_the_users_in_dist_is_left_alone(built: Workspace) -> None:
    mine = built.root / "dist/m/labels.txt"
    mine.write_text("mine")
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    built.doit("quantize:m/b")
    built.doit("quantize")
    assert mine.read_text() == "mine"


def test_a_sub_task_by_itself_leaves_the_lock_as_it_was(built: Workspace) -> None:
    before = built.files("dist")
    built.doit("-a", "-s", "quantize:m/a")
    assert built.steps("executed") == {"quantize:m/a"}
    assert built.files("dist") == before
    shutil.rmtree(built.root / "dist")
    built.doit("-a", "-s", "quantize:m/a")
    whole = json.loads(before["quantbuild.lock.json"])
    lock = json.loads(built.files("dist")["quantbuild.lock.json"])
    assert lock["artifacts"] == {"m/a": whole["artifacts"]["m/a"]}
    assert lock["artifacts"]["m/a"]["inputs"].keys() == {"m.tflite"}
    assert lock["tools"].keys() <= whole["tools"].keys()


@pytest.mark.parametrize("left", ["forgotten", "another"])
def test_a_sub_task_by_itself_publishes_nothing_of_unknown_making(built: Workspace, left: str) -> None:
    """Told not to look at convert, nobody knows what the float32 model was made from."""
    before = built.files("dist")
    record = built.root / "build/m/float32.tflite.record.json"
    if left == "forgotten":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes().replace(b'"sha256": "', b'"sha256": "0'))
    output = built.doit("-a", "-s", "quantize:m/a", code=1)
    assert "dist  failed: m/a: what convert:m made it from is not known; leave out -s" in output
    assert built.files("dist") == before


@pytest.mark.parametrize("lock", [b"", b"\x80\xff no text", b"[]", b'{"schema": 7}'])
def test_a_damaged_lock_is_written_anew(built: Workspace, lock: bytes) -> None:
    good = (built.root / "dist/quantbuild.lock.json").read_bytes()
    (built.root / "dist/quantbuild.lock.json").write_bytes(lock)
    built.doit("-a", "quantize:m/a")
    built.doit("quantize")
    assert json.loads((built.root / "dist/quantbuild.lock.json").read_bytes())["artifacts"].keys() == (
        json.loads(good)["artifacts"].keys()
    )


@pytest.mark.parametrize("content", [b"SQLite format 3\x00" + b"\x01garbage" * 600, b"SQLite format 3\x00", b"dbm"])
def test_a_damaged_database_is_replaced(built: Workspace, content: bytes) -> None:
    (built.root / "build/.state/doit.db").write_bytes(content)
    built.doit()
    assert built.last_run()["executed"] == 0


@pytest.mark.parametrize("command", [["plan"], ["plan", "--json"], ["explain", "report"]])
def test_a_file_where_the_build_folder_should_be_is_a_usage_error(light: Workspace, command: list[str]) -> None:
    (light.root / "build").write_text("")
    assert light.quantbuild(*command, code=2) == (
        "build/.state: Not a directory; quantbuild keeps its state under build/\n"
    )


def test_a_file_where_dist_should_be_fails_the_publishing_alone(light: Workspace) -> None:
    (light.root / "dist").write_text("")
    output = light.doit("report", code=1)
    assert "dist  failed: Not a directory: " in output
    assert (light.root / "build/report/index.html").is_file()
    (light.root / "dist").unlink()
    light.doit("report")
    assert (light.root / "dist/m/a.tflite").is_file()


def test_a_terminal_that_knows_no_arrow_ends_nothing(built: Workspace) -> None:
    built.environment |= {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    assert r"dynamic \u2192 float16" in built.quantbuild("explain", "quantize:m/b")
    assert r"dynamic \u2192 float16" in built.doit("quantize")


def test_a_reader_that_has_had_enough_does_not_stop_the_build(light: Workspace) -> None:
    process = light.start("report", stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=120) == 0
    assert light.last_run()["executed"] == 12


def test_models_and_variants_with_dots_do_not_meet(light: Workspace) -> None:
    parts = [
        f'[model."{model}"]\nsource = "tflite"\npath = "m.tflite"\n[model."{model}".variant]\n'
        + f'"{variant}" = {{ scheme = "{scheme}" }}\n'
        for model, variant, scheme in (("x.y", "z", "float16"), ("x", "y.z", "dynamic"))
    ]
    light.manifest.write_text(light.manifest.read_text() + "".join(parts))
    light.doit("-n", "4", "quantize")
    dist = light.files("dist")
    assert dist["x.y/z.tflite"] == dist["m/a.tflite"]
    assert dist["x/y.z.tflite"] == dist["m/b.tflite"]


def test_a_cache_that_cannot_be_written_is_a_warning(light: Workspace) -> None:
    (light.root / "file").write_text("")
    light.environment["QUANTBUILD_CACHE_DIR"] = str(light.root / "file")
    output = light.doit("quantize")
    assert output.count("this build goes on without keeping results") == 1
    assert light.last_run()["executed"] == 4


def test_a_workspace_without_a_model_has_an_empty_report(light: Workspace) -> None:
    light.manifest.write_text("schema = 1\n")
    light.doit("report")
    assert json.loads((light.root / "build/report/report.json").read_bytes())["models"] == []


def test_help_is_everywhere(light: Workspace) -> None:
    commands = (["plan"], ["explain"], ["schema"], ["init"], ["doctor"], ["cache"], ["cache", "gc"], ["cache", "stat"])
    for command in ([], *commands):
        output = light.quantbuild(*command, "--help")
        assert output.startswith("usage: quantbuild")
        assert "exit codes: 0 done" in output
    assert "usage: quantbuild" in light.quantbuild(code=2)
    assert "invalid choice" in light.quantbuild("quantise", code=2)


OWN_TASKS = """
def task_app():
    return {
        "actions": ["cp dist/m/model.tflite app.tflite"],
        "file_dep": ["dist/m/model.tflite"],
        "task_dep": ["quantize"],
        "targets": ["app.tflite"],
    }


def task_broken():
    return {"actions": ["false"], "task_dep": ["quantize"]}
"""


def test_a_dodo_file_may_have_tasks_of_its_own(light: Workspace) -> None:
    dodo = light.root / "dodo.py"
    dodo.write_text(dodo.read_text() + OWN_TASKS)
    light.doit("app")
    assert (light.root / "app.tflite").read_bytes() == (light.root / "dist/m/a.tflite").read_bytes()
    output = light.doit("broken", code=1)
    assert "broken: Command failed: 'false' returned 1" in output
    assert light.steps("up_to_date") == {"convert:m", "quantize:m/a", "quantize:m/b", "dist"}
    light.doit("forget", "-a")


@pytest.mark.parametrize("command", [["clean"], ["clean", "-a"], ["forget", "-a"], ["report"]])
def test_a_vanished_data_set_is_one_line_whatever_is_asked(built: Workspace, command: list[str]) -> None:
    (built.root / "data.npz").unlink()
    output = built.doit(*command, code=2)
    (line,) = [line for line in output.splitlines() if " - executing " not in line]
    assert line == 'manifests/m.toml:4: dataset.data.path: "data.npz" does not exist; correct the path or create it'


def test_ignore_leaves_a_task_out_until_it_is_forgotten(built: Workspace) -> None:
    built.doit("ignore", "quantize:m/a")
    said = built.doit("report", code=1)
    assert "quantize:m/a: ignored" in said
    built.doit("forget", "quantize:m/a")
    built.doit("quantize")
    assert built.steps("executed") >= {"quantize:m/a"}


def test_a_task_of_the_users_own_is_doits_business(light: Workspace) -> None:
    (light.root / "dodo.py").write_text(
        "from quantbuild.shell import tasks\nglobals().update(tasks())\n\n"
        "def task_mine():\n"
        '    return {"actions": ["cp m.tflite copy"], "file_dep": ["m.tflite"], "targets": ["copy"],\n'
        '            "task_dep": ["quantize:m/a"]}\n'
    )
    light.doit("mine")
    light.doit("mine")
    copy = light.root / "copy"
    made = copy.stat().st_mtime_ns
    light.doit("mine")
    assert copy.stat().st_mtime_ns == made, "its file_dep is as it was, by doit's own database"
    copy.unlink()
    light.doit("mine")
    assert copy.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a file that is always full")
def test_a_build_whose_log_finds_no_room_is_done_all_the_same(light: Workspace) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            light.command("doit", "quantize"),
            cwd=light.root,
            env=light.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert (light.root / "dist/quantbuild.lock.json").is_file()
