"""Doubts about a model itself: figures that no quantization explains and that a limit against float32 never sees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quantbuild import units

Json = Mapping[str, Any]

# How likely mere guessing must reach float32's figure for it to be worth a word: that of a two-sided 95 % interval.
_LIKELY = 0.025
_ANSWERS = {"top1": 1, "top5": 5}
"""How many classes the metric lets a model name."""


def guessing(model: Json) -> str | None:
    """Return a sentence where float32 is right no more often than guessing would be; None where it is, or is no judge.

    The order of the classes and the preprocessing are what is wrong then, as a rule. Every variant still agrees with
    float32, and every limit on the loss is kept.
    """
    reference = model["variants"][0]
    accuracy, outputs = reference["accuracy"], (reference["artifact"] or {}).get("outputs") or []
    answers = _ANSWERS.get(model["metric"])
    if answers is None or accuracy is None or accuracy["value"] is None or len(outputs) != 1:
        return None
    classes, n = outputs[0]["shape"][-1], accuracy["n"]
    if classes <= answers or at_least(round(accuracy["value"] * n), n, answers / classes) < _LIKELY:
        return None
    return (
        f"{model['name']}: float32 itself is right on {units.percent(accuracy['value'])} of "
        f"{units.counted(n, 'sample')}, as guessing among {units.count(classes)} classes may be. "
        "Check the preprocessing, and whether the labels number the classes as the model does."
    )


def at_least(successes: int, n: int, p: float) -> float:
    """Return the probability of `successes` or more of `n` independent tries of probability 0 < `p` < 1."""
    scale = math.lgamma(n + 1)
    return math.fsum(
        math.exp(scale - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p))
        for k in range(successes, n + 1)
    )
