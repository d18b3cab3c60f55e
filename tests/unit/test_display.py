"""What a terminal shows while a build runs."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator

import pytest

from quantbuild import progress, reporting
from quantbuild.progress import Display, duration


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shown(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Display]:
    monkeypatch.setattr(progress, "processors", lambda: 2)
    made = Display(io.StringIO(), clock)
    yield made
    made.stop()


def known(**seconds: float) -> dict[str, float]:
    return {name.replace("_", ":", 1): value for name, value in seconds.items()}


def test_it_counts_steps_and_names_what_runs(shown: Display) -> None:
    shown.planned(["convert:m", "calibrate:m", "dist", "report"], lambda step: None)
    shown.started("convert:m", None)
    assert shown.lines() == ["0 of 4 steps done", "  convert:m  0 s"]
    shown.closed("convert:m", None)
    assert shown.lines() == ["1 of 4 steps done"]


def test_a_step_that_was_settled_before_the_plan_was_known_counts(shown: Display) -> None:
    shown.closed("convert:m", None)
    shown.planned(["convert:m", "calibrate:m"], lambda step: None)
    assert shown.lines() == ["1 of 2 steps done"]


def test_samples_per_second_leave_out_what_was_before_the_first_sample(shown: Display, clock: Clock) -> None:
    shown.planned(["evaluate:m/a"], lambda step: None)
    shown.started("evaluate:m/a", None)
    clock.now += 60  # imports, loading
    shown.progressed("evaluate:m/a", 0, 1000)
    assert shown.lines()[1] == "  evaluate:m/a  1 min 00 s"
    clock.now += 10
    shown.progressed("evaluate:m/a", 500, 1000)
    assert shown.lines()[1] == "  evaluate:m/a  1 min 10 s  500 of 1000 samples, 50 a second"
    shown.progressed("evaluate:m/a", 0, 1000)  # a second loop
    clock.now += 10
    shown.progressed("evaluate:m/a", 5, 1000)
    assert shown.lines()[1].endswith("  5 of 1000 samples, 0.5 a second")


def test_the_time_left_comes_from_what_the_steps_took_last(shown: Display, clock: Clock) -> None:
    usual = known(convert_m=65.0, evaluate_a=20.0, evaluate_b=20.0, benchmark_a=30.0)
    shown.planned([*usual, "check", "dist", "report"], usual.get)
    shown.started("convert:m", 65.0)
    clock.now += 5
    # 60 s of converting: two processors do the rest meanwhile; the benchmark runs alone.
    assert shown.lines()[0] == "0 of 7 steps done, about 1 min 30 s left"
    shown.closed("convert:m", 65.0)
    assert shown.lines()[0] == "1 of 7 steps done, about 50 s left"


def test_the_time_left_comes_from_like_steps_of_this_run_where_there_was_none_before(
    shown: Display, clock: Clock
) -> None:
    shown.planned(["benchmark:a", "benchmark:b", "benchmark:c", "report"], lambda step: None)
    shown.started("benchmark:a", None)
    clock.now += 10
    assert shown.lines()[0] == "0 of 4 steps done"
    shown.closed("benchmark:a", 10.0)
    shown.started("benchmark:b", None)
    clock.now += 3
    assert shown.lines()[0] == "1 of 4 steps done, about 17 s left"


def test_the_time_left_of_a_loop_over_samples_comes_from_its_speed(shown: Display, clock: Clock) -> None:
    shown.planned(["evaluate:m/a"], lambda step: None)
    shown.started("evaluate:m/a", None)
    shown.progressed("evaluate:m/a", 0, 1000)
    clock.now += 10
    shown.progressed("evaluate:m/a", 100, 1000)
    assert shown.lines()[0] == "0 of 1 steps done, about 1 min 30 s left"


def test_nothing_is_said_of_the_time_left_while_a_step_is_unknown_or_it_is_no_second(
    shown: Display, clock: Clock
) -> None:
    shown.planned(["convert:m", "evaluate:m/a"], known(convert_m=10.0).get)
    shown.started("convert:m", 10.0)
    assert shown.lines()[0] == "0 of 2 steps done"
    shown.closed("evaluate:m/a", None)
    clock.now += 20  # longer than last time
    assert shown.lines()[0] == "1 of 2 steps done"


def test_steps_that_were_up_to_date_say_nothing_of_how_long_others_take(shown: Display) -> None:
    shown.planned(["evaluate:m/a", "evaluate:m/b"], lambda step: None)
    shown.closed("evaluate:m/a", None)
    shown.started("evaluate:m/b", None)
    assert shown.lines()[0] == "1 of 2 steps done"


def test_a_step_between_two_workers_is_not_shown_and_its_time_goes_on_after(shown: Display, clock: Clock) -> None:
    shown.planned(["convert:m"], lambda step: None)
    shown.started("convert:m", 30.0)
    clock.now += 10
    shown.paused("convert:m")
    clock.now += 100
    assert shown.lines() == ["0 of 1 steps done, about 20 s left"]
    shown.started("convert:m", 30.0)
    assert shown.lines() == ["0 of 1 steps done, about 20 s left", "  convert:m  10 s"]


def test_a_step_that_is_forced_is_open_again(shown: Display) -> None:
    shown.planned(["convert:m"], lambda step: None)
    shown.closed("convert:m", None)
    shown.started("convert:m", None)
    assert shown.lines()[0] == "0 of 1 steps done"


def test_a_line_is_the_callers_to_print_where_nothing_is_displayed(shown: Display) -> None:
    assert not shown.line("before")
    shown.started("convert:m", None)
    assert shown.line("[bold]as it is[/bold] :smile:")
    shown.stop()
    shown.started("calibrate:m", None)
    assert not shown.line("after")
    assert "[bold]as it is[/bold] :smile:" in shown._stream.getvalue()  # type: ignore[attr-defined]


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0.4, 59, 65, 3600 * 2 + 60)] == ["0 s", "59 s", "1 min 05 s", "2 h 01 min"]


def test_progress_is_told_a_few_times_a_second_and_to_nobody_without_a_listener() -> None:
    told: list[tuple[int, int]] = []
    reporting.progress(1, 10)
    reporting.listen(lambda done, total: told.append((done, total)))
    for number in range(1000):
        reporting.progress(number, 1000)
    reporting.listen(None)
    assert told == [(0, 1000)]


def test_rich_is_not_imported_before_a_step_starts() -> None:
    code = "import sys, io, quantbuild.progress as p; p.Display(io.StringIO()); sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
