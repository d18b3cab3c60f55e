"""Trials and time until few operations out of int8 meet a limit: the search of `mixed` against two other rankings.

Three ways on the same networks, which int8 harms in a few places, in one process, with the same quantizer, samples and
limit, and with the same way to find a prefix of a ranked list that suffices (growing, then halving):

- mixed: activations ranked by rounding each alone in the float model, each with the operations that make and read it;
- one in float: an artifact for each operation, which alone stays float; the one that helps most comes first;
- one in int8: an artifact for each operation, which alone is int8; the one that harms most comes first.

What is counted are artifacts made and judged on the selection samples. The candidates of `ranges = "auto"`, which all
three start from, are not counted. Weights are random (seeded), labels the float networks' own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "actions"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from in_process import InProcess

from quantbuild.drivers import candidates, judging
from quantbuild.drivers.search import Budget, Judged, Ranking, Units, pruned, shortest_prefix
from quantbuild.drivers.trials import Trials

LOUD = 200.0
LIMIT = 0.05
SAMPLES = {"calibration": 60, "selection": 120}
SHAPE = (16, 16, 4)
MANIFEST = (
    "schema = 1\n"
    + "".join(f'[dataset.{name}]\nloader = "npz"\npath = "{name}.npz"\ninput = "x"\nlabel = "y"\n' for name in SAMPLES)
    + f"""
[model.m]
source = "keras"
path = "model.keras"
calibration = "calibration"
selection = "selection"
metric = "top1"
lint_ignore = ["noise"]
[model.m.variant]
mixed = {{ scheme = "mixed", search = {{ max_accuracy_loss = {LIMIT}, trials = 1000 }} }}
"""
)


class Found(NamedTuple):
    """What one way came to."""

    met: bool
    artifacts: int
    cpu_s: float
    size_bytes: int
    operations: int


def chain(harmed: tuple[int, ...], depth: int = 16) -> Any:
    """Convolutions one after the other; ELU is not homogeneous, so that no equalization undoes the harm."""
    import keras

    image = x = keras.Input(SHAPE, name="image")
    for number in range(depth):
        x = keras.layers.Conv2D(8, 3, padding="same", activation="elu", name=f"conv_{number}")(x)
    return _harm(keras.Model(image, _head(x)), [(f"conv_{number}", f"conv_{number + 1}") for number in harmed])


def residual(harmed: tuple[int, ...], depth: int = 8) -> Any:
    """Inverted bottlenecks with depthwise convolutions and a sum around each, as MobileNetV2's are."""
    import keras

    layers = keras.layers
    image = keras.Input(SHAPE, name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    for number in range(depth):
        y = layers.Conv2D(16, 1, activation="elu", name=f"wide_{number}")(x)
        y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise_{number}")(y)
        x = layers.Add()([x, layers.Conv2D(8, 1, name=f"narrow_{number}")(layers.ELU()(y))])
    return _harm(keras.Model(image, _head(x)), [(f"wide_{number}", f"depthwise_{number}") for number in harmed])


NETWORKS: Mapping[str, Callable[[], Any]] = {
    "chain, 2 harmed": lambda: chain((3, 9)),
    "chain, 4 harmed": lambda: chain((2, 5, 8, 12)),
    "residual, 2 harmed": lambda: residual((2, 5)),
    "residual, 3 harmed": lambda: residual((1, 4, 6)),
}


def _head(x: Any) -> Any:
    import keras

    return keras.layers.Dense(6, name="scores")(keras.layers.GlobalAveragePooling2D()(x))


def _harm(model: Any, pairs: list[tuple[str, str]]) -> Any:
    """Make one channel of the first layer of each pair far louder than the others, and the second hear it softly."""
    for loud, quiet in pairs:
        weights, bias = model.get_layer(loud).get_weights()
        weights[..., 0] *= LOUD
        model.get_layer(loud).set_weights([weights, bias])
        weights, bias = model.get_layer(quiet).get_weights()
        weights[:, :, 0] /= LOUD
        model.get_layer(quiet).set_weights([weights, bias])
    return model


def workspace(root: Path, model: Any) -> InProcess:
    """Write model and samples, every class about as frequent, and make what all three ways start from."""
    rng = np.random.default_rng(0)
    last = model.layers[-1]
    weights, bias = last.get_weights()
    scores = model.predict(rng.standard_normal((300, *SHAPE)).astype(np.float32), verbose=0)
    mean, deviation = scores.mean(axis=0), scores.std(axis=0)
    last.set_weights([weights / deviation, (bias - mean) / deviation])
    model.save(root / "model.keras")
    for name, count in SAMPLES.items():
        drawn = rng.standard_normal((count, *SHAPE)).astype(np.float32)
        np.savez(root / f"{name}.npz", x=drawn, y=model.predict(drawn, verbose=0).argmax(-1))
    build = InProcess(root, MANIFEST)
    build("calibrate:m")
    return build


class Ways:
    """The three ways on one network, from the same int8 artifact."""

    def __init__(self, build: InProcess) -> None:
        self._build = build
        step = build.steps["quantize:m/mixed"]
        self._trials = Trials(step, build.make)
        self._inputs = {role: step.inputs[role] for role in ("model", "statistics")}
        options = {"io": "float32", "ranges": "auto", "bias_correction": None, "equalize": False}
        self._base = candidates.best(candidates.try_all(candidates.of(options), self._inputs, self._trials, build.make))
        self._size = 0
        self._judged = 0

    def nodes(self) -> int:
        from quantbuild.tflite import graph, listing

        return len(listing.nodes(graph.read(self._build.path("convert:m").read_bytes())))

    def mixed(self) -> Found:
        """Search as the driver does, from the ranking on."""
        started, self._judged = time.process_time(), 0
        ranking = self._trials.ranking(self._inputs, {"ranges": self._base.candidate.options["ranges"]}, "benchmark")
        assert self._build.make([ranking])[0].result is not None
        units = json.loads((self._build.root / ranking.outputs["ranking"]).read_bytes())["units"]
        return self._grown(
            [frozenset(unit["nodes"]) for unit in units], [unit["cost_bytes"] for unit in units], started
        )

    def one_in_float(self) -> Found:
        """Rank each operation by the SQNR of the artifact in which it alone is float."""
        started, self._judged = time.process_time(), 0
        names = [f"node:{number}" for number in range(self.nodes())]
        sqnr = [self._judge(frozenset({name})).sqnr_db for name in names]
        return self._by_rank(names, [-value for value in sqnr], started)

    def one_in_int8(self) -> Found:
        """Rank each operation by the SQNR of the artifact in which it alone is int8."""
        started, self._judged = time.process_time(), 0
        names = [f"node:{number}" for number in range(self.nodes())]
        sqnr = [self._judge(frozenset(names) - {name}).sqnr_db for name in names]
        return self._by_rank(names, sqnr, started)

    def _by_rank(self, names: list[str], keys: list[float], started: float) -> Found:
        ranked = sorted(range(len(names)), key=lambda number: keys[number])
        return self._grown([frozenset({names[number]}) for number in ranked], [0.0] * len(names), started)

    def _grown(self, ranked: list[frozenset[str]], costs: list[float], started: float) -> Found:
        """Find the shortest prefix of `ranked` that suffices and drop what it does not need."""

        def nodes(units: Units) -> frozenset[str]:
            return frozenset(node for unit in units for node in ranked[unit])

        everything = frozenset(range(len(ranked)))
        # Nothing left in int8 is the float model, which loses nothing: no artifact to make.
        known = {frozenset(): _judged(self._base), everything: Judged(True, math.inf)}
        budget = Budget(lambda units: self._judge(nodes(units)), 1000, known)
        ranking = Ranking([{unit} for unit in everything], nodes=len(everything) + 1)
        found = shortest_prefix(ranking, budget, -math.inf)
        if found is not None and found != everything:
            found = pruned(found, costs, budget, -math.inf)
            self._judge(nodes(found), counted=False)
        found = None if found == everything else found
        cpu_s = time.process_time() - started
        kept = len(nodes(found)) if found is not None else 0
        return Found(found is not None, self._judged, cpu_s, self._size if found is not None else 0, kept)

    def _judge(self, kept: frozenset[str], *, counted: bool = True) -> Judged:
        self._judged += counted
        options = {**self._base.candidate.options, "keep_float": sorted(kept)}
        tried = candidates.try_all(
            [candidates.Candidate(options, "trial")], self._inputs, self._trials, self._build.make
        )[0]
        result = tried.artifact.result
        self._size = result.outputs["model"].size_bytes if result is not None else 0
        return _judged(tried)


def _judged(tried: candidates.Tried) -> Judged:
    loss = judging.loss_of(tried.selection)
    return Judged(loss is not None and loss <= LIMIT, tried.sqnr_db)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the converter writes to descriptor 2 off the screen."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _rows(name: str) -> dict[str, Found]:
    import keras

    keras.utils.set_random_seed(1)
    rows = {}
    # A workspace each: what one way has tried is not known to the next.
    for way in ("mixed", "one_in_float", "one_in_int8"):
        with tempfile.TemporaryDirectory() as folder, _quiet():
            keras.utils.set_random_seed(1)
            ways = Ways(workspace(Path(folder), NETWORKS[name]()))
            rows[way] = getattr(ways, way)()
            operations = ways.nodes()
    print(f"{name}, {operations} operations")
    for way, found in rows.items():
        met = f"{found.operations:2} in float, {found.size_bytes:6} bytes" if found.met else "limit not met"
        print(f"  {way:<13} {found.artifacts:3} artifacts  cpu {found.cpu_s:6.1f} s  {met}", flush=True)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="how many of the networks (default: all)")
    options = parser.parse_args()
    found = {name: _rows(name) for name in list(NETWORKS)[: options.networks]}
    totals = {
        way: {
            "artifacts": sum(rows[way].artifacts for rows in found.values()),
            "cpu_s": round(sum(rows[way].cpu_s for rows in found.values()), 2),
            "met": sum(rows[way].met for rows in found.values()),
        }
        for way in ("mixed", "one_in_float", "one_in_int8")
    }
    best = min(totals[way]["cpu_s"] for way in ("one_in_float", "one_in_int8"))
    fewest = min(totals[way]["artifacts"] for way in ("one_in_float", "one_in_int8"))
    result = {
        "ratio": round(totals["mixed"]["cpu_s"] / best, 3),
        "ratio_artifacts": round(totals["mixed"]["artifacts"] / fewest, 3),
        "networks": len(found),
        "limit": LIMIT,
        "totals": totals,
        "by_network": {name: {way: row._asdict() for way, row in rows.items()} for name, rows in found.items()},
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
