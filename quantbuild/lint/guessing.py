"""Rule about the model itself: a figure that no quantization explains and that a limit against float32 never sees."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from quantbuild.lint.findings import Finding

# How likely mere guessing must reach float32's figure for it to be worth a word: that of a two-sided 95 % interval.
_LIKELY = 0.025
_ANSWERS = {"top1": 1, "top5": 5}
"""How many classes the metric lets a model name."""


def findings(model: str, evaluation: Mapping[str, Any]) -> Iterator[Finding]:
    """Warn where float32, by its evaluation.json, is right no more often than guessing would be.

    The order of the classes and the preprocessing are what is wrong then, as a rule. Every variant still agrees with
    float32, and every limit on the loss is kept.
    """
    answers = _ANSWERS.get(evaluation.get("metric", ""))
    outputs = list(evaluation.get("outputs") or ())
    if answers is None or evaluation["value"] is None or len(outputs) != 1:
        return
    classes, n, value = outputs[0]["elements"], evaluation["n"], evaluation["value"]
    if classes <= answers or at_least(round(value * n), n, answers / classes) < _LIKELY:
        return
    message = (
        f"{model}: float32 itself is right on {value:.2%} of {n} evaluation samples, as guessing among {classes} "
        "classes may be; check the preprocessing, and whether the labels number the classes as the model does"
    )
    yield Finding(rule="guessing", severity="warning", subject=model, message=message, figures={"value": value, "n": n})


def at_least(successes: int, n: int, p: float) -> float:
    """Return the probability of `successes` or more of `n` independent tries of probability 0 < `p` < 1."""
    scale = math.lgamma(n + 1)
    return math.fsum(
        math.exp(scale - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(successes, n + 1)
    )
