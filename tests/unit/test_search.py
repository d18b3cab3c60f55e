from __future__ import annotations

import math

import pytest

from quantbuild.drivers.search import Budget, Judged, Ranking, Units, pareto, pruned, ranks, shortest_prefix

COUNT = 60


def ranking(count: int = COUNT) -> Ranking:
    """Units that have a node each, and one node that no unit has."""
    return Ranking([{unit} for unit in range(count)], nodes=count + 1)


def prefix(length: int) -> Units:
    return frozenset(range(length))


def needing(culprits: set[int]) -> Budget:
    """A model that meets its limit once all `culprits` are kept; each unit kept raises the SQNR a little."""
    return Budget(lambda units: Judged(culprits <= units, float(len(units))), 100, {frozenset(): Judged(False, 0.0)})


@pytest.mark.parametrize("last", [0, 1, 2, 3, 4, 15, 16, 30, 58, 59])
def test_the_shortest_sufficient_prefix_is_found(last: int) -> None:
    budget = needing({last})
    assert shortest_prefix(ranking(), budget, -math.inf) == prefix(last + 1)


def test_few_culprits_take_few_trials() -> None:
    budget = needing({0, 2})
    assert pruned(shortest_prefix(ranking(), budget, -math.inf) or frozenset(), [1.0] * COUNT, budget, -math.inf) == {
        0,
        2,
    }
    assert 100 - budget.left <= 7


@pytest.mark.parametrize("culprits", [{0}, {1, 5}, {2, 3, 9}, {0, 7}])
def test_what_a_prefix_holds_without_need_is_dropped(culprits: set[int]) -> None:
    budget = needing(culprits)
    found = shortest_prefix(ranking(), budget, -math.inf)
    assert found is not None
    assert pruned(found, [float(unit) for unit in range(COUNT)], budget, -math.inf) == culprits


def test_the_costliest_is_dropped_first_where_trials_run_out() -> None:
    budget = needing({3})
    assert shortest_prefix(ranking(), budget, -math.inf) == prefix(4)
    budget.left = 1
    assert pruned(prefix(4), [1.0, 5.0, 2.0, 4.0], budget, -math.inf) == {0, 2, 3}


@pytest.mark.parametrize("most", range(12))
def test_no_more_is_judged_than_the_budget_allows(most: int) -> None:
    judged: list[Units] = []

    def judge(units: Units) -> Judged:
        judged.append(units)
        return Judged({20, 30} <= units, float(len(units)))

    budget = Budget(judge, most, {frozenset(): Judged(False, 0.0)})
    found = shortest_prefix(ranking(), budget, -math.inf)
    if found is not None:
        assert budget.judged[pruned(found, [1.0] * COUNT, budget, -math.inf)].meets_limit
    assert len(judged) <= most
    assert len(set(judged)) == len(judged)


def test_more_sqnr_than_was_not_enough_is_asked_for() -> None:
    budget = needing({0})
    assert shortest_prefix(ranking(), budget, 20.0) == prefix(21)


def test_nothing_suffices_where_nothing_does() -> None:
    assert shortest_prefix(ranking(), Budget(lambda units: Judged(False, 0.0), 100, {}), -math.inf) is None


def test_the_front_holds_what_no_other_beats() -> None:
    assert pareto([(10, 20.0), (12, 20.0), (12, 25.0), (9, 10.0), (10, 20.0)]) == [True, False, True, True, True]


@pytest.mark.parametrize(
    ("units", "text"), [(set(), ""), ({0}, "1"), ({0, 1, 2}, "1-3"), ({1, 3}, "2+4"), ({0, 1, 4, 8, 9}, "1-2+5+9-10")]
)
def test_units_are_told_by_their_ranks(units: set[int], text: str) -> None:
    assert ranks(frozenset(units)) == text


def test_something_stays_int8() -> None:
    """Where the units have all nodes among them, what keeps them all is float32."""
    all_nodes = Ranking([{0, 1}, {1, 2}, {2, 3}, {0, 3}], nodes=4)
    assert shortest_prefix(all_nodes, Budget(lambda units: Judged(len(units) > 1, 0.0), 100, {}), -math.inf) == prefix(
        2
    )
    assert shortest_prefix(all_nodes, Budget(lambda units: Judged(len(units) > 2, 0.0), 100, {}), -math.inf) is None


# Units that no artifact can keep ------------------------------------------------------------------------------------


def harmed(culprits: set[int], unmakeable: set[int], most: int = 100) -> Budget:
    """A model that needs its `culprits` kept, of which nothing can be made with any of `unmakeable`."""

    def judge(units: Units) -> Judged:
        if units & unmakeable:
            return Judged(meets_limit=False, sqnr_db=-math.inf, made=False)
        return Judged(culprits <= units, float(len(units)))

    return Budget(judge, most, {frozenset(): Judged(False, 0.0)})


@pytest.mark.parametrize("unmakeable", [{0}, {1}, {3}, {0, 1, 2}, {4, 5}, {2, 17, 59}, set(range(0, 30, 2)) - {6}])
@pytest.mark.parametrize("last", [0, 1, 5, 6, 16, 35])
def test_a_unit_that_cannot_be_kept_is_left_out_and_the_others_are_looked_at(last: int, unmakeable: set[int]) -> None:
    unmakeable = unmakeable - {last}
    budget, ranked = harmed({last}, unmakeable), ranking()
    assert shortest_prefix(ranked, budget, -math.inf) == prefix(last + 1) - unmakeable
    assert set(ranked.left_out) <= unmakeable
    for unit, units in ranked.left_out.items():  # whose artifact tells why
        assert unit in units
        assert not budget.judged[units].made


def test_what_was_left_out_stays_out_when_more_is_asked_for() -> None:
    budget, ranked = harmed({1}, {2}), ranking()
    assert shortest_prefix(ranked, budget, -math.inf) == {0, 1}
    assert shortest_prefix(ranked, budget, 4.0) == {0, 1, 3, 4, 5}
    assert list(ranked.left_out) == [2]


def test_finding_one_that_cannot_be_kept_takes_few_trials() -> None:
    budget, ranked = harmed({14}, {9}, 16), ranking()
    assert shortest_prefix(ranked, budget, -math.inf) == prefix(15) - {9}
    assert budget.left > 3


@pytest.mark.parametrize("most", range(9))
def test_leaving_out_keeps_to_the_budget(most: int) -> None:
    budget = harmed({40}, {1, 2, 9}, most)
    assert shortest_prefix(ranking(), budget, -math.inf) is None
    assert budget.left == 0
    assert len(budget.judged) == most + 1


def test_where_no_unit_can_be_kept_all_are_left_out() -> None:
    ranked = ranking(5)
    assert shortest_prefix(ranked, harmed({0}, set(range(5))), -math.inf) is None
    assert sorted(ranked.left_out) == [0, 1, 2, 3, 4]


# Trials that the machine fails ----------------------------------------------------------------------------------------


def slow(culprits: set[int], most_units: int) -> Budget:
    """A model of which no more than `most_units` can be kept in the time that there is."""

    def judge(units: Units) -> Judged:
        if len(units) > most_units:
            return Judged(meets_limit=False, sqnr_db=-math.inf, made=False, by_machine=True)
        return Judged(culprits <= units, float(len(units)))

    return Budget(judge, 100, {frozenset(): Judged(False, 0.0)})


@pytest.mark.parametrize("most_units", [0, 1, 2, 3, 5, 9, 15, 40])
@pytest.mark.parametrize("last", [0, 1, 2, 5, 12, 35])
def test_a_prefix_that_the_machine_fails_bars_longer_ones_alone(last: int, most_units: int) -> None:
    budget, ranked = slow({last}, most_units), ranking()
    found = shortest_prefix(ranked, budget, -math.inf)
    assert found == (prefix(last + 1) if last < most_units else None)
    assert ranked.left_out == {}
    failed = [len(units) for units, judged in budget.judged.items() if judged.by_machine]
    assert failed == sorted(failed, reverse=True)  # what is shorter alone is tried again
    assert len(failed) <= 5


def test_dropping_units_ends_where_the_machine_fails() -> None:
    tried = []

    def judge(units: Units) -> Judged:
        tried.append(units)
        return Judged(meets_limit=False, sqnr_db=0.0, made=False, by_machine=True)

    assert pruned(prefix(4), [1.0] * 4, Budget(judge, 100, {}), -math.inf) == prefix(4)
    assert len(tried) == 1
