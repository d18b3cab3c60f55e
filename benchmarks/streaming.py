"""Memory of calibration on a folder of pictures: it must not grow with their number. Last line: JSON.

The calibrate step runs on 224 × 224 JPEGs in a fresh process, as in a build; its peak resident memory is compared
with 1 GB (10^9 bytes). `ratio` below 1 is the promise: 10,000 pictures in less than 1 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIMIT_BYTES = 10**9
SIDE = 224
CLASSES = 10
PACKAGES = ("ai-edge-litert", "numpy", "pillow")


def write_pictures(folder: Path, count: int) -> int:
    """Write `count` JPEGs in class subfolders; return their bytes. Smooth noise, so that a file is some kilobytes."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(CLASSES):
        (folder / f"class_{number}").mkdir(parents=True)
    written = 0
    for number in range(count):
        seed = Image.fromarray(random.integers(0, 256, (7, 7, 3), dtype=np.uint8))
        file = folder / f"class_{number % CLASSES}" / f"{number:06}.jpg"
        seed.resize((SIDE, SIDE), Image.Resampling.BILINEAR).save(file, quality=85)
        written += file.stat().st_size
    return written


def write_model(path: Path) -> None:
    """Write a float32 .tflite that takes a picture: a strided convolution and four depthwise blocks."""
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    image = tf.keras.Input((SIDE, SIDE, 3), batch_size=1, name="image")
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu6")(image)
    for channels in (16, 24, 32, 48):
        x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu6")(x)
        x = layers.Conv2D(channels, 1, activation="relu6")(x)
    x = layers.Dense(CLASSES, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(tf.keras.Model(image, x)).convert())


def calibrate_apart(model: Path, pictures: Path) -> dict[str, Any]:
    """Run the calibrate step in a process of its own; return its peak memory, seconds and values."""
    command = [sys.executable, __file__, "--measure", str(model), str(pictures)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(model: Path, pictures: Path) -> dict[str, Any]:
    """Run the calibrate step here and measure this process."""
    from quantbuild.actions import calibrate
    from quantbuild.step import Job

    preprocess = {"crop": SIDE, "mean": 127.5, "std": 127.5}
    dataset = {
        "loader": "image_folder",
        "options": {"path": pictures.name, "preprocess": preprocess},
        "samples": None,
        "seed": 0,
        "name": "pictures",
    }
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(
            step="calibrate:streaming",
            action="calibrate",
            parameters={"dataset": dataset, "hold_back": None, "statistics": "all"},
            inputs={"model": str(model), "data": str(pictures)},
            outputs={"statistics": f"{scratch}/statistics.npz"},
            root=str(pictures.parent),
            scratch=scratch,
        )
        started = time.monotonic()
        values = calibrate.run(job)
    return {"peak_bytes": peak_bytes(), "seconds": time.monotonic() - started, **values}


def peak_bytes() -> int:
    """Return this process's peak resident memory.

    Not ru_maxrss where /proc tells: a child's begins with what its parent had.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def main() -> int:
    """Write pictures and a model, measure, print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10_000, help="how many, default 10,000")
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("MODEL", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    if given.measure:
        print(json.dumps(measure(*given.measure)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        model, pictures = Path(folder, "float32.tflite"), Path(folder, "pictures")
        write_model(model)
        written = write_pictures(pictures, given.pictures)
        found = calibrate_apart(model, pictures)
    decoded = given.pictures * SIDE * SIDE * 3 * 4
    print(f"{given.pictures} pictures, {written / 1e6:.0f} MB as JPEG, {decoded / 1e9:.1f} GB as float32")
    print(f"peak memory {found['peak_bytes'] / 1e6:.0f} MB, {found['seconds']:.0f} s, {found['tensors']} tensors")
    summary = {
        "benchmark": "streaming",
        "ratio": round(found["peak_bytes"] / LIMIT_BYTES, 4),
        "peak_bytes": found["peak_bytes"],
        "limit_bytes": LIMIT_BYTES,
        "decoded_bytes": decoded,
        "pictures": given.pictures,
        "seconds": round(found["seconds"], 1),
        "route": found["route"],
        "versions": {package: version(package) for package in PACKAGES},
    }
    print(json.dumps(summary))
    return 0 if found["peak_bytes"] < LIMIT_BYTES else 1


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(main())
