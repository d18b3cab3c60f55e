"""Intervals against published or independently computed values, and against their definition by brute force."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from quantbuild import statistics

Z95 = 1.959963984540054


def brute_force_tango(b: int, c: int, n: int, z: float) -> tuple[float, float]:
    """The differences not rejected, with the maximum-likelihood estimate found on a grid, no closed form."""
    accepted = []
    for difference in np.linspace(-0.9995, 0.9995, 1000):
        # P(only second) = q, P(only first) = q + difference; every cell between 0 and 1.
        low, high = max(0.0, -difference), (1 - difference) / 2
        q = np.linspace(low, high, 4001)
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = sum(
                np.where(count > 0, count * np.log(cell), 0.0)
                for count, cell in ((b, q + difference), (c, q), (n - b - c, 1 - 2 * q - difference))
            )
        best = q[np.nanargmax(likelihood)]
        variance = n * (2 * best + difference - difference**2)
        if abs(b - c - n * difference) <= z * math.sqrt(max(variance, 0.0)):
            accepted.append(difference)
    return min(accepted), max(accepted)


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 30), (5, 0, 25), (0, 7, 50), (12, 2, 40), (3, 4, 20), (25, 0, 25)])
def test_tangos_interval_is_the_inverted_score_test(b: int, c: int, n: int) -> None:
    expected = brute_force_tango(b, c, n, Z95)
    assert statistics.paired_proportions(b, c, n, 0.95) == pytest.approx(expected, abs=0.003)


def test_tangos_interval_has_the_value_r_gives() -> None:
    # PropCIs::scoreci.mp(25, 28, 618, 0.90) in R, which reports second minus first.
    low, high = statistics.paired_proportions(28, 25, 618, 0.90)
    assert (round(low, 4), round(high, 4)) == (-0.0148, 0.0247)


@pytest.mark.parametrize("n", [1, 10, 500, 50_000])
def test_without_a_flip_the_interval_is_not_zero(n: int) -> None:
    low, high = statistics.paired_proportions(0, 0, n, 0.95)
    # Then the score equation is n·d² = z²·d·(1 − d), so d = z² / (n + z²).
    expected = Z95**2 / (n + Z95**2)
    assert (low, high) == pytest.approx((-expected, expected))


def test_swapping_the_models_mirrors_the_interval() -> None:
    for b, c in product(range(5), range(5)):
        low, high = statistics.paired_proportions(b, c, 20, 0.95)
        assert statistics.paired_proportions(c, b, 20, 0.95) == pytest.approx((-high, -low))
        assert low <= (b - c) / 20 <= high


def test_tangos_interval_covers_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    n, only_first, only_second = 200, 0.04, 0.02
    draws = generator.multinomial(n, [only_first, only_second, 1 - only_first - only_second], size=2000)
    covered = 0
    for b, c, _ in draws:
        low, high = statistics.paired_proportions(int(b), int(c), n, 0.95)
        covered += low <= only_first - only_second <= high
    assert 0.93 <= covered / 2000 <= 0.97


@pytest.mark.parametrize(
    ("k", "n", "confidence", "low", "high"),
    [  # scipy.stats.binomtest(k, n).proportion_ci(confidence, "exact"), scipy 1.17
        (98, 100, 0.95, 0.9296160675, 0.9975686632),
        (0, 10, 0.95, 0.0, 0.3084971078),
        (10, 10, 0.95, 0.6915028922, 1.0),
        (490, 500, 0.99, 0.9576907226, 0.9925265411),
        (3, 7, 0.90, 0.1287563928, 0.7746784160),
    ],
)
def test_clopper_pearson_is_exact(k: int, n: int, confidence: float, low: float, high: float) -> None:
    assert statistics.proportion(k, n, confidence) == pytest.approx((low, high), abs=1e-9)


def bootstrap_t(values: np.ndarray, resamples: int) -> tuple[float, float]:
    """The textbook's procedure in plain loops over another generator's draws."""
    generator = np.random.default_rng(99)
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    ratios = []
    for _ in range(resamples):
        drawn = generator.choice(values, len(values))
        ratios.append((drawn.mean() - mean) / (drawn.std(ddof=1) / math.sqrt(len(values))))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return mean - high * error, mean - low * error


def test_skewed_values_get_the_textbooks_bootstrap_t_where_it_is_wider_than_students() -> None:
    values = (np.arange(1, 61) / 10) ** 2
    low, high = statistics.bootstrap_mean(values, 0.95, resamples=40_000)
    # scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95): 9.4624, 15.1409
    assert low == pytest.approx(9.4624, abs=1e-4)
    assert high == pytest.approx(bootstrap_t(values, 20_000)[1], abs=0.1)
    assert high > 15.2


def test_normal_values_get_about_students_interval() -> None:
    values = np.random.default_rng(3).standard_normal(400)
    half = 1.9659 * values.std(ddof=1) / math.sqrt(400)  # scipy.stats.t.ppf(0.975, 399)
    low, high = statistics.bootstrap_mean(values, 0.95)
    assert low <= values.mean() - half + 1e-6
    assert high >= values.mean() + half - 1e-6
    assert high - low == pytest.approx(2 * half, rel=0.05)


@pytest.mark.parametrize(("draw", "mean", "least"), [("normal", 0.0, 0.94), ("lognormal", math.exp(0.5), 0.885)])
def test_ten_samples_give_an_interval_that_holds_as_often_as_it_is_said_to(
    draw: str, mean: float, least: float
) -> None:
    generator = np.random.default_rng(0)
    make = getattr(generator, draw)
    held = 0
    for _ in range(1000):
        low, high = statistics.bootstrap_mean(make(size=10), 0.95, resamples=400)
        held += low <= mean <= high
    assert held >= least * 1000  # the bias-corrected and accelerated bootstrap: 89.5 and 81.8 %


@pytest.mark.parametrize("values", [[0, 0, 0, 1e-9, 5], [0, 1], [0] * 30 + [1], [1e290, -1e290, 3.0]])
def test_nearly_equal_values_give_an_end_that_means_something(values: list[float]) -> None:
    low, high = statistics.bootstrap_mean(np.array(values, float), 0.95)
    mean, spread = np.mean(values), np.ptp(values)
    assert mean - 30 * spread < low < mean < high < mean + 30 * spread


def test_equal_values_give_their_value() -> None:
    assert statistics.bootstrap_mean(np.full(5, 0.25), 0.95) == (0.25, 0.25)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    values = np.random.default_rng(1).normal(size=300)
    assert statistics.bootstrap_mean(values, 0.95) == statistics.bootstrap_mean(values, 0.95)
    assert statistics.bootstrap_mean(values, 0.95) != statistics.bootstrap_mean(values, 0.95, seed=1)


def test_the_bootstrap_is_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(size=300)
    whole = statistics.bootstrap_mean(values, 0.95)
    monkeypatch.setattr(statistics, "_CHUNK", 1000)
    assert statistics.bootstrap_mean(values, 0.95) == whole


def test_right_or_wrong_scores_take_the_paired_interval() -> None:
    first, second = np.array([1, 1, 0, 1, 0] * 8), np.array([1, 0, 0, 1, 1] * 8)
    assert statistics.paired_mean(first, second, 0.95) == statistics.paired_proportions(8, 8, 40, 0.95)


def test_scores_that_never_differ_still_leave_doubt() -> None:
    scores = np.linspace(0, 1, 50)
    low, high = statistics.paired_mean(scores, scores, 0.95) or (0.0, 0.0)
    assert low < 0 < high
    # exact upper end for 0 of 50, times the spread of the scores
    assert high == pytest.approx(1 - 0.025 ** (1 / 50))


def test_few_differing_scores_widen_the_bootstrap() -> None:
    first = np.linspace(0.2, 0.9, 100)
    second = first.copy()
    second[0] -= 0.5
    low, high = statistics.paired_mean(first, second, 0.95) or (0.0, 0.0)
    assert low < 0 < 0.005 < high


def test_one_graded_sample_gives_no_interval() -> None:
    assert statistics.paired_mean(np.array([0.4]), np.array([0.3]), 0.95) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.01, 0.01, "pass"), (0.011, 0.03, "fail"), (0.01, 0.03, "undecided"), (None, None, "undecided")],
)
def test_a_verdict_needs_the_whole_interval_on_one_side(low: float | None, high: float | None, expected: str) -> None:
    assert statistics.verdict(low, high, 0.01) == expected


def test_latency_is_in_milliseconds_with_p99_from_a_thousand_samples() -> None:
    samples = np.arange(1, 1001) * 1_000_000
    found = statistics.latency_summary(samples)
    assert (found["min"], found["p50"], found["n"]) == (1.0, 500.5, 1000)
    assert found["p99"] == pytest.approx(990.01)
    assert statistics.latency_summary(samples[:999])["p99"] is None


def test_the_relative_range_is_over_the_median() -> None:
    assert statistics.relative_range([1.0, 1.1, 0.9]) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("loss", "interval", "limit", "n", "needed"),
    [
        (0.004, (-0.004, 0.012), 0.008, 500, 2000),  # half the width is left: four times the samples
        (0.02, (0.005, 0.035), 0.01, 100, 230),  # surely beyond, once the lower end is: 225, rounded up
        (0.01, (0.0, 0.02), 0.01, 100, None),  # on neither side: no number of samples is known to decide it
        (0.0099, (0.0, 0.02), 0.01, 100, None),  # 10,000 times as many: as good as on neither side
        (0.004, (0.0, 0.008), 0.01, 100, None),  # decided
        (0.0, (-0.02, 0.02), 0.0199999, 100, 110),  # always more than there are
    ],
)
def test_how_many_samples_would_decide_goes_with_the_square_of_the_width(
    loss: float, interval: tuple[float, float], limit: float, n: int, needed: int | None
) -> None:
    assert statistics.samples_to_decide(loss, interval, limit, n) == needed


def test_as_many_samples_as_estimated_decide_it() -> None:
    """Paired yes/no samples of the same shares, so many times more: the score interval then keeps the limit."""
    lost, won, n, limit = 4, 1, 500, 0.012
    interval = statistics.paired_proportions(lost, won, n, 0.95)
    needed = statistics.samples_to_decide((lost - won) / n, interval, limit, n)
    assert needed is not None
    scale = needed / n
    more = statistics.paired_proportions(round(lost * scale), round(won * scale), needed, 0.95)
    assert statistics.verdict(*more, limit) == "pass"
