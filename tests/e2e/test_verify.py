"""`quantbuild verify`: reproducible steps pass, others are caught and named, and the workspace is not touched."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from workspace import Workspace, write_workspace

from quantbuild.digests import sha256_of_bytes

ARTIFACTS = {"m/float32", "m/a", "m/b"}

RANDOM_LOADER = """
import numpy
def samples():
    for label in range(8):
        yield numpy.random.default_rng().standard_normal((1, 512)).astype("float32"), label % 3
"""

# Another model at each call: verify has it called twice.
COUNTING_SOURCE = """
import os
def build():
    with open(os.environ["COUNTER"], "a") as file:
        file.write("x")
    return f"{os.path.getsize(os.environ['COUNTER']) % 2}.tflite"
"""


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    yield


def kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "temporary").iterdir())


def verdict(workspace: Workspace, *selection: str, code: int = 0) -> dict[str, Any]:
    printed = workspace.quantbuild("verify", "--json", *selection, code=code)
    found: dict[str, Any] = json.loads(printed[: printed.rindex("\n}") + 2])
    return found


def stamps(*folders: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for folder in folders
        for path in [folder, *folder.rglob("*")]
        if "__pycache__" not in path.parts
    }


def test_a_sound_build_is_reproducible_and_nothing_is_touched(built: Workspace, tmp_path: Path) -> None:
    cache = tmp_path / "built-cache"
    cache.mkdir()
    before = stamps(built.root, cache)
    found = verdict(built)
    assert stamps(built.root, cache) == before
    assert kept(tmp_path) == []
    assert {artifact["name"] for artifact in found["artifacts"]} == ARTIFACTS
    for artifact in found["artifacts"]:
        assert (artifact["status"], artifact["standing"]) == ("reproducible", "equal")
    a = next(artifact for artifact in found["artifacts"] if artifact["name"] == "m/a")
    assert a["sha256"] == sha256_of_bytes((built.root / "dist/m/a.tflite").read_bytes())
    assert {step["id"].partition(":")[0] for step in found["steps"]} == {"convert", "quantize", "evaluate"}
    assert found["kept"] is None


def test_a_workspace_in_which_nothing_was_built_stays_so(light: Workspace) -> None:
    output = light.quantbuild("verify", "m/a")
    assert re.search(r"^m/a  reproducible  sha256 [0-9a-f]{64}  none in build/ is up to date$", output, re.MULTILINE)
    assert "quantbuild verify: 1 reproducible, 0 not reproducible, 0 failed" in output
    assert "m/b" not in output
    assert sorted(path.name for path in light.root.iterdir()) == ["data.npz", "dodo.py", "m.tflite", "manifests"]


def test_a_loader_that_draws_at_random_is_caught_and_named(light: Workspace, tmp_path: Path) -> None:
    (light.root / "my_data.py").write_text(RANDOM_LOADER)
    light.edit(
        'loader = "npz"\npath = "data.npz"\ninput = "x"\nlabel = "y"', 'loader = "python"\npath = "my_data:samples"'
    )
    found = verdict(light, code=1)
    assert {artifact["name"]: artifact["step"] for artifact in found["artifacts"]} == dict.fromkeys(
        ARTIFACTS, "evaluate:m/float32"
    )
    status = {step["id"]: step["status"] for step in found["steps"]}
    assert [step for step, word in status.items() if word == "reproducible"] == [
        *("convert:m", "quantize:m/a", "quantize:m/b")
    ]
    (folder,) = kept(tmp_path)
    assert found["kept"] == str(folder)
    assert (folder / "first/build/m/float32/samples.npz").is_file()
    output = light.quantbuild("verify", "m/float32", code=1)
    assert "m/float32  not reproducible: evaluate:m/float32" in output
    assert "evaluate:m/float32: two builds on equal inputs differ" in output
    assert "build/m/float32/samples.npz" in output
    assert "the first that differs is at offset" in output


def test_a_source_that_gives_another_model_each_time_is_caught_and_what_follows_is_judged_by_itself(
    light: Workspace, tmp_path: Path
) -> None:
    model = (light.root / "m.tflite").read_bytes()
    at = len(model) // 2  # among the weights, which are nearly all of it
    (light.root / "0.tflite").write_bytes(model)
    (light.root / "1.tflite").write_bytes(model[:at] + bytes([model[at] ^ 1]) + model[at + 1 :])
    (light.root / "my_model.py").write_text(COUNTING_SOURCE)
    light.edit(
        'source = "tflite"\npath = "m.tflite"',
        'source = "python"\npath = "my_model:build"\ninputs = ["0.tflite", "1.tflite"]',
    )
    light.environment["COUNTER"] = str(tmp_path / "counter")
    output = light.quantbuild("verify", "m/a", code=1)
    assert "m/a  not reproducible: convert:m" in output
    assert 'tensor "weights": 1 of 1536 values differ' in output
    steps = {step["id"]: step["status"] for step in verdict(light, "m/a", code=1)["steps"]}
    assert steps["convert:m"] == "differs"
    assert {status for step, status in steps.items() if step != "convert:m"} == {"reproducible"}


def test_a_step_that_fails_is_told_with_its_message_and_log_and_blocks_what_needs_it(light: Workspace) -> None:
    (light.root / "m.tflite").write_bytes(b"no model")
    output = light.quantbuild("verify", code=1)
    assert output.count("convert:m: failed: m.tflite: ") == 1
    assert "0 reproducible, 0 not reproducible, 3 failed" in output
    found = verdict(light, code=1)
    blocked = {step["id"] for step in found["steps"] if step["blocked"]}
    assert blocked == {step["id"] for step in found["steps"]} - {"convert:m"}


def test_what_stands_in_build_and_is_not_what_a_build_makes_is_caught(built: Workspace) -> None:
    # As from a cache that somebody else wrote: file and record agree with each other.
    artifact = built.root / "build/m/b/model.tflite"
    record = built.root / "build/m/b/model.tflite.record.json"
    other = artifact.read_bytes() + b"\0\0\0\0"
    content = json.loads(record.read_bytes())
    content["result"]["outputs"]["model"] |= {"sha256": sha256_of_bytes(other), "size_bytes": len(other)}
    artifact.write_bytes(other)
    record.write_text(json.dumps(content))
    output = built.quantbuild("verify", code=1)
    assert "m/b        not reproducible: quantize:m/b" in output
    assert "quantize:m/b: build/ holds another than was made now from the same inputs" in output
    assert "every part is equal: only the layout of the file differs" in output
    assert "2 reproducible, 1 not reproducible, 0 failed" in output
    assert artifact.read_bytes() == other


def workers_in(root: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (process / "cwd").readlink() == root:
                found.append((process / "cmdline").read_text())
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_neither_files_nor_processes(light: Workspace, tmp_path: Path, number: int) -> None:
    (light.root / "my_data.py").write_text("import time\ndef samples():\n    time.sleep(600)\n    yield\n")
    light.edit(
        'loader = "npz"\npath = "data.npz"\ninput = "x"\nlabel = "y"',
        'loader = "python"\npath = "my_data:samples"',
    )
    command = light.command("quantbuild.cli", "verify")
    process = subprocess.Popen(command, cwd=light.root, env=light.environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    seen = [process.stderr.readline() for _ in range(3)]  # convert and both variants: only evaluations are left
    assert all("first build: " in line for line in seen), seen
    process.send_signal(number)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert printed == "quantbuild verify: interrupted; nothing is kept\n"
    assert kept(tmp_path) == []
    assert workers_in(light.root) == []


def test_a_selection_that_there_is_not_is_a_usage_error(light: Workspace) -> None:
    assert 'm/c: no such model or variant; did you mean "m/b"?' in light.quantbuild("verify", "m/c", code=2)
    assert "zzz: no such model or variant; there are m" in light.quantbuild("verify", "zzz", code=2)
    light.edit('scheme = "float16"', 'scheme = "flaot16"')
    assert "flaot16" in light.quantbuild("verify", code=2)


MAKE = """
import keras, numpy as np
keras.utils.set_random_seed(0)
L = keras.layers
image = keras.Input((8, 8, 1), name="image")
h = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(8, 3)(image)))
keras.Model(image, L.Dense(3, activation="softmax")(L.GlobalAveragePooling2D()(h))).save("model.keras")
rng = np.random.default_rng(0)
np.savez("data.npz", x=rng.standard_normal((30, 8, 8, 1)).astype("f"), y=rng.integers(0, 3, 30))
"""

WILD = """
import keras
def build():
    return keras.Sequential([keras.Input((8, 8, 1), name="image"), keras.layers.Flatten(), keras.layers.Dense(3)])
"""

KERAS_MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[model.tame]
source = "keras"
path = "model.keras"
calibration = "data"
lint_ignore = ["noise"]
evaluation = "data"
metric = "top1"
variant.int8.scheme = "int8"
variant.reference = { scheme = "int8", engine = "tflite" }
[model.wild]
source = "python"
path = "my_models:build"
calibration = "data"
lint_ignore = ["noise"]
variant.int8.scheme = "int8"
"""


def test_tensorflow_models_are_reproducible_unless_their_code_is_not(
    make_models: Callable[[str], Path], tmp_path: Path
) -> None:
    root = shutil.copytree(make_models(MAKE), tmp_path / "keras")
    (root / "my_models.py").write_text(WILD)
    found = verdict(write_workspace(root, KERAS_MANIFEST), code=1)
    assert {artifact["name"]: artifact["status"] for artifact in found["artifacts"]} == {
        **dict.fromkeys(("tame/float32", "tame/int8", "tame/reference"), "reproducible"),
        **dict.fromkeys(("wild/float32", "wild/int8"), "differs"),
    }
    steps = {step["id"]: step for step in found["steps"]}
    assert [step for step in steps if steps[step]["status"] == "differs"] == ["convert:wild"]
    (model,) = (each for each in steps["convert:wild"]["differences"] if each["path"].endswith(".tflite"))
    assert any("192 of 192 values differ" in part for part in model["parts"])
