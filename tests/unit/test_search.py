from __future__ import annotations

import math

import pytest

from quantbuild.drivers.search import Budget, Judged, Units, pareto, prefix, pruned, ranks, shortest_prefix

COUNT = 60


def needing(culprits: set[int]) -> Budget:
    """A model that meets its limit once all `culprits` are kept; each unit kept raises the SQNR a little."""
    return Budget(lambda units: Judged(culprits <= units, float(len(units))), 100, {frozenset(): Judged(False, 0.0)})


@pytest.mark.parametrize("last", [0, 1, 2, 3, 4, 15, 16, 30, 58, 59])
def test_the_shortest_sufficient_prefix_is_found(last: int) -> None:
    budget = needing({last})
    assert shortest_prefix(COUNT, budget, -math.inf) == prefix(last + 1)


def test_few_culprits_take_few_trials() -> None:
    budget = needing({0, 2})
    assert pruned(shortest_prefix(COUNT, budget, -math.inf) or frozenset(), [1.0] * COUNT, budget, -math.inf) == {0, 2}
    assert 100 - budget.left <= 7


@pytest.mark.parametrize("culprits", [{0}, {1, 5}, {2, 3, 9}, {0, 7}])
def test_what_a_prefix_holds_without_need_is_dropped(culprits: set[int]) -> None:
    budget = needing(culprits)
    found = shortest_prefix(COUNT, budget, -math.inf)
    assert found is not None
    assert pruned(found, [float(unit) for unit in range(COUNT)], budget, -math.inf) == culprits


def test_the_costliest_is_dropped_first_where_trials_run_out() -> None:
    budget = needing({3})
    assert shortest_prefix(COUNT, budget, -math.inf) == prefix(4)
    budget.left = 1
    assert pruned(prefix(4), [1.0, 5.0, 2.0, 4.0], budget, -math.inf) == {0, 2, 3}


@pytest.mark.parametrize("most", range(12))
def test_no_more_is_judged_than_the_budget_allows(most: int) -> None:
    judged: list[Units] = []

    def judge(units: Units) -> Judged:
        judged.append(units)
        return Judged({20, 30} <= units, float(len(units)))

    budget = Budget(judge, most, {frozenset(): Judged(False, 0.0)})
    found = shortest_prefix(COUNT, budget, -math.inf)
    if found is not None:
        assert budget.judged[pruned(found, [1.0] * COUNT, budget, -math.inf)].meets_limit
    assert len(judged) <= most
    assert len(set(judged)) == len(judged)


def test_more_sqnr_than_was_not_enough_is_asked_for() -> None:
    budget = needing({0})
    assert shortest_prefix(COUNT, budget, 20.0) == prefix(21)


def test_nothing_suffices_where_nothing_does() -> None:
    assert shortest_prefix(COUNT, Budget(lambda units: Judged(False, 0.0), 100, {}), -math.inf) is None


def test_the_front_holds_what_no_other_beats() -> None:
    assert pareto([(10, 20.0), (12, 20.0), (12, 25.0), (9, 10.0), (10, 20.0)]) == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("units", "text"), [(set(), ""), ({0}, "1"), ({0, 1, 2}, "1-3"), ({1, 3}, "2+4"), ({0, 1, 4, 8, 9}, "1-2+5+9-10")]
)
def test_units_are_told_by_their_ranks(units: set[int], text: str) -> None:
    assert ranks(frozenset(units)) == text
