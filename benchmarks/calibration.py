"""What calibration costs, in one run: ours with its second pass, plain inference, all tensors kept, the rivals.

CPU time of the whole process per sample, everybody on one thread, on the same samples in blocks that take
turns, so that a busy machine disturbs all alike; the figure is the median block. Interpreters are opened beforehand.
The last line is one JSON object; exit 1 when our ranges are not bit-equal to reading every tensor.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from quantbuild.tflite import graph, instrumentation
from quantbuild.tflite.calibration import calibrate
from quantbuild.tflite.feeding import Feed
from quantbuild.tflite.histograms import Counter
from quantbuild.tflite.ranges import never_clipped
from quantbuild.tflite.readers import AllTensors, InGraph
from quantbuild.tflite.runtime import open_interpreter
from quantbuild.tflite.statistics_file import Statistics

MODEL = "MobileNetV2, 224x224, untrained, batch norms fitted to one image"
SHAPE = (1, 224, 224, 3)
BLOCK = 10
ROUNDING = 1e-3
"""Of a range: the converter calibrates on other kernels, whose results differ in their last bits."""
PACKAGES = ("tensorflow", "ai-edge-litert", "litert-quantizer", "numpy")

Run = Callable[[list[Feed]], Any]


def float_model() -> bytes:
    """MobileNetV2 with seeded random weights; cost and equality do not need trained ones.

    Batch norms take the statistics of one image, without which the activations of an untrained network
    fade to nothing in its depth.
    """
    import tensorflow as tf

    tf.keras.utils.set_random_seed(0)
    pixels = tf.keras.Input(batch_shape=SHAPE)
    network = tf.keras.applications.MobileNetV2(weights=None, input_tensor=pixels)
    for layer in network.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(tf.random.uniform(SHAPE, -1, 1, seed=0), training=True)
    return bytes(tf.lite.TFLiteConverter.from_keras_model(network).convert())


def contestants(model: bytes, tensor: int, converter: Any, measured_before: Statistics) -> dict[str, Run]:
    """Name → a function that runs a block of samples."""
    measured = instrumentation.layout(graph.read(model))
    ours = {kind: _in_graph(model, measured, kind) for kind in ("minmax", "all")}
    kept = AllTensors(model, measured, "minmax")
    return {
        "plain": _plain(model),
        "minmax": lambda block: [ours["minmax"].read(feed) for feed in block],
        "all_statistics": lambda block: [ours["all"].read(feed) for feed in block],
        "all_tensors": lambda block: [kept.read(feed) for feed in block],
        "histograms": _histograms(model, measured_before),
        "litert_quantizer_profiler": _litert_quantizer(model, tensor, "CALIBRATION_PROFILER_BASED"),
        "litert_quantizer_default": _litert_quantizer(model, tensor, "CALIBRATION_PRESERVE_ALL_TENSORS"),
        "converter": lambda block: [converter.FeedTensor([feed[tensor]]) for feed in block],
    }


def _in_graph(model: bytes, measured: instrumentation.Layout, kind: Any) -> InGraph:
    return InGraph(instrumentation.instrument(graph.read(model), measured, kind))


def _histograms(model: bytes, statistics: Statistics) -> Run:
    """The second pass, which only some range methods ask for."""
    spared = never_clipped(graph.read(model))
    rows = [row for tensor, row in statistics.rows().items() if tensor not in spared]
    low, high = (bound[rows] for bound in statistics.minmax())
    counter = Counter(model, statistics.tensor_indices[rows], low, high)

    def run(block: list[Feed]) -> None:
        for feed in block:
            assert counter.read(feed) is None

    return run


def _plain(model: bytes) -> Run:
    interpreter = open_interpreter(model)
    output = interpreter.get_output_details()[0]["index"]

    def run(block: list[Feed]) -> None:
        for feed in block:
            for tensor, value in feed.items():
                interpreter.set_tensor(tensor, value)
            interpreter.invoke()
            interpreter.get_tensor(output)

    return run


def converter_calibrator(model: bytes) -> Any:
    """What tf.lite.TFLiteConverter feeds a representative dataset to, ready for it; no quantization."""
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    wrapper = Calibrator(model)._calibrator
    wrapper.Prepare([list(SHAPE)])
    return wrapper


def _litert_quantizer(model: bytes, tensor: int, mode: str) -> Run:
    from litert_quantizer import calibrator, recipe, recipe_manager

    recipes = recipe_manager.RecipeManager()
    recipes.load_quantization_recipe(recipe.static_wi8_ai8())
    tool = calibrator.Calibrator(model, num_threads=1, mode=calibrator.CalibrationMode[mode])
    name = next(iter(graph.signature_maps(graph.read(model))[0]))
    signature = graph.signature_keys(graph.read(model))[0]

    def run(block: list[Feed]) -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            tool.calibrate({signature: [{name: feed[tensor]} for feed in block]}, recipes)

    return run


def measure(runs: dict[str, Run], blocks: list[list[Feed]]) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """CPU milliseconds per sample and all results, by contestant; who goes first rotates."""
    names = list(runs)
    cpu_ms: dict[str, list[float]] = {name: [] for name in names}
    results: dict[str, list[Any]] = {name: [] for name in names}
    for run in runs.values():
        run(blocks[0][:1])  # warm up: the first run allocates
    for number, block in enumerate(blocks):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            found = runs[name](block)
            cpu_ms[name].append((time.process_time() - start) * 1e3 / len(block))
            results[name].extend(found or [])
    return {name: statistics.median(taken) for name, taken in cpu_ms.items()}, results


def bit_equal(results: dict[str, list[Any]]) -> bool:
    """Whether every sample's minimum and maximum of every tensor are those of reading all tensors."""
    return all(
        np.array_equal(ours.minima, kept.minima) and np.array_equal(ours.maxima, kept.maxima)
        for name in ("minmax", "all_statistics")
        for ours, kept in zip(results[name], results["all_tensors"], strict=True)
    )


def wrong_ranges(calibrated: bytes, model: bytes, results: list[Any]) -> int:
    """How many tensors the converter gives another range than the true one (tensorflow#127842)."""
    ranges = {
        graph.tensor_name(tensor): (tensor.quantization.min, tensor.quantization.max)
        for tensor in graph.main(graph.read(calibrated)).tensors
        if tensor.quantization is not None and tensor.quantization.min is not None
    }
    low = np.min([reading.minima for reading in results], axis=0)
    high = np.max([reading.maxima for reading in results], axis=0)
    names = instrumentation.layout(graph.read(model)).names
    return sum(
        name in ranges and not np.allclose(np.ravel(ranges[name]), (a, b), rtol=0, atol=ROUNDING * (b - a))
        for name, a, b in zip(names, low, high, strict=True)
    )


def main() -> int:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=200, help="images, 20 or more to mean anything")
    count = parser.parse_args().samples
    warnings.simplefilter("ignore")
    model = float_model()
    tensor = next(iter(graph.signature_maps(graph.read(model))[0].values()))
    images = np.random.default_rng(0).uniform(-1, 1, (count, *SHAPE)).astype(np.float32)
    feeds: list[Feed] = [{tensor: image} for image in images]
    converter = converter_calibrator(model)
    start = time.process_time()
    found = calibrate(model, enumerate(feeds), interpreters=1).statistics
    whole_ms = (time.process_time() - start) * 1e3 / count
    runs = contestants(model, tensor, converter, found)
    cpu_ms, results = measure(runs, [feeds[start : start + BLOCK] for start in range(0, count, BLOCK)])
    report(cpu_ms, whole_ms)
    equal = bit_equal(results)
    wrong = wrong_ranges(converter.Calibrate(), model, results["all_tensors"])
    print(json.dumps(summary(cpu_ms, whole_ms, equal, wrong, count)))
    return 0 if equal else 1


def report(cpu_ms: dict[str, float], whole_ms: float) -> None:
    """Print one row per contestant."""
    print(f"\n{MODEL}: CPU ms per sample, one thread, median block of {BLOCK}")
    for name, taken in cpu_ms.items():
        print(f"  {name:28} {taken:8.2f}   {taken / cpu_ms['plain']:6.2f} x plain")
    print(f"  {'calibrate(), all included':28} {whole_ms:8.2f}   {whole_ms / cpu_ms['plain']:6.2f} x plain\n")


def summary(cpu_ms: dict[str, float], whole_ms: float, equal: bool, wrong: int, count: int) -> dict[str, Any]:
    """The JSON line: `ratio` is the main figure."""
    return {
        "benchmark": "calibration",
        "ratio": round(cpu_ms["minmax"] / cpu_ms["plain"], 3),
        "ratio_all_statistics": round(cpu_ms["all_statistics"] / cpu_ms["plain"], 3),
        "ratio_all_included": round(whole_ms / cpu_ms["plain"], 3),
        "ratio_histograms": round(cpu_ms["histograms"] / cpu_ms["plain"], 3),
        "converter_ratio": round(cpu_ms["converter"] / cpu_ms["minmax"], 2),
        "converter_ratio_all_statistics": round(cpu_ms["converter"] / cpu_ms["all_statistics"], 2),
        "converter_wrong_tensors": wrong,
        "bit_equal": equal,
        "cpu_ms_per_sample": {name: round(taken, 3) for name, taken in cpu_ms.items()},
        "samples": count,
        "model": MODEL,
        "versions": {package: version(package) for package in PACKAGES},
    }


if __name__ == "__main__":
    sys.exit(main())
