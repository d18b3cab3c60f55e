"""From sums of squares to the noise of tensors and ops: values in, values out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def decibels(signal: float, noise: float) -> float | None:
    """Return 10·log10(signal / noise); None where there is no noise, or no signal to compare it with."""
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def rms(squares: float, elements: int) -> float:
    """Return the root of the mean of `elements` squares that add up to `squares`."""
    return math.sqrt(squares / elements) if elements else 0.0


def contributions(
    caused: Sequence[Mapping[str, float]], signal: Mapping[str, float]
) -> tuple[list[float], list[float], float]:
    """Return each op's noise at the outputs, its share of what all cause, and that whole.

    `caused` has for each op, `signal` for float32, the sum of squares at each output. Noise is relative to the
    output's power, at the output where that is most; the whole is the sum over ops at the output where that is most.
    Powers of unrelated errors add up, so the whole is near the artifact's own noise unless errors work together or
    against each other, or are so large that the model no longer answers them in proportion. An output that is always
    0 tells nothing and is left out.
    """
    outputs = [name for name, power in signal.items() if power > 0]
    totals = {name: sum(op[name] for op in caused) for name in outputs}
    noise = [max((op[name] / signal[name] for name in outputs), default=0.0) for op in caused]
    shares = [max((op[name] / totals[name] for name in outputs if totals[name] > 0), default=0.0) for op in caused]
    return noise, shares, max((totals[name] / signal[name] for name in outputs), default=0.0)
