"""`quantbuild explain`: every changed part of a key, down to the file of a folder; what is not known yet; a failure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from workspace import DEVICE, MANIFEST, Workspace, write_light

MY_DATA = """
from pathlib import Path
import numpy
def samples():
    for path in sorted(Path("samples").glob("**/*.npy")):
        yield numpy.load(path), 0
"""

FOLDER = MANIFEST.replace(
    'loader = "npz"\npath = "data.npz"\ninput = "x"\nlabel = "y"',
    'loader = "python"\npath = "my_data:samples"\ninputs = ["samples/**"]',
)


def explained(workspace: Workspace, step: str) -> list[str]:
    lines = workspace.quantbuild("explain", step).splitlines()
    assert all(line.startswith(f"{step}: ") for line in lines), lines
    return [line.removeprefix(f"{step}: ") for line in lines]


def save(root: Path, name: str, seed: int) -> None:
    path = root / "samples" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).standard_normal((1, 512)).astype(np.float32))


@pytest.fixture
def with_folder(tmp_path: Path) -> Workspace:
    workspace = write_light(tmp_path / "folder", FOLDER)
    (workspace.root / "my_data.py").write_text(MY_DATA)
    for number in range(6):
        save(workspace.root, f"{'even' if number % 2 == 0 else 'odd'}/{number}.npy", number)
    return workspace


def test_each_file_of_a_folder_that_changed_is_named(with_folder: Workspace) -> None:
    with_folder.doit("check")
    assert explained(with_folder, "evaluate:m/float32") == ["up to date"]
    save(with_folder.root, "odd/7.npy", 7)
    save(with_folder.root, "even/2.npy", 22)
    (with_folder.root / "samples/odd/1.npy").unlink()
    (with_folder.root / "samples/odd/3.npy").rename(with_folder.root / "samples/even/3.npy")
    head, *files = explained(with_folder, "evaluate:m/float32")
    assert head.startswith("input changed: samples: ")
    assert files[0].startswith("file edited: samples/even/2.npy: ")
    assert files[1:] == [
        "file renamed: samples: odd/3.npy → even/3.npy",
        "file removed: samples/odd/1.npy",
        "file added: samples/odd/7.npy",
    ]
    # The run says it in a few words, and keeps all of them.
    output = with_folder.doit("check")
    (line,) = (line for line in output.splitlines() if line.startswith("  evaluate:m/float32  "))
    assert line.endswith("; and 3 more)")
    assert "file edited: samples/even/2.npy" in line
    (row,) = (row for row in with_folder.last_run()["steps"] if row["id"] == "evaluate:m/float32")
    assert [head, *files] == row["reasons"]
    assert explained(with_folder, "evaluate:m/float32") == ["up to date"]


def test_a_restored_step_knows_its_folder_too(with_folder: Workspace, tmp_path: Path) -> None:
    with_folder.doit("check")
    clone = write_light(tmp_path / "clone", FOLDER)
    clone.environment["QUANTBUILD_CACHE_DIR"] = with_folder.environment["QUANTBUILD_CACHE_DIR"]
    (clone.root / "my_data.py").write_text(MY_DATA)
    for number in range(6):
        save(clone.root, f"{'even' if number % 2 == 0 else 'odd'}/{number}.npy", number)
    clone.doit("check")
    assert clone.steps("executed") == set()
    (clone.root / "samples/odd/1.npy").unlink()
    assert "file removed: samples/odd/1.npy" in explained(clone, "evaluate:m/a")


def test_without_the_earlier_listing_the_folder_is_named_alone(with_folder: Workspace) -> None:
    with_folder.doit("check")
    for listing in (with_folder.root / "build/.state/trees").iterdir():
        listing.unlink()
    save(with_folder.root, "odd/7.npy", 7)
    (only,) = explained(with_folder, "evaluate:m/float32")
    assert only.startswith("input changed: samples: ")


def test_every_changed_part_of_a_key_is_named_old_and_new(built: Workspace) -> None:
    (built.root / "metric.py").write_text("def score(outputs, label):\n    return 0.0\nscore.higher_is_better = True\n")
    built.edit('metric = "top1"', 'metric = "metric:score"')
    built.edit('input = "x"', 'input = "x"\nsamples = 40')
    record = built.root / "build/m/float32/evaluation.json.record.json"
    content = json.loads(record.read_bytes())
    content["result"]["preimage"]["tools"]["numpy"] = "1.0.0"
    content["result"]["preimage"]["code"] = "c" * 64
    content["result"]["preimage"]["cpu"]["features"] = "none"
    record.write_text(json.dumps(content))
    found = "\n".join(explained(built, "evaluate:m/float32"))
    for part in (
        "CPU changed: features: none → ",
        "quantbuild's code changed: cccccccccccc → ",
        "input changed: metric.py: absent → ",
        "option changed: dataset.samples: absent → 40",
        "option changed: metric: top1 → metric:score",
        "tool changed: numpy: 1.0.0 → ",
    ):
        assert part in found


def test_what_waits_for_another_step_says_for_which_and_what_is_known_already(built: Workspace) -> None:
    (built.root / "m.tflite").write_bytes((built.root / "m.tflite").read_bytes() + b"\0" * 4)
    built.edit('scheme = "dynamic"', 'scheme = "float16"')
    (convert,) = explained(built, "convert:m")
    assert convert.startswith("input changed: m.tflite: ")
    assert explained(built, "quantize:m/a") == ["unknown until convert:m is built"]
    known = explained(built, "quantize:m/b")
    assert "option changed: scheme: dynamic → float16" in known
    assert known[-1] == "unknown until convert:m is built"
    assert explained(built, "report")[0] == "unknown until check is built"


def test_outputs_that_are_missing_or_altered_are_named(built: Workspace) -> None:
    (built.root / "build/m/a/model.tflite").unlink()
    (built.root / "build/m/b/artifact.json").write_text("{}")
    assert explained(built, "quantize:m/a") == ["output missing: build/m/a/model.tflite"]
    (altered,) = explained(built, "quantize:m/b")
    assert altered.startswith("output altered: build/m/b/artifact.json: ")


def test_a_failed_step_says_its_message_and_its_log_everywhere(light: Workspace) -> None:
    (light.root / "m.tflite").write_bytes(b"no model")
    output = light.doit("check", code=1)
    (line,) = (line for line in output.splitlines() if line.startswith("  convert:m  failed: "))
    message = line.removeprefix("  convert:m  failed: ").partition("; log: ")[0]
    (told,) = explained(light, "convert:m")
    assert told.startswith(f"failed before: {message}")
    if "; log: " in line:
        log = line.partition("; log: ")[2]
        assert told.endswith(f"; log: {log}")
        assert (light.root / log).is_file()
    assert explained(light, "quantize:m/a") == [
        "never built",
        "unknown until convert:m is built",
        "run `doit quantize:m/a` to build it",
    ]
    (run,) = json.loads((light.root / "build/report/results.sarif").read_bytes())["runs"]
    texts = {found["message"]["text"] for found in run["results"]}
    assert texts == {
        f"m/float32: {message}",
        f"m/a: blocked by convert:m: {message}",
        f"m/b: blocked by convert:m: {message}",
    }
    assert message in (light.root / "build/report/junit.xml").read_text()


def test_an_unknown_step_is_a_usage_error_with_the_nearest_one(light: Workspace) -> None:
    assert 'did you mean "evaluate:m/a"?' in light.quantbuild("explain", "evaluate:m/aa", code=2)


def test_device_options_are_named(built: Workspace) -> None:
    assert "runs = 5" in DEVICE
    built.edit("runs = 5", "runs = 6")
    assert explained(built, "benchmark:m/a@host") == ["option changed: options.runs: 5 → 6"]
