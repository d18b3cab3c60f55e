"""Differences of numbers as people write them."""

from __future__ import annotations

import math
from decimal import Decimal


def difference(one: float, other: float) -> float:
    """Return `one` less `other`, of the decimals that they are written as: 0.83 − 0.82 is 0.01.

    In binary it is 0.010000000000000009, and a loss of one sample in a hundred would miss a limit of one point.
    """
    if not (math.isfinite(one) and math.isfinite(other)):
        return one - other
    return float(Decimal(repr(float(one))) - Decimal(repr(float(other))))
