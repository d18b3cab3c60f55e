"""How often the interval for a mean difference holds the true one: ours, Student's t, and the BCa bootstrap.

Values are drawn from distributions whose mean is known: normal, and lognormal, which is skewed as squared errors are.
The rivals are scipy's. The last line is JSON: `ratio` is the worst coverage of our 95 % interval over the worst of BCa.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special
from scipy import stats as scipy_stats

from quantbuild.statistics import bootstrap_mean

SIZES = (5, 10, 20, 50, 200)
DISTRIBUTIONS: dict[str, tuple[Callable[[np.random.Generator, int], Any], float]] = {
    "normal": (lambda rng, n: rng.standard_normal(n), 0.0),
    "lognormal": (lambda rng, n: rng.lognormal(0.0, 1.0, n), math.exp(0.5)),
}


def student(values: Any, confidence: float, resamples: int) -> tuple[float, float]:
    del resamples
    half = special.stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def bca(values: Any, confidence: float, resamples: int) -> tuple[float, float]:
    found = scipy_stats.bootstrap(
        (values,), np.mean, confidence_level=confidence, n_resamples=resamples, method="BCa", vectorized=True, rng=0
    ).confidence_interval
    return float(found.low), float(found.high)


def ours(values: Any, confidence: float, resamples: int) -> tuple[float, float]:
    return bootstrap_mean(values, confidence, resamples=resamples)


METHODS = {"ours": ours, "Student's t": student, "BCa": bca}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=4000, help="samples drawn of each size")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--confidence", type=float, default=0.95)
    options = parser.parse_args()
    coverage: dict[str, dict[int, float]] = {}
    for name, (draw, mean) in DISTRIBUTIONS.items():
        for n in SIZES:
            rng = np.random.default_rng(n)
            held = dict.fromkeys(METHODS, 0)
            for _ in range(options.samples):
                values = draw(rng, n)
                for method, interval in METHODS.items():
                    low, high = interval(values, options.confidence, options.resamples)
                    held[method] += low <= mean <= high
            for method, count in held.items():
                coverage.setdefault(f"{name}, {method}", {})[n] = 100 * count / options.samples
    print(f"{'per cent that hold the true mean':34}" + "".join(f"{n:>7}" for n in SIZES))
    for row, found in coverage.items():
        print(f"{row:34}" + "".join(f"{found[n]:7.1f}" for n in SIZES))
    worst = {
        method: min(min(found.values()) for row, found in coverage.items() if row.endswith(method))
        for method in METHODS
    }
    print(json.dumps({"ratio": worst["ours"] / worst["BCa"], "coverage": coverage}))


if __name__ == "__main__":
    main()
