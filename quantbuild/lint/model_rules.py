"""Rules about a model's tensors, from their calibration statistics, and about its first layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantbuild.lint.facts import InputFacts
from quantbuild.lint.findings import Finding, Severity, numbers_text
from quantbuild.lint.rules import Rule

HALVES_APART = 2.0
MANY_TENSORS = 0.1
FEWEST_IN_A_HALF = 10
STEPS = 255
COARSE = 0.25
"""Of a tensor's root mean square: a step larger than that leaves most values on a few integers."""
FEWEST_FOR_TWO_KINDS = 20
HARDER = 5.0
SEPARATE = 4.0
"""Ashman's D of two groups: √2·|μ₁ − μ₂| / √(σ₁² + σ₂²). A normal distribution cut in the middle has 2.7."""
SHOWN = 3
KEPT = 20
HARDEST = 3
FACTOR_OF_PIXELS = 1 / 16
UNEVEN = 16.0
"""The loudest channel over the middle one, from which half of the channels have at most 16 of int8's 255 steps. Trained
nets without a fault had up to 7 (docs/quality.md's), one whose channels were scaled log-normally 46."""
FEWEST_CHANNELS = 4
LEAST_REACH = 0.05
"""After the model's own scaling by 1/255 or the like, pictures reach about 1 or 2, and scaled ones 0.004 or 0.008."""


class Extremes(NamedTuple):
    """What each calibration sample drove each tensor to."""

    dataset: str
    names: tuple[str, ...]
    """[tensors]"""
    numbers: list[int]
    """[samples] in the dataset"""
    low: NDArray[np.float32]
    """[samples, tensors]"""
    high: NDArray[np.float32]
    """[samples, tensors]"""


def unstable(extremes: Extremes) -> list[Finding]:
    """Return whether the ranges depend on which samples were drawn: every other sample against the rest."""
    dataset, names, _, low, high = extremes
    if len(low) < 2 * FEWEST_IN_A_HALF:
        return []
    widths = [high[part::2].max(axis=0) - low[part::2].min(axis=0) for part in (0, 1)]
    wide, narrow = np.maximum(*widths).astype(np.float64), np.minimum(*widths).astype(np.float64)
    ratio = np.divide(wide, narrow, out=np.ones_like(wide), where=narrow > 0)
    ratio[(narrow == 0) & (wide > 0)] = math.inf
    apart = np.flatnonzero(ratio > HALVES_APART)
    if len(apart) <= MANY_TENSORS * len(ratio):
        return []
    worst = int(ratio.argmax())
    message = (
        f"{dataset}: the ranges of {len(apart)} of {len(ratio)} tensors differ more than twofold between two halves of "
        f'the samples ("{names[worst]}" by {ratio[worst]:.3g}); give it more samples, or more typical ones'
    )
    figures = {"tensors": len(apart), "of": len(ratio), "worst": names[worst]}
    return [Finding(rule="unstable", severity="warning", subject=dataset, message=message, figures=figures)]


def coarse_step(extremes: Extremes, power: NDArray[np.float64]) -> list[Finding]:
    """Return the tensors that an int8 step over their whole range, 0 included, is coarse for.

    `power` is each tensor's mean square, [tensors].
    """
    dataset, names, numbers, low, high = extremes
    bottom, top = np.minimum(low.min(axis=0), 0), np.maximum(high.max(axis=0), 0)
    step = (top.astype(np.float64) - bottom) / STEPS
    rms = np.sqrt(power)
    reach = np.maximum(np.abs(low), np.abs(high))
    coarse = [
        _Coarse(names[row], float(step[row]), float(rms[row]), _hardest(reach[:, row], numbers))
        for row in np.flatnonzero((rms > 0) & (step > COARSE * rms)).tolist()
    ]
    if not coarse:
        return []
    coarse.sort(key=lambda found: -found.step / found.rms)
    named = ", ".join(
        f'"{found.tensor}" (step {found.step:.3g}, rms {found.rms:.3g}; samples {numbers_text(found.samples)} reach '
        "furthest)"
        for found in coarse[:SHOWN]
    )
    message = (
        f"{dataset}: over its whole range an int8 step is coarse for {_tensors(len(coarse))}: {named}; look at those "
        "samples, and try other ranges, such as sample_mean"
    )
    return [_about_tensors("coarse_step", message, coarse)]


def bimodal(extremes: Extremes) -> list[Finding]:
    """Return the tensors that some samples drive much further than the others do, with nothing between."""
    dataset, names, numbers, low, high = extremes
    if len(low) < FEWEST_FOR_TWO_KINDS:
        return []
    reach = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    driven = []
    for row, name in enumerate(names):
        hard, ratio = _two_kinds(reach[:, row])
        if hard:
            driven.append(_Driven(name, ratio, len(hard) / len(low), [numbers[at] for at in hard[:KEPT]]))
    if not driven:
        return []
    driven.sort(key=lambda found: -found.ratio)
    first = driven[0]
    message = (
        f"{dataset}: its samples are of two kinds for {_tensors(len(driven))}: samples {numbers_text(first.samples)} "
        f'({first.share:.0%}) drive "{first.tensor}" {first.ratio:.3g} times as far as the others do; see whether they '
        "are typical, and try other ranges, such as sample_mean"
    )
    return [_about_tensors("bimodal", message, driven)]


def uneven_channels(dataset: str, magnitudes: Sequence[tuple[str, NDArray[np.float32]]]) -> list[Finding]:
    """Return the tensors of whose channels one is far louder than half of the others, which share its int8 step.

    `magnitudes` are names of tensors with the largest magnitude of each channel, [channels]; channels that are always 0
    do not count.
    """
    uneven = []
    for name, largest in magnitudes:
        alive = largest[largest > 0].astype(np.float64)
        if len(alive) >= FEWEST_CHANNELS and alive.max() > UNEVEN * np.median(alive):
            uneven.append(_Uneven(name, float(alive.max() / np.median(alive)), len(alive)))
    if not uneven:
        return []
    uneven.sort(key=lambda found: -found.ratio)
    first = uneven[0]
    message = (
        f"{dataset}: one channel is far louder than most in {_tensors(len(uneven))}: in "
        f'"{first.tensor}" {first.ratio:.3g} times the middle one of {first.channels}, which leaves the others few '
        'steps of int8; if int8 loses too much, try equalize = true, or scheme = "mixed"'
    )
    return [_about_tensors("uneven_channels", message, uneven, "info")]


class _Uneven(NamedTuple):
    tensor: str
    ratio: float
    channels: int


class _Coarse(NamedTuple):
    tensor: str
    step: float
    rms: float
    samples: list[int]


class _Driven(NamedTuple):
    tensor: str
    ratio: float
    share: float
    samples: list[int]


def _about_tensors(
    rule: Rule, message: str, found: Sequence[_Coarse | _Driven | _Uneven], severity: Severity = "warning"
) -> Finding:
    figures = {"count": len(found), "tensors": [each._asdict() for each in found[:KEPT]]}
    return Finding(rule=rule, severity=severity, subject=found[0].tensor, message=message, figures=figures)


def _hardest(reach: NDArray[np.float32], numbers: list[int]) -> list[int]:
    return [numbers[at] for at in np.argsort(-reach, kind="stable")[:HARDEST].tolist()]


def _two_kinds(reach: NDArray[np.float64]) -> tuple[list[int], float]:
    """Return the samples of the group that reaches further, and how much further; none where there is one group.

    The groups are those that a threshold on the logarithm divides best (Otsu, 1979).
    """
    if reach.max() <= 0:
        return [], 1.0
    logs = np.log(np.maximum(reach, reach.max() * 1e-6))
    order = np.argsort(logs, kind="stable")
    ordered = logs[order]
    count = len(ordered)
    sums, squares = np.cumsum(ordered), np.cumsum(ordered**2)
    lower = np.arange(1, count)
    means = sums[:-1] / lower, (sums[-1] - sums[:-1]) / (count - lower)
    between = lower * (count - lower) * (means[1] - means[0]) ** 2
    cut = int(between.argmax())
    upper = count - lower[cut]
    apart = float(means[1][cut] - means[0][cut])
    spread = (
        squares[cut] / lower[cut] - means[0][cut] ** 2,
        (squares[-1] - squares[cut]) / upper - means[1][cut] ** 2,
    )
    separation = math.sqrt(2) * apart / math.sqrt(max(sum(spread), 1e-12))
    if not (2 <= upper <= count / 2 and apart >= math.log(HARDER) and separation >= SEPARATE):
        return [], 1.0
    return sorted(order[cut + 1 :].tolist()), math.exp(apart)


def first_layers(dataset: str, each: InputFacts, scaling: tuple[float, float] | None) -> list[Finding]:
    """Return whether an input was scaled already that the model scales itself.

    `scaling` is (factor, offset) of the model's first layers on that input; None where they do something else.
    """
    if scaling is None or each.low is None or each.high is None or each.high <= each.low:
        return []
    factor, _ = scaling
    if abs(factor) > FACTOR_OF_PIXELS or abs(factor) * (each.high - each.low) >= LEAST_REACH:
        return []
    message = (
        f'{dataset}: input "{each.name}" goes from {each.low:.4g} to {each.high:.4g}, and the model itself multiplies '
        f"it by {factor:.4g}, which leaves hardly anything; give it the values before scaling (such as 0 to 255)"
    )
    figures = {"input": each.name, "low": each.low, "high": each.high, "factor": factor}
    severity: Severity = "error" if each.image is not None else "warning"
    return [Finding(rule="first_layers", severity=severity, subject=dataset, message=message, figures=figures)]


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"
