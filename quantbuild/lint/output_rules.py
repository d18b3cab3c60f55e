"""Rules about what a variant's outputs did over the evaluation samples, beside float32's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quantbuild.lint.findings import Finding, Severity

CLIPPED, MOSTLY_CLIPPED = 0.01, 0.25
"""Shares of an output's values cut off by more than a step, from which it is a warning and an error."""


def findings(place: str, evaluation: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the outputs of the variant `place`, MODEL/VARIANT, by its evaluation.json."""
    return [
        finding
        for output in evaluation.get("outputs") or ()
        for finding in (*_constant(place, output), *_saturated(place, output))
    ]


def _constant(place: str, output: Mapping[str, Any]) -> Iterator[Finding]:
    """An output that stands still where float32's moves is dead; float32's own may be what the samples ask for."""
    if not output["elements"] or output["constant_elements"] < output["elements"]:
        return
    dead = bool(output["stuck_elements"])
    severity: Severity = "error" if dead else "warning"
    beside = ", and float32's is not" if dead else ""
    message = (
        f'{place}: output "{output["name"]}" is the same for every evaluation sample{beside}; look at the ranges and '
        "the calibration set"
        if dead
        else f'{place}: output "{output["name"]}" is the same for every evaluation sample; look at the samples and the '
        "model's weights"
    )
    figures = {name: output[name] for name in ("name", "elements", "constant_elements", "stuck_elements")}
    yield Finding(rule="constant_output", severity=severity, subject=place, message=message, figures=figures)


def _saturated(place: str, output: Mapping[str, Any]) -> Iterator[Finding]:
    share = output["clipped"] or 0.0
    if share < CLIPPED:
        return
    severity: Severity = "error" if share >= MOSTLY_CLIPPED else "warning"
    message = (
        f'{place}: {share:.1%} of the values of output "{output["name"]}" are cut off at the ends of its '
        "integer range; calibrate on samples that reach as far as the evaluation set's"
    )
    figures = {name: output[name] for name in ("name", "at_low", "at_high", "clipped")}
    yield Finding(rule="saturated_output", severity=severity, subject=place, message=message, figures=figures)
