"""The one place that turns numbers into text, for the page, the terminal and every message."""

from __future__ import annotations

import re
from fractions import Fraction

NOT_MEASURED = "not measured"
MINUS = "\N{MINUS SIGN}"
FRACTION_METRICS = ("top1", "top5", "agreement")
"""Metrics that are a share of the samples and read as per cent."""


def size(size_bytes: float | None) -> str:
    """Return a file or memory size, decimal: ``987 B``, ``271.5 kB``, ``4.03 MB``."""
    if size_bytes is None:
        return NOT_MEASURED
    if abs(size_bytes) < 1000:
        return f"{_signless(size_bytes, 0)} B"
    if abs(size_bytes) < 999_950:
        return f"{_signless(size_bytes / 1e3, 1)} kB"
    unit, scale = ("MB", 1e6) if abs(size_bytes) < 999.5e6 else ("GB", 1e9)
    return f"{significant(size_bytes / scale, 3)} {unit}"


def milliseconds(value_ms: float | None) -> str:
    """Return a duration of an inference with three significant digits: ``0.0123 ms``, ``12.3 ms``."""
    return NOT_MEASURED if value_ms is None else f"{significant(value_ms, 3)} ms"


def seconds(value: float | None) -> str:
    """Return how long a step took: ``0.4 s``, ``83 s``."""
    if value is None:
        return NOT_MEASURED
    return f"{_signless(value, 1 if value < 10 else 0)} s"


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share of one as per cent: ``98.67 %``."""
    return NOT_MEASURED if share is None else f"{_signless(share * 100, digits)} %"


def points(difference: float | None, digits: int = 2) -> str:
    """Return a difference of two shares, with its sign: ``+0.33 points`` for 0.0033."""
    return NOT_MEASURED if difference is None else f"{_signed(difference * 100, digits)} points"


def points_interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Return an interval around a difference of shares: ``−0.47 to +1.12 points``."""
    if low is None or high is None:
        return NOT_MEASURED
    return f"{_signed(low * 100, digits)} to {_signed(high * 100, digits)} points"


def decibels(value: float | None) -> str:
    """Return a ratio of powers: ``42.1 dB``."""
    return NOT_MEASURED if value is None else f"{_signless(value, 1)} dB"


def ratio(value: float | None) -> str:
    """Return a quotient with three significant digits: ``0.329×``."""
    return NOT_MEASURED if value is None else f"{significant(value, 3)}×"


def count(value: int | None) -> str:
    """Return a whole number, thousands set apart: ``1,234``."""
    return NOT_MEASURED if value is None else _signless(value, 0)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 variant``, ``2 variants``."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def metric_value(metric: str, value: float | None) -> str:
    """Return a figure in its metric's unit: per cent for shares, dB for sqnr, else four significant digits."""
    if metric in FRACTION_METRICS:
        return percent(value)
    if metric == "sqnr":
        return decibels(value)
    return NOT_MEASURED if value is None else significant(value, 4)


def metric_difference(metric: str, difference: float | None) -> str:
    """Return a signed difference of two figures of a metric: ``+0.33 points``, ``−1.2 dB``, ``+0.0125``."""
    if metric in FRACTION_METRICS:
        return points(difference)
    if difference is None:
        return NOT_MEASURED
    return f"{_signed(difference, 1)} dB" if metric == "sqnr" else _signed_significant(difference)


def metric_interval(metric: str, low: float | None, high: float | None) -> str:
    """Return the two ends of an interval around a metric's difference."""
    if metric in FRACTION_METRICS:
        return points_interval(low, high)
    if low is None or high is None:
        return NOT_MEASURED
    return f"{_signed_significant(low)} to {_signed_significant(high)}"


def significant(value: float, digits: int) -> str:
    """Return `value` with so many significant digits and never an exponent: ``0.0123``, ``12.3``, ``1,234``."""
    if value == 0:
        return "0"
    # The exponent after rounding, so that 9.996 has three digits as 10.0 and not as 10.00.
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return _signless(value, max(digits - 1 - exponent, 0))


def _signless(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace("-", MINUS)


def _signed(value: float, digits: int) -> str:
    text = f"{value:+,.{digits}f}".replace("-", MINUS)
    # A difference that rounds to nothing has no direction.
    return text[1:] if float(f"{value:.{digits}f}") == 0 else text


def _signed_significant(value: float) -> str:
    text = significant(value, 3)
    return f"+{text}" if value > 0 else text


_SIZE_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "": 1}


def parse_size(text: str) -> int | None:
    """Return the bytes that "500MB" or "2 GiB" means (SI and binary prefixes), None where it is no size."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _SIZE_UNITS:
        return None
    return int(Fraction(match[1]) * _SIZE_UNITS[match[2].upper()])  # a float has no room for very large ones
