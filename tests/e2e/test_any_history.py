"""Whatever was done to a workspace before, a build ends as one from nothing would: random histories, fixed seeds."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from workspace import DEVICE, MANIFEST, Workspace, write_light

TASKS = [
    *("convert:m", "quantize:m/a", "quantize:m/b", "quantize", "check", "evaluate:m/b", "dist", "report"),
    *("evaluate:m/float32", "benchmark:m/a@host"),
]
UPKEEP = [["clean", "quantize:m/a"], ["clean", "-a"], ["forget"], ["forget", "-a"], ["forget", "quantize:m/b"]]
GATES = ["", "[model.m.gate]\nmax_size_ratio = 0.3\n", "[model.m.gate]\nmin_agreement = 0.1\n"]
STEPS_OF_A_HISTORY = 8


def write(root: Path, state: dict[str, Any]) -> None:
    """Write the manifest, the model and the data of a state; the model of seed 99 is none."""
    text = MANIFEST.replace('ship = "a"', f'ship = "{state["ship"]}"').replace('"dynamic"', f'"{state["scheme"]}"')
    write_light(root, text + state["gate"] + DEVICE, seed=state["data"])
    data = (root / "data.npz").read_bytes()
    write_light(root, text + state["gate"] + DEVICE, seed=state["model"])
    (root / "data.npz").write_bytes(data)
    if state["model"] == 99:
        (root / "m.tflite").write_bytes(b"no model")


def changed(state: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    choices = {
        "model": [0, 1, 99],
        "data": [0, 1],
        "scheme": ["float16", "dynamic"],
        "gate": GATES,
        "ship": ["a", "b"],
    }
    what = chance.choice(sorted(choices))
    return {**state, what: chance.choice(choices[what])}


def damage(root: Path, chance: random.Random) -> None:
    """Delete, or alter the end of, up to three files that builds have left, records and state among them."""
    left = sorted(path for folder in ("build", "dist") for path in (root / folder).rglob("*") if path.is_file())
    for path in chance.sample(left, min(len(left), 3)):
        if chance.random() < 0.5:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-3] + b"xyz")


def told(root: Path) -> list[Any]:
    """What the report says, times left out."""
    report = json.loads((root / "build/report/report.json").read_bytes())
    keys = ("name", "artifact", "accuracy", "gates", "error")
    return [[variant[key] for key in keys] for model in report["models"] for variant in model["variants"]]


@pytest.mark.parametrize("seed", range(4))
def test_any_history_ends_as_a_build_from_nothing(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    state: dict[str, Any] = {"model": 0, "data": 0, "scheme": "dynamic", "gate": "", "ship": "a"}
    workspace = Workspace(tmp_path / "worn")
    write(workspace.root, state)
    for _ in range(STEPS_OF_A_HISTORY):
        what = chance.choice(["change", "change", "task", "task", "task", "damage", "upkeep"])
        if what == "change":
            state = changed(state, chance)
            write(workspace.root, state)
        elif what == "task":
            workspace.doit(*chance.choice([[], [], ["-a"], ["-n", "1"]]), chance.choice(TASKS), code=None)
        elif what == "damage":
            damage(workspace.root, chance)
        else:
            workspace.doit(*chance.choice(UPKEEP), code=None)
    if state["model"] == 99 and seed % 2:
        state = {**state, "model": 1}
        write(workspace.root, state)
    fresh = Workspace(tmp_path / "fresh")
    write(fresh.root, state)
    fresh.doit("report", code=None)
    code = 1 if fresh.last_run()["failed"] or fresh.last_run()["failed_gates"] else 0
    workspace.doit("report", code=code)
    assert workspace.files("dist") == fresh.files("dist")
    assert told(workspace.root) == told(fresh.root)
