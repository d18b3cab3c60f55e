"""A build that is killed at one chosen write, and files that change under a running one: single cases, each its rule.

`test_random_kills.py` looks for those that nobody has thought of.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import kill_points
import pytest
from workspace import MANIFEST, Workspace, started, worker_hook, write_light

THIRD = '[model.m.variant.c]\nscheme = "dynamic"\n'


@pytest.fixture
def published(tmp_path: Path) -> Workspace:
    """A workspace with two variants in dist/, whose builds can be told to strike at some write."""
    workspace = write_light(tmp_path / "light", MANIFEST)
    workspace.environment["PYTHONPATH"] = kill_points.written(tmp_path / "hook")
    workspace.doit("quantize")
    return workspace


def strike_at(workspace: Workspace, folder: str, number: int, how: str, *arguments: str, code: int) -> str:
    workspace.environment[kill_points.VARIABLE] = f"{workspace.root / folder},{number},{how}"
    try:
        return workspace.doit(*arguments, code=code)
    finally:
        del workspace.environment[kill_points.VARIABLE]


# Writing the artifact, before its contract, and before the lock names it.
@pytest.mark.parametrize(("number", "how"), [(2, "torn"), (5, "before"), (7, "torn")])
@pytest.mark.parametrize("task", ["quantize", "quantize:m/c"])
def test_a_variant_that_was_published_by_half_leaves_dist_when_the_manifest_does_not_name_it(
    published: Workspace, number: int, how: str, task: str
) -> None:
    before = published.files("dist")
    manifest = published.manifest.read_text()
    published.manifest.write_text(manifest + THIRD)
    strike_at(published, "dist", number, how, task, code=-signal.SIGKILL)
    assert published.files("dist") != before
    published.manifest.write_text(manifest)
    published.doit("quantize")
    assert published.files("dist") == before


def test_files_of_the_users_in_dist_are_left_alone(published: Workspace) -> None:
    mine = published.root / "dist" / "notes.1.tmp"
    mine.write_text("mine")
    published.edit("[model.m.variant.b]", "[model.m.variant.c]")
    strike_at(published, "dist", 2, "before", "quantize", code=-signal.SIGKILL)
    published.doit("quantize")
    names = {"m/a.tflite", "m/a.json", "m/c.tflite", "m/c.json", "m/model.tflite"}
    assert set(published.files("dist")) == {*names, "notes.1.tmp", "quantbuild.lock.json", "quantbuild.d"}


def test_a_lock_that_was_lost_does_not_keep_a_removed_variant_in_dist(published: Workspace) -> None:
    (published.root / "dist/quantbuild.lock.json").unlink()
    published.edit('[model.m.variant.b]\nscheme = "dynamic"\n', "")
    published.doit("quantize")
    assert not (published.root / "dist/m/b.tflite").exists()


@pytest.mark.parametrize("damage", ["", "[]", '{"paths": 3, "complete": true}', '{"paths": ["dist/../m.tflite"]}'])
def test_a_damaged_note_of_what_is_published_decides_nothing(published: Workspace, damage: str) -> None:
    before = published.files("dist")
    (published.root / "build/.state/published.json").write_text(damage)
    published.doit("-a", "quantize")
    assert published.files("dist") == before
    assert (published.root / "m.tflite").exists()


def test_what_a_killed_build_was_writing_is_gone_after_the_next(published: Workspace) -> None:
    published.edit('scheme = "dynamic"', 'scheme = "float16"')
    for number in (2, 8, 12):
        strike_at(published, "build", number, "torn", "quantize", code=-signal.SIGKILL)
    published.doit("quantize")
    assert [name for name in published.files("build") if name.endswith(".tmp") or name.startswith(".scratch/")] == []


def test_an_artifact_altered_while_it_is_published_is_not_taken_for_the_right_one(published: Workspace) -> None:
    before = published.files("dist")
    artifact = published.root / "build/m/a/model.tflite"
    (published.root / "dist/m/a.tflite").unlink()
    output = strike_at(published, "dist", 1, str(artifact), "dist", code=1)
    assert "dist  failed: its input build/m/a/model.tflite was edited during the build; run it again" in output
    published.doit("quantize")
    assert published.files("dist") == before


# The first build's worker is in a call that lets none of its threads notice that its parent is gone.
OUTLIVES = """
import ctypes, pathlib, time
import quantbuild.actions.evaluate as evaluate
done = evaluate.run
def run(job):
    values, root = done(job), pathlib.Path(job.root)
    if not (root / "started").exists():
        output = job.outputs["evaluation"]
        ctypes.PyDLL(None).system(f"cd {root}; touch started; sleep 2; cp m.tflite {output}; touch late".encode())
    while not (root / "late").exists():
        time.sleep(0.02)
    return values
evaluate.run = run
"""


def test_a_worker_that_outlives_its_killed_build_writes_into_no_other(tmp_path: Path) -> None:
    workspace = write_light(tmp_path / "light", MANIFEST)
    workspace.environment["PYTHONPATH"] = worker_hook(tmp_path / "hook", OUTLIVES)
    process = started(workspace, "-n", "1", "evaluate:m/float32")
    process.kill()
    process.communicate()
    assert not (workspace.root / "late").exists()
    workspace.doit("evaluate:m/float32")
    assert workspace.steps("executed") == {"evaluate:m/float32"}
    json.loads((workspace.root / "build/m/float32/evaluation.json").read_bytes())
