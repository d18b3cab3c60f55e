"""One model on many samples: how many interpreters there are changes neither results nor their order nor what fails."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from wide_models import SIDE, Builder

from quantbuild.tflite import runs
from quantbuild.tflite.feeding import SampleError
from quantbuild.tflite.runs import Runs, Values

COUNT = 40


def log_of_sum() -> bytes:
    """x [1, 50, 50] → log(x + x): not finite where x is negative."""
    build = Builder()
    x = build.input("x", 1, SIDE, SIDE)
    doubled = build.add(x, x, "doubled", 1, SIDE, SIDE)
    return build.finish(build.op("LOG", [doubled], [build.tensor("out", 1, SIDE, SIDE)]))


def samples(bad: int | None = None) -> list[np.ndarray]:
    drawn = np.random.default_rng(3).uniform(1, 2, (COUNT, 1, SIDE, SIDE)).astype(np.float32)
    if bad is not None:
        drawn[bad] = -1
    return list(drawn)


def feeds(made: Runs, given: list[np.ndarray]) -> Iterator[tuple[int, Values]]:
    for number, sample in enumerate(given):
        yield 10 * number, made.binding.feed({"": sample}, number)


@pytest.fixture(params=[0.0, 1e9], ids=["every run is long", "every run is short"])
def _least(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LEAST_SECONDS", request.param)


@pytest.mark.usefixtures("_least")
@pytest.mark.parametrize("interpreters", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 3, COUNT])
def test_results_come_in_order_and_are_those_of_one_run_at_a_time(interpreters: int, count: int) -> None:
    made = Runs(log_of_sum(), interpreters=interpreters)
    given = samples()[:count]
    found = list(made(feeds(made, given)))
    assert [number for number, _ in found] == [10 * number for number in range(count)]
    for (_, outputs), sample in zip(found, given, strict=True):
        np.testing.assert_array_equal(outputs["out"], made.binding.run({"": sample})["out"])


@pytest.mark.usefixtures("_least")
@pytest.mark.parametrize("interpreters", [1, 3])
@pytest.mark.parametrize("bad", [0, 1, 2, COUNT - 1])
def test_a_sample_that_fails_is_named_after_those_before_it(interpreters: int, bad: int) -> None:
    made = Runs(log_of_sum(), interpreters=interpreters)
    seen = []
    with pytest.raises(SampleError, match=f"^sample {10 * bad}: output 'out' holds NaN"):
        for number, _ in made(feeds(made, samples(bad))):
            seen.append(number)
    assert seen == [10 * number for number in range(bad)]


def test_long_runs_use_all_interpreters_and_a_model_with_a_state_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "LEAST_SECONDS", 0.0)
    opened = []
    opener = runs.open_interpreter
    monkeypatch.setattr(runs, "open_interpreter", lambda model: opened.append(1) or opener(model))
    made = Runs(log_of_sum(), interpreters=3)
    list(made(feeds(made, samples())))
    assert len(opened) == 3
    build = Builder()
    x = build.input("x", 2, kind=schema.TensorType.INT32)
    seeded = build.op("RANDOM_UNIFORM", [x], [build.tensor("out", 2, 2)], schema.RandomOptionsT(seed=1, seed2=2))
    opened.clear()
    drawn = Runs(build.finish(seeded), interpreters=3)
    list(drawn((n, drawn.binding.feed({"": np.array([2, 2])}, n)) for n in range(COUNT)))
    assert len(opened) == 1
