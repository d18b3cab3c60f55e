"""Rules about two sets side by side: what the model is calibrated on should be what it is judged on, but not the same.

Only inputs are compared. Nothing found here changes an artifact.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from quantbuild.lint.facts import Image, InputFacts, SetFacts
from quantbuild.lint.findings import Finding, Severity, numbers_text
from quantbuild.lint.set_rules import NEIGHBOURS_APART, can_repeat

SPREAD_APART, MEAN_APART = 1.5, 0.5
"""Of pictures: ratio of the standard deviations, and distance of the means in the smaller one. The sets of the examples
differ by 1.01 and 0.01; [0, 1] against [−1, 1] is 2.0 and, of pictures as dark as clothes, 2.0."""
ENDS_APART = 0.25
"""Share of the smaller range by which lowest or highest values must differ to be another scale and no other scene."""
COLUMN_SPREAD, COLUMN_MEAN = (4.0, 16.0), (1.0, 2.0)
"""Of other inputs, in the middle one of the columns, from which it is a warning and an error. A set of recordings may
well be 12 dB louder than another, 24 dB are another scale."""
FEW_COLUMN_SAMPLES = 20
NEIGHBOURS_DIFFER = 0.4
ROUGHER = 1.5
CHANNELS_ALIKE = 0.2
"""Ratio of how much the first and last channel differ from picture to picture, below which they were mixed up."""
SURE = 6.0
"""Standard errors between two means that are not one by chance."""


def findings(calibration: SetFacts, evaluation: SetFacts) -> list[Finding]:
    """Return how the calibration set's inputs differ from the evaluation set's."""
    others = {each.name: each for each in evaluation.inputs}
    found = list(_overlap(calibration, evaluation))
    for each in calibration.inputs:
        other = others.get(each.name)
        if other is not None and each.std and other.std:
            found += _one_input(calibration, each, evaluation, other)
    return found


def _one_input(calibration: SetFacts, each: InputFacts, evaluation: SetFacts, other: InputFacts) -> Iterator[Finding]:
    place = f'{calibration.dataset}: input "{each.name}"'
    if each.image is None or other.image is None:
        yield from _columns(place, calibration, each, evaluation, other)
        return
    noise = list(_noise(place, calibration, each.image, evaluation, other.image))
    yield from noise
    yield from _range(place, calibration, each, evaluation, other)
    if not noise:
        yield from _layout(place, calibration, each.image, evaluation, other.image)
    yield from _channel_order(place, calibration, each.image, evaluation, other.image)


def _range(
    place: str, calibration: SetFacts, each: InputFacts, evaluation: SetFacts, other: InputFacts
) -> Iterator[Finding]:
    """Another normalization moves the ends of the range; another scene, brighter or darker, moves mean and spread."""
    assert each.std and other.std
    assert None not in (each.mean, other.mean, each.low, each.high, other.low, other.high)
    mean, other_mean = each.mean or 0.0, other.mean or 0.0
    low, high, other_low, other_high = (value or 0.0 for value in (each.low, each.high, other.low, other.high))
    spread = max(each.std / other.std, other.std / each.std)
    shift = abs(mean - other_mean) / min(each.std, other.std)
    if spread < SPREAD_APART and shift < MEAN_APART:
        return
    smaller = min(high - low, other_high - other_low)
    ends = max(abs(low - other_low), abs(high - other_high)) / smaller
    severity: Severity = "error" if ends > ENDS_APART else "warning"
    why = "prepare both in the same way (scale, mean and std)" if severity == "error" else "draw both from one source"
    message = (
        f"{place} goes from {low:.4g} to {high:.4g} (mean {mean:.4g}, standard deviation {each.std:.4g}), that of "
        f"{evaluation.dataset} from {other_low:.4g} to {other_high:.4g} ({other_mean:.4g}, {other.std:.4g}); {why}"
    )
    figures = {"input": each.name, "spread_ratio": spread, "mean_shift": shift, "ends": ends}
    yield Finding(rule="range", severity=severity, subject=calibration.dataset, message=message, figures=figures)


def _columns(
    place: str, calibration: SetFacts, each: InputFacts, evaluation: SetFacts, other: InputFacts
) -> Iterator[Finding]:
    """Of the last axis' columns the middle one decides: single features may have long tails."""
    if each.kind != "numbers" or min(calibration.looked_at, evaluation.looked_at) < FEW_COLUMN_SAMPLES:
        return
    columns = [
        (mean, std, other_mean, other_std)
        for mean, std, other_mean, other_std in zip(
            each.column_mean, each.column_std, other.column_mean, other.column_std, strict=False
        )
        if std > 0 and other_std > 0
    ]
    if not columns:
        return
    spread = median(max(std / other_std, other_std / std) for _, std, _, other_std in columns)
    shift = median(abs(mean - other_mean) / min(std, other_std) for mean, std, other_mean, other_std in columns)
    passed = [spread >= COLUMN_SPREAD[level] or shift >= COLUMN_MEAN[level] for level in (0, 1)]
    if not passed[0]:
        return
    severity: Severity = "error" if passed[1] else "warning"
    message = (
        f"{place} has {spread:.3g} times the spread or the inverse, and a mean {shift:.3g} standard deviations away, "
        f"of {evaluation.dataset}'s (the middle one of {len(columns)} columns); prepare both in the same way"
    )
    figures = {"input": each.name, "spread_ratio": spread, "mean_shift": shift, "columns": len(columns)}
    yield Finding(rule="range", severity=severity, subject=calibration.dataset, message=message, figures=figures)


def _noise(place: str, calibration: SetFacts, image: Image, evaluation: SetFacts, other: Image) -> Iterator[Finding]:
    """Neighbours that have nothing in common, where they have in the evaluation set."""
    own = max(abs(image.down), abs(image.across))
    theirs = max(other.down, other.across)
    if own >= NEIGHBOURS_APART or theirs - own < NEIGHBOURS_DIFFER / 2:
        return
    message = (
        f"{place} looks like random noise beside {evaluation.dataset}: neighbouring pixels correlate by "
        f"{own:.2f} here and {theirs:.2f} there; give it real samples, read in the model's layout"
    )
    figures = {"own": own, "evaluation": theirs}
    yield Finding(rule="noise", severity="error", subject=calibration.dataset, message=message, figures=figures)


def _layout(place: str, calibration: SetFacts, image: Image, evaluation: SetFacts, other: Image) -> Iterator[Finding]:
    problem = _layout_problem(image, other)
    if problem is None:
        return
    severity, text = problem
    figures = {
        "down": image.down, "across": image.across, "evaluation_down": other.down, "evaluation_across": other.across,
    }  # fmt: skip
    message = (
        f"{place} {text}: neighbouring pixels correlate by {image.down:.2f} down and {image.across:.2f} across, those "
        f"of {evaluation.dataset} by {other.down:.2f} and {other.across:.2f}; read both in the model's layout and size"
    )
    yield Finding(rule="layout", severity=severity, subject=calibration.dataset, message=message, figures=figures)


def _layout_problem(image: Image, other: Image) -> tuple[Severity, str] | None:
    straight = abs(image.down - other.down) + abs(image.across - other.across)
    swapped = abs(image.down - other.across) + abs(image.across - other.down)
    if straight >= 0.3 and swapped < straight / 2:
        return "warning", "seems to have height and width swapped"
    if max(abs(image.down - other.down), abs(image.across - other.across)) > NEIGHBOURS_DIFFER:
        return "error", "has another structure"
    rougher = min(
        (1 - own) / (1 - theirs) if theirs < 1 else 1.0
        for own, theirs in ((image.down, other.down), (image.across, other.across))
    )
    if len(image.channel_mean) > 1 and rougher >= ROUGHER:
        varies, varies_there = image.first_minus_last_std, other.first_minus_last_std
        scale = max(image.channel_std) / max(*other.channel_std, 1e-12)
        if varies < CHANNELS_ALIKE * varies_there * scale:
            return "error", "seems to be channels first, forced into the shape of channels last"
    return None


def _channel_order(
    place: str, calibration: SetFacts, image: Image, evaluation: SetFacts, other: Image
) -> Iterator[Finding]:
    """RGB against BGR: the first channel exceeds the last one here as much as it falls short of it there."""
    own, theirs = image.first_minus_last, other.first_minus_last
    error = (
        image.first_minus_last_std**2 / max(calibration.looked_at, 1)
        + other.first_minus_last_std**2 / max(evaluation.looked_at, 1)
    ) ** 0.5
    if error == 0 or own * theirs >= 0 or abs(own - theirs) < SURE * error or abs(own + theirs) > abs(own - theirs) / 2:
        return
    message = (
        f"{place} seems to have its channels in reverse (BGR for RGB): the first exceeds the last by {own:.3g}, in "
        f"{evaluation.dataset} by {theirs:.3g}; read both in the same order"
    )
    figures = {"first_minus_last": own, "evaluation": theirs, "standard_error": error}
    yield Finding(
        rule="channel_order", severity="warning", subject=calibration.dataset, message=message, figures=figures
    )


def _overlap(calibration: SetFacts, evaluation: SetFacts) -> Iterator[Finding]:
    judged = set(evaluation.digests)
    shared = [
        number for number, digest in zip(calibration.numbers, calibration.digests, strict=True) if digest in judged
    ]
    if not shared or can_repeat(calibration):
        return
    share = len(shared) / len(calibration.digests)
    message = (
        f"{calibration.dataset}: {len(shared)} of {len(calibration.digests)} samples ({numbers_text(shared)}) are in "
        f"{evaluation.dataset}, too: the loss measured there flatters; take them out of one of the two"
    )
    figures = {"shared": len(shared), "share": share, "samples": shared[:20]}
    yield Finding(rule="overlap", severity="warning", subject=calibration.dataset, message=message, figures=figures)
