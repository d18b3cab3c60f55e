"""Five variants of MobileNetV2 224×224 from cold: quantbuild against one process that runs five conversions.

Both start from the same .keras file and the same 100 samples, imports included; what is compared is the processor time
of the whole process tree, and the wall time. The weights are random (seeded): they cost what trained ones cost.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL_SCRIPT = """
import sys
import keras, numpy as np
keras.utils.set_random_seed(0)
keras.applications.MobileNetV2(weights=None, classes=100).save("model.keras")
rng = np.random.default_rng(0)
np.savez("data.npz", x=rng.random((int(sys.argv[1]), 224, 224, 3), dtype=np.float32) * 2 - 1)
"""

RIVAL_SCRIPT = """
import keras, numpy as np, tensorflow as tf
model = keras.models.load_model("model.keras")
samples = np.load("data.npz")["x"]

def convert(name, scheme, io=None):
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme == "int8":
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if io:
            converter.inference_input_type = converter.inference_output_type = getattr(tf, io)
    open(name + ".tflite", "wb").write(converter.convert())

convert("float16", "float16")
convert("dynamic", "dynamic")
convert("int8", "int8")
convert("int8_io", "int8", "int8")
convert("uint8_io", "int8", "uint8")
"""

MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
[dataset.choice]
loader = "npz"
path = "data.npz"
input = "x"
samples = 1
[model.mobilenet]
source = "keras"
path = "model.keras"
calibration = "data"
lint_ignore = ["noise"]
selection = "choice"
[model.mobilenet.variant]
float16 = { scheme = "float16" }
dynamic = { scheme = "dynamic" }
int8 = { scheme = "int8" }
int8_io = { scheme = "int8", io = "int8" }
uint8_io = { scheme = "int8", io = "uint8" }
"""

DODO = "from quantbuild.shell import tasks\nglobals().update(tasks())\n"
VARIANTS = ("float16", "dynamic", "int8", "int8_io", "uint8_io")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "manifests").mkdir()
        (root / "manifests" / "five.toml").write_text(MANIFEST)
        (root / "dodo.py").write_text(DODO)
        _run(root, "-c", MODEL_SCRIPT, str(options.samples))
        ours = _run(root, "-m", "doit", "quantize")
        rival = _run(root, "-c", RIVAL_SCRIPT)
        sizes = {
            name: [
                (root / "dist" / "mobilenet" / f"{name}.tflite").stat().st_size,
                (root / f"{name}.tflite").stat().st_size,
            ]
            for name in VARIANTS
        }
    for name, (cpu, wall) in (("quantbuild", ours), ("five conversions", rival)):
        print(f"{name:<17} cpu {cpu:7.1f} s   wall {wall:7.1f} s")
    result = {
        "ratio": round(ours[0] / rival[0], 3),
        "ratio_wall": round(ours[1] / rival[1], 3),
        "quantbuild_cpu_s": round(ours[0], 2),
        "rival_cpu_s": round(rival[0], 2),
        "quantbuild_wall_s": round(ours[1], 2),
        "rival_wall_s": round(rival[1], 2),
        "samples": options.samples,
        "size_bytes_quantbuild_and_rival": sizes,
    }
    print(json.dumps(result))
    return 0


def _run(root: Path, *arguments: str) -> tuple[float, float]:
    """Run Python in `root`; return processor and wall seconds of it and of all it started and waited for."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "QUANTBUILD_CACHE_DIR": str(root / "cache"),
    }
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{arguments[0]} {arguments[1][:40]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime), wall


if __name__ == "__main__":
    sys.exit(main())
