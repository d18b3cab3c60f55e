"""From pictures to verdicts with a real model: calibrated, evaluated, judged by slice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_models
from PIL import Image

from quantbuild.actions import calibrate, check, evaluate
from quantbuild.errors import StepError

PREPROCESS = {"resize": 16, "crop": 16, "mean": 127.5, "std": 127.5}


def dataset(path: str, **options: Any) -> dict[str, Any]:
    options = {"path": path, "preprocess": PREPROCESS, **options}
    return {"name": path, "loader": "image_folder", "options": options, "samples": None, "seed": 0}


@pytest.fixture
def root(models: Path, tmp_path: Path) -> Path:
    """A converted model and pictures of every kind, with labels and slices."""
    tiny_models.converted("keras", models / "net.keras", tmp_path)
    (tmp_path / "photos").mkdir()
    random = np.random.default_rng(0)
    rows = ["path,label,slice"]
    for number in range(12):
        picture = Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8))
        picture = picture.convert({0: "L", 1: "P"}.get(number, "RGB"))
        picture.save(tmp_path / "photos" / f"{number}.png")
        rows.append(f"{number}.png,{number % 10},{'grey' if number < 1 else 'colour'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    return tmp_path


def run(action: Any, root: Path, inputs: dict[str, Path], outputs: dict[str, str], parameters: dict[str, Any]) -> Any:
    name = action.__name__.rpartition(".")[2]
    job = tiny_models.job(name, root / name, inputs, outputs, parameters)
    return action.run(msgspec.structs.replace(job, root=str(root)))


def calibrated(root: Path, data: dict[str, Any]) -> Any:
    parameters = {"dataset": data, "hold_back": None, "statistics": "all"}
    return run(calibrate, root, {"model": root / "float32.tflite"}, {"statistics": "statistics.npz"}, parameters)


def test_pictures_of_every_kind_calibrate_a_model(root: Path) -> None:
    assert calibrated(root, dataset("photos"))["samples"] == 12


def test_one_corrupt_picture_fails_the_step_by_its_name(root: Path) -> None:
    content = (root / "photos" / "7.png").read_bytes()
    (root / "photos" / "7.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(StepError, match=r"photos/7\.png: cannot be read as a picture \(.+\); repair or remove it"):
        calibrated(root, dataset("photos"))


def test_a_picture_of_another_size_names_its_sample(root: Path) -> None:
    with pytest.raises(StepError, match=r"sample 0: .*\[1, 20, 24, 3\]"):
        calibrated(root, dataset("photos", preprocess={}))


def test_slices_of_a_labels_file_reach_the_verdict(root: Path) -> None:
    outputs = {"evaluation": "evaluation.json", "samples": "samples.npz"}
    parameters = {"dataset": dataset("photos", labels="labels.csv"), "metric": "top1"}
    model = {"model": root / "float32.tflite"}
    run(evaluate, root, model, outputs, parameters)
    (root / "evaluate" / "samples.npz").rename(root / "baseline.npz")
    run(evaluate, root, {**model, "baseline": root / "baseline.npz"}, outputs, parameters)
    variant = {"name": "same", "scheme": "int8", "gate": {"max_slice_loss": 0.5}, "error": None, "cause": None}
    inputs = {f"m/same:{role}": root / "evaluate" / name for role, name in outputs.items()}
    written = {"gates": "check.json", "junit": "junit.xml"}
    lint = {"ignore": [], "calibrated": ["same"]}
    judged = {"name": "m", "metric": "top1", "lint": lint, "variants": [variant]}
    run(check, root, inputs, written, {"models": [judged]})
    (found,) = msgspec.json.decode((root / "check" / "check.json").read_bytes())["models"][0]["variants"]
    assert [(each["name"], each["n"], each["verdict"]) for each in found["accuracy"]["slices"]] == [
        ("colour", 11, "pass"),
        ("grey", 1, "undecided"),
    ]
    (row,) = found["gates"]
    assert (row["verdict"], row["slice"]) == ("undecided", "grey")
