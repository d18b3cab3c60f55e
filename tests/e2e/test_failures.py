"""What goes wrong for users: one plain message each, everything else is built, the exit code tells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from workspace import Workspace, processes_in, started, write_workspace

from quantbuild.datasets.samples import hold_back
from quantbuild.plan import HOLD_BACK

SAMPLES = 20
# One sample that the ranges are made of, one that is held back from them.
KEPT, HELD = (part[1] for part in hold_back(range(SAMPLES), None, **HOLD_BACK))

MAKE = """
import keras, numpy as np
keras.utils.set_random_seed(0)
L = keras.layers
image = keras.Input((8, 8, 4), name="x")
good = L.GlobalAveragePooling2D()(L.Conv2D(4, 1, activation="relu")(image))
keras.Model(image, L.Dense(3)(good)).save("good.keras")
h = L.Conv2D(4, 1)(image)
pooled = L.GlobalAveragePooling2D()(keras.ops.divide(h, keras.ops.exp(h)))
keras.Model(image, L.Dense(3)(pooled)).save("div.keras")
clip = keras.Input((10, 4), name="clip")
keras.Model(clip, L.Dense(3)(L.LSTM(8)(clip))).save("lstm.keras")
rng = np.random.default_rng(0)
x = rng.standard_normal((20, 8, 8, 4)).astype("f")
bad = {name: x.copy() for name in ("bad_kept", "bad_held")}
bad["bad_kept"][KEPT, 1, 2, 3] = np.nan
bad["bad_held"][HELD, 1, 2, 3] = np.nan
np.savez("data.npz", x=x, **bad, clip=rng.standard_normal((20, 10, 4)).astype("f"), y=rng.integers(0, 3, 20))
"""

HEAD = """schema = 1
[dataset.x]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[dataset.bad_kept]
loader = "npz"
path = "data.npz"
input = "bad_kept"
[dataset.bad_held]
loader = "npz"
path = "data.npz"
input = "bad_held"
[dataset.clips]
loader = "npz"
path = "data.npz"
input = "clip"
label = "y"
[model.good]
source = "keras"
path = "good.keras"
calibration = "x"
lint_ignore = ["noise"]
evaluation = "x"
metric = "top1"
[model.good.variant]
int8 = { scheme = "int8" }
float16 = { scheme = "float16" }
"""

# How one variant of a second model breaks: the model's keys, the variant, and what the message says.
BREAKS = {
    "killed": (
        'path = "lstm.keras"\ncalibration = "clips"',
        'scheme = "int8", engine = "tflite"',
        "signal 11 (SIGSEGV)",
    ),
    "unrunnable": ('path = "div.keras"\ncalibration = "x"', 'scheme = "int8", engine = "tflite"', "DIV"),
    "nan_kept": (
        'path = "good.keras"\ncalibration = "bad_kept"',
        'scheme = "int8"',
        f"bad_kept (data.npz): sample {KEPT}",
    ),
    "nan_held_back": (
        'path = "good.keras"\ncalibration = "bad_held"',
        'scheme = "int8"',
        f"bad_held (data.npz): sample {HELD}",
    ),
    "nan_for_the_plain_converter": (
        'path = "good.keras"\ncalibration = "bad_kept"',
        'scheme = "int8", engine = "tflite"',
        f"bad_kept (data.npz): sample {KEPT}",
    ),
}


@pytest.fixture(scope="session")
def models(make_models: Callable[[str], Path]) -> Path:
    return make_models(f"KEPT, HELD = {KEPT}, {HELD}\n{MAKE}")


@pytest.fixture(params=BREAKS)
def broken(request: pytest.FixtureRequest, models: Path, tmp_path: Path) -> tuple[Workspace, str]:
    """A workspace of two models in which one variant of the second cannot be made."""
    model, variant, message = BREAKS[request.param]
    keys = f'source = "keras"\n{model}\nlint_ignore = ["noise"]\nship = "broken"\n'
    text = f"{HEAD}[model.second]\n{keys}[model.second.variant]\n"
    variants = f'broken = {{ {variant} }}\nfine = {{ scheme = "float16" }}\n'
    workspace = write_workspace(tmp_path / "broken", text + variants)
    for path in models.glob("*.*"):
        os.link(path, workspace.root / path.name)
    workspace.environment["QUANTBUILD_CACHE_DIR"] = str(models / "cache")  # the sound variants are made once for all
    return workspace, message


def test_one_broken_variant_stops_nothing_else(broken: tuple[Workspace, str]) -> None:
    workspace, message = broken
    stale = [workspace.root / f"dist/second/{name}" for name in ("broken.tflite", "broken.json", "model.tflite")]
    stale[0].parent.mkdir(parents=True)
    again = ["-n", "1", "report"]
    for command in (["report"], again, ["quantize"], ["quantize:second/broken"]):
        for path in stale:
            path.write_bytes(b"from an earlier build")
        output = workspace.doit(*command, code=1)
        lines = [line for line in output.splitlines() if message in line]
        assert len(lines) == 1, output
        assert "failed: " in lines[0]
        assert not [path for path in stale if path.exists()]
        assert command != again or workspace.steps("executed") == set()
    for name in ("good/int8", "good/float16", "second/fine"):
        assert (workspace.root / f"dist/{name}.tflite").is_file()
    page = (workspace.root / "build/report/index.html").read_text()
    assert "broken" in page
    lock = json.loads((workspace.root / "dist/quantbuild.lock.json").read_bytes())
    assert lock["failed"] == ["second/broken"]
    assert set(lock["artifacts"]) == {"good/int8", "good/float16", "second/fine"}
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    errors = {
        f"{model['name']}/{variant['name']}": variant["error"]
        for model in report["models"]
        for variant in model["variants"]
    }
    assert [name for name, error in errors.items() if error] == ["second/broken"]


TEN_MISTAKES = """schema = 1
[dataset.d]
loader = "npzz"
[dataset.e]
loader = "npz"
path = "missing.npz"
input = "x"
sed = 1
[model.report]
source = "tflite"
path = "m.tflite"
[model.m]
source = "kers"
path = 7
calibration = "nothing"
evaluation = "e"
metric = "top2"
[model.m.variant.v]
scheme = "int9"
[model.m.gate]
max_accuracy_loss = -1
"""


@pytest.mark.parametrize("command", ["doit", "quantbuild"])
def test_ten_mistakes_are_ten_lines_with_their_places(light: Workspace, command: str) -> None:
    light.manifest.write_text(TEN_MISTAKES)
    output = light.doit(code=2) if command == "doit" else light.quantbuild("plan", code=2)
    lines = output.strip().splitlines()
    assert len(lines) == 10, output
    places = sorted(int(line.split(":")[1]) for line in lines)
    assert all(line.startswith("manifests/m.toml:") and "; " in line for line in lines), output
    assert set(places) == {3, 6, 8, 9, 13, 14, 15, 17, 19, 21}


def test_a_manifest_that_is_no_toml_is_one_line(light: Workspace) -> None:
    light.manifest.write_text("schema = 1\n[model.m\n")
    assert light.doit(code=2).startswith("manifests/m.toml:2: ")


def test_a_data_set_that_vanishes_is_a_manifest_error(built: Workspace) -> None:
    (built.root / "data.npz").unlink()
    output = built.doit(code=2)
    assert output.strip().splitlines()[-1].startswith("manifests/m.toml:4: ")
    assert "does not exist" in output


@pytest.mark.parametrize(
    "path", [".doit.db", "build/.state/doit.db", "build/.state/digests.msgpack", "build/.state/standing.msgpack"]
)
def test_a_damaged_state_file_decides_nothing(built: Workspace, path: str) -> None:
    (built.root / path).write_bytes(b"\x13\x57 no database at all")
    built.doit()
    assert built.last_run()["executed"] == 0


def test_an_unwritable_build_folder_is_one_line(light: Workspace) -> None:
    (light.root / "build").write_text("a file where the folder should be")
    output = light.doit(code=2)
    assert output.count("\n") == 1
    assert "build" in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_build_ends_its_workers_and_keeps_what_was_done(
    slow: Workspace, number: signal.Signals, code: int
) -> None:
    process = started(slow, "check")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "Traceback" not in output
    assert f"interrupted by {number.name}" in output
    assert "failed" not in output
    time.sleep(0.2)
    workers = subprocess.run(["pgrep", "-f", "quantbuild.worker_main"], capture_output=True, text=True, check=False)
    alive = [pid for pid in workers.stdout.split() if Path(f"/proc/{pid}/cwd").resolve() == slow.root.resolve()]
    assert alive == []
    (slow.root / "go").touch()
    assert "failed before" not in slow.doit("check")
    assert "convert:m" in slow.steps("up_to_date")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("options", [[], ["-n", "1"]])
def test_a_benchmark_that_is_interrupted_leaves_no_process_and_no_harm(
    light: Workspace, number: signal.Signals, options: list[str]
) -> None:
    light.doit("check")
    published = light.files("dist")
    light.edit("seconds = 0.0\nwarmup", "seconds = 20.0\nwarmup")
    process = light.start("-a", *options, "report")
    deadline = time.monotonic() + 60
    while not any("host_process" in command for command in processes_in(light)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert "failed" not in output
    deadline = time.monotonic() + 10
    while processes_in(light):
        assert time.monotonic() < deadline, processes_in(light)
        time.sleep(0.05)
    assert light.files("dist") == published
    assert not list(light.root.glob("build/m/*/benchmark@host.json.record.json"))


def test_an_input_edited_while_its_step_runs_fails_it_loudly(slow: Workspace) -> None:
    process = started(slow, "evaluate:m/float32")
    data = slow.root / "data.npz"
    data.write_bytes(data.read_bytes() + b"\x00")
    (slow.root / "go").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "its input data.npz was edited" in output
    assert not (slow.root / "build/m/float32/evaluation.json").exists()
    slow.doit("evaluate:m/float32")
    assert slow.steps("executed") == {"evaluate:m/float32"}


def test_a_manifest_edited_while_the_build_runs_counts_for_the_next_one(slow: Workspace) -> None:
    process = started(slow, "check")
    slow.edit('scheme = "dynamic"', 'scheme = "float16"')
    (slow.root / "go").touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert "scheme: dynamic → float16" in slow.quantbuild("explain", "quantize:m/b")
    slow.doit("check")
    dist = slow.files("dist")
    assert dist["m/b.tflite"] == dist["m/a.tflite"]


def test_a_second_build_waits_with_a_plain_message_and_does_nothing_twice(slow: Workspace) -> None:
    first = started(slow, "check")
    second = slow.start("check")
    assert second.stdout is not None
    assert f"another build runs in this workspace (pid {first.pid})" in second.stdout.readline()
    (slow.root / "go").touch()
    first.communicate(timeout=120)
    output, _ = second.communicate(timeout=120)
    assert (first.returncode, second.returncode) == (0, 0)
    assert output.strip().splitlines()[-1].startswith("quantbuild: 0 executed")


def test_a_killed_build_leaves_nothing_wrong(slow: Workspace) -> None:
    process = started(slow, "check")
    process.kill()
    process.communicate(timeout=60)
    (slow.root / "go").touch()
    slow.doit("check")
    assert "convert:m" in slow.steps("up_to_date")
    assert not list((slow.root / "build" / ".scratch").glob("*"))


def test_an_artifact_altered_while_a_step_reads_it_fails_that_step_loudly(slow: Workspace) -> None:
    process = started(slow, "-n", "1", "evaluate:m/float32")
    artifact = slow.root / "build/m/float32.tflite"
    good = artifact.read_bytes()
    artifact.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (slow.root / "go").touch()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "its input build/m/float32.tflite was edited" in output
    slow.doit("evaluate:m/float32")
    assert slow.steps("restored") == {"convert:m"}
    assert slow.steps("executed") == {"evaluate:m/float32"}
    assert artifact.read_bytes() == good
