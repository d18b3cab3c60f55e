"""Pictures, sound and a user's own samples through a real build: read right, tracked, named when they are broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image
from workspace import Workspace, write_workspace

MAKE = """
import keras
keras.utils.set_random_seed(1)
L = keras.layers
picture = keras.Input((16, 16, 3), name="picture")
x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu")(picture))
keras.Model(picture, L.Dense(3, name="scores")(x)).save("photos.keras")
sound = keras.Input((200,), name="sound")
keras.Model(sound, L.Dense(3, name="scores")(L.Dense(8, activation="relu")(sound))).save("sounds.keras")
"""

MY_DATA = """
from pathlib import Path
import numpy

def clips():
    for file in sorted(Path("data/clips").glob("*.npy")):
        yield {"sound": numpy.load(file)}, int(file.stem) % 3, "even" if int(file.stem) % 2 == 0 else "odd"
"""

MANIFEST = """schema = 1
[dataset.photos]
loader = "image_folder"
path = "data/photos"
labels = "labels.csv"
preprocess = { resize = 18, crop = 16, interpolation = "bicubic", mean = 127.5, std = 127.5 }
[dataset.sounds]
loader = "audio"
path = "data/sounds"
sample_rate = 1000
duration_seconds = 0.2
[dataset.clips]
loader = "python"
path = "my_data:clips"
inputs = ["data/clips/**"]
samples = 18
"""

MODEL = """
[model.{name}]
source = "keras"
path = "{file}.keras"
calibration = "{name}"
lint_ignore = ["noise"]
evaluation = "{name}"
metric = "top1"
gate = {{ {gate} = 0.9 }}
variant.int8.scheme = "int8"
"""


@pytest.fixture(scope="module")
def built_once(make_models: Callable[[str], Path]) -> Workspace:
    root = make_models(MAKE)
    random = np.random.default_rng(0)
    for name in ("photos", "clips", "sounds/bark", "sounds/meow", "sounds/purr"):
        (root / "data" / name).mkdir(parents=True)
    rows = ["path,label,slice"]
    for number in range(24):
        picture = Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        mode, suffix = (("RGB", "jpg"), ("L", "png"), ("P", "gif"), ("RGBA", "png"))[number % 4]
        picture.convert(mode).save(root / "data" / "photos" / f"{number}.{suffix}")
        rows.append(f"{number}.{suffix},{number % 3},{mode}")
        tone = random.standard_normal(150 + 10 * number).clip(-1, 1)
        soundfile.write(root / "data/sounds" / ("bark", "meow", "purr")[number % 3] / f"{number}.wav", tone, 1000)
        np.save(root / "data" / "clips" / f"{number}.npy", random.standard_normal((1, 200)).astype(np.float32))
    (root / "labels.csv").write_text("\n".join(rows))
    (root / "my_data.py").write_text(MY_DATA)
    models = (("photos", "photos", "max_slice_loss"), ("sounds", "sounds", "max_accuracy_loss"))
    text = MANIFEST + "".join(
        MODEL.format(name=name, file=file, gate=gate)
        for name, file, gate in (*models, ("clips", "sounds", models[0][2]))
    )
    workspace = write_workspace(root, text)
    workspace.doit("report")
    return workspace


@pytest.fixture
def built(built_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy in which everything is built, with no cache."""
    return built_once.copied(tmp_path / "built")


def accuracy(workspace: Workspace, model: str) -> dict[str, Any]:
    report = json.loads((workspace.root / "build/report/report.json").read_bytes())
    (found,) = (each for each in report["models"] if each["name"] == model)
    return found["variants"][1]["accuracy"]  # type: ignore[no-any-return]


def test_every_loader_builds_and_then_nothing_is_done_again(built_once: Workspace) -> None:
    assert {name: accuracy(built_once, name)["n"] for name in ("photos", "sounds", "clips")} == {
        "photos": 24,
        "sounds": 24,
        "clips": 18,
    }
    built_once.doit("report")
    assert built_once.last_run()["executed"] == 0


def test_a_contract_says_how_an_app_makes_the_input(built_once: Workspace) -> None:
    said = {
        name: json.loads((built_once.root / f"dist/{name}/int8.json").read_bytes())["preprocess"]
        for name in ("photos", "sounds", "clips")
    }
    assert said["photos"]["resize"] == 18
    assert said["photos"]["std"] == 127.5
    assert said["sounds"] == {"sample_rate": 1000, "duration_seconds": 0.2, "mono": False, "channel_axis": False}
    assert said["clips"] is None, "a function may do anything"


def test_each_slice_has_its_loss_with_an_interval_and_a_verdict(built_once: Workspace) -> None:
    for model, names in (("photos", ["L", "P", "RGB", "RGBA"]), ("clips", ["even", "odd"])):
        slices = accuracy(built_once, model)["slices"]
        assert [each["name"] for each in slices] == names
        for each in slices:
            assert each["loss_low"] <= each["loss"] <= each["loss_high"]
            assert each["verdict"] in ("pass", "undecided")
    assert accuracy(built_once, "sounds")["slices"] == []
    page = (built_once.root / "build/report/index.html").read_text()
    assert page.count("Loss by slice") == 2


def test_a_corrupt_picture_fails_its_model_alone(built: Workspace) -> None:
    picture = built.root / "data/photos/4.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    printed = built.doit("report", code=1)
    assert "data/photos/4.jpg: cannot be read as a picture" in printed
    assert built.steps("failed") >= {"calibrate:photos", "evaluate:photos/float32"}
    assert not {step for step in built.steps("failed") if "photos" not in step}


def test_a_new_file_below_a_declared_pattern_builds_anew(built: Workspace) -> None:
    np.save(built.root / "data/clips/24.npy", np.zeros((1, 200), np.float32))
    built.doit("quantize")
    assert "calibrate:clips" in built.steps("executed")
    assert not {step for step in built.steps("executed") if "photos" in step or "sounds" in step}


def test_reading_what_is_not_declared_says_what_to_declare(built: Workspace) -> None:
    (built.root / "data/scale.txt").write_text("2")
    (built.root / "my_data.py").write_text(
        MY_DATA.replace("numpy.load(file)", "numpy.load(file) * SCALE").replace(
            "def clips", "SCALE = numpy.float32(open('data/scale.txt').read())\n\ndef clips"
        )
    )
    printed = built.doit("calibrate:clips", code=1)
    assert 'my_data:clips: reads "data/scale.txt", which is not declared; add "data/scale.txt" to its inputs' in printed
    built.edit('inputs = ["data/clips/**"]', 'inputs = ["data/clips/**", "data/scale.txt"]')
    built.doit("calibrate:clips")
    (built.root / "data/scale.txt").write_text("3")
    built.doit("calibrate:clips")
    assert built.steps("executed") == {"calibrate:clips"}
