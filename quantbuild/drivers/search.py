"""Finds few units of a ranked list that, kept at higher precision, make an artifact meet its limit: pure.

A unit is an activation tensor with its producer and its consumers; the list is ranked by expected noise, the noisiest
first. The shortest prefix that suffices is found by growing and then halving; what that prefix holds without need is
dropped, the costliest first. A unit that no artifact can keep is left out. Trials are counted: a set of units is judged
once, and known ones cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import NamedTuple

Units = frozenset[int]
GROWTH = 4
"""The prefix grows by this factor: mostly few units suffice, and a short prefix is soon tried."""


class Judged(NamedTuple):
    """What the selection samples say of one set of units."""

    meets_limit: bool
    sqnr_db: float
    made: bool = True
    """Whether there is an artifact that keeps these units, and it runs."""
    by_machine: bool = False
    """Whether that is not known, since time, memory or room ran out."""

    def suffices(self, least_sqnr_db: float) -> bool:
        """Whether it meets the limit with more than `least_sqnr_db`."""
        return self.meets_limit and self.sqnr_db > least_sqnr_db


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


class Ranking:
    """Units by rank, the noisiest first; those that no artifact can keep are taken out as they are found."""

    def __init__(self, kept: Sequence[Collection[Hashable]], *, nodes: int) -> None:
        """Rank units, the first of them first: `kept` are the nodes of each, of the `nodes` that there are at all."""
        self._kept = kept
        self._nodes = nodes
        self._order = list(range(len(kept)))
        self._most = len(kept)
        self.left_out: dict[int, Units] = {}
        """The units that were taken out, each with the set of units that showed it: there is no artifact of that."""

    def prefix(self, length: int) -> Units:
        """Return the first `length` units."""
        return frozenset(self._order[:length])

    def longest(self) -> int:
        """Return how many units may be kept: something is still int8, and the machine was not seen to fail it."""
        kept: set[Hashable] = set()
        for length, unit in enumerate(self._order):
            kept.update(self._kept[unit])
            if len(kept) == self._nodes:
                return min(length, self._most)
        return min(len(self._order), self._most)

    def stay_below(self, length: int) -> None:
        """Keep fewer than `length` units: the machine failed the artifact of so many."""
        self._most = length - 1

    def leave_out_last_of(self, length: int) -> None:
        """Take out the last of the first `length` units: with it, there is no artifact of them."""
        units = self.prefix(length)
        self.left_out[self._order.pop(length - 1)] = units


def shortest_prefix(ranking: Ranking, budget: Budget, least_sqnr_db: float) -> Units | None:
    """Return the shortest prefix found that suffices: it meets the limit and has more than `least_sqnr_db`.

    SQNR grows with the prefix where accuracy need not, so both are asked for. Where there is no artifact of a prefix,
    the first unit that keeps it from being made is found by halving, and taken out of the ranking. What the machine
    failed bars what is longer: that takes more time, memory and room. None where no prefix was found to suffice.
    """
    failing, unmade, reach = 0, None, 1
    while failing < (longest := ranking.longest()):
        if unmade is not None and unmade - failing == 1:
            ranking.leave_out_last_of(unmade)
            unmade = None
            continue
        length = min(reach, longest) if unmade is None else (failing + unmade) // 2
        judged = budget(ranking.prefix(length))
        if judged is None:
            return None
        if judged.suffices(least_sqnr_db):
            return _halved(ranking, failing, length, budget, least_sqnr_db)
        if judged.by_machine:
            ranking.stay_below(length)
            unmade, reach = None, (failing + length) // 2
        elif not judged.made:
            unmade = length
        else:
            failing = length
            reach = length * GROWTH if unmade is None else reach
    return None


def _halved(ranking: Ranking, failing: int, passing: int, budget: Budget, least_sqnr_db: float) -> Units:
    """Return the shortest prefix found to suffice, between one that does not and one that does."""
    while passing - failing > 1:
        middle = (failing + passing) // 2
        judged = budget(ranking.prefix(middle))
        if judged is None or judged.by_machine:
            break
        failing, passing = (failing, middle) if judged.suffices(least_sqnr_db) else (middle, passing)
    return ranking.prefix(passing)


def pruned(units: Units, costs: Sequence[float], budget: Budget, least_sqnr_db: float) -> Units:
    """Return `units` without those that are not needed, as far as the budget lets that be known.

    The last unit of a shortest prefix is needed: the prefix without it was judged.
    """
    for unit in sorted(units, key=lambda unit: (-costs[unit], unit)):
        rest = units - {unit}
        if not rest:
            break
        judged = budget(rest)
        if judged is None or judged.by_machine:
            break
        if judged.suffices(least_sqnr_db):
            units = rest
    return units


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
