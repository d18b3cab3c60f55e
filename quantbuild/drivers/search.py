"""Finds few units of a ranked list that, kept at higher precision, make an artifact meet its limit: pure.

A unit is an activation tensor with its producer and its consumers; the list is ranked by expected noise, the noisiest
first. The shortest prefix that suffices is found by growing and then halving; what that prefix holds without need is
dropped, the costliest first. Trials are counted: a set of units is judged once, and known ones cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Units = frozenset[int]
GROWTH = 4
"""The prefix grows by this factor: mostly few units suffice, and a short prefix is soon tried."""


class Judged(NamedTuple):
    """What the selection samples say of one set of units."""

    meets_limit: bool
    sqnr_db: float


class Budget:
    """Judges sets of units, each once, until `most` have been judged."""

    def __init__(self, judge: Callable[[Units], Judged], most: int, known: Mapping[Units, Judged]) -> None:
        self._judge = judge
        self.left = most
        self.judged: dict[Units, Judged] = dict(known)

    def __call__(self, units: Units) -> Judged | None:
        """Return the judgement of `units`, None where it is not known and the budget is spent."""
        if units not in self.judged:
            if self.left <= 0:
                return None
            self.left -= 1
            self.judged[units] = self._judge(units)
        return self.judged[units]


def shortest_prefix(count: int, budget: Budget, least_sqnr_db: float) -> Units | None:
    """Return the shortest prefix found that suffices: it meets the limit and has more than `least_sqnr_db`.

    SQNR grows with the prefix where accuracy need not, so both are asked for. None where no prefix was found to
    suffice.
    """

    def suffices(length: int) -> bool | None:
        judged = budget(prefix(length))
        return None if judged is None else judged.meets_limit and judged.sqnr_db > least_sqnr_db

    failing, passing, length = 0, None, 1
    while failing < count and passing is None:
        length = min(length, count)
        found = suffices(length)
        if found is None:
            return None
        if found:
            passing = length
        else:
            failing, length = length, length * GROWTH
    while passing is not None and passing - failing > 1:
        middle = (failing + passing) // 2
        found = suffices(middle)
        if found is None:
            break
        failing, passing = (failing, middle) if found else (middle, passing)
    return None if passing is None else prefix(passing)


def pruned(units: Units, costs: Sequence[float], budget: Budget, least_sqnr_db: float) -> Units:
    """Return `units` without those that are not needed, as far as the budget lets that be known.

    The last unit of a shortest prefix is needed: the prefix without it was judged.
    """
    for unit in sorted(units, key=lambda unit: (-costs[unit], unit)):
        rest = units - {unit}
        if not rest:
            break
        judged = budget(rest)
        if judged is None:
            break
        if judged.meets_limit and judged.sqnr_db > least_sqnr_db:
            units = rest
    return units


def prefix(length: int) -> Units:
    """Return the first `length` units."""
    return frozenset(range(length))


def ranks(units: Units) -> str:
    """Return units by their ranks, from 1, in words short enough for a name: ``1-3+6``."""
    runs: list[list[int]] = []
    for unit in sorted(units):
        if runs and unit == runs[-1][-1] + 1:
            runs[-1].append(unit)
        else:
            runs.append([unit])
    return "+".join(f"{run[0] + 1}" if len(run) == 1 else f"{run[0] + 1}-{run[-1] + 1}" for run in runs)


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Return which (cost, SQNR) points are on the front: no other is as cheap and as good, and better in one."""
    return [
        not any(
            other_cost <= cost and other_sqnr >= sqnr and (other_cost, other_sqnr) != (cost, sqnr)
            for other_cost, other_sqnr in points
        )
        for cost, sqnr in points
    ]
