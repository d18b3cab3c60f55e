"""A step starts beside others only where the memory suffices for it; one that would be alone always starts."""

from __future__ import annotations

import pytest

from quantbuild.errors import UsageError
from quantbuild.memory import DEFAULT_PEAK_BYTES, Claim, Memory, Peaks, bound_of, room_bytes, still_needed
from quantbuild.workers import Residents

GB = 10**9
NOBODY = Residents(busy={}, idle={})


def heavy(step: str, peak_bytes: int = 2 * GB) -> Claim:
    return Claim(step, "tensorflow", peak_bytes)


def memory(
    *, free: int | None = None, bound: int | None = None, residents: Residents = NOBODY, told: list[str] | None = None
) -> Memory:
    short = (told if told is not None else []).append
    return Memory(bound_bytes=bound, free=lambda: free, residents=lambda: residents, short=short)


def test_a_step_that_would_be_alone_always_starts() -> None:
    assert memory(free=0, bound=0).admits(heavy("a"), [])


@pytest.mark.parametrize(("free", "starts"), [(4 * GB, True), (4 * GB - 1, False), (None, True)])
def test_what_running_steps_have_not_taken_yet_is_held_back(free: int | None, starts: bool) -> None:
    assert memory(free=free).admits(heavy("b"), [heavy("a")]) is starts


def test_what_running_steps_have_taken_is_not_counted_twice() -> None:
    grown = Residents(busy={"a": 2 * GB}, idle={})
    assert memory(free=2 * GB, residents=grown).admits(heavy("b"), [heavy("a")])
    beyond = Residents(busy={"a": 5 * GB}, idle={})
    assert memory(free=2 * GB, residents=beyond).admits(heavy("b"), [heavy("a")])
    assert not memory(free=2 * GB - 1, residents=beyond).admits(heavy("b"), [heavy("a")])


def test_an_idle_worker_of_the_kind_brings_what_it_holds() -> None:
    idle = Residents(busy={}, idle={"tensorflow": [3 * GB, GB], "litert": [GB]})
    assert still_needed(heavy("b"), idle) == GB
    assert still_needed(Claim("c", "light", GB), idle) == GB
    assert still_needed(heavy("b", GB // 2), idle) == 0


@pytest.mark.parametrize(("bound", "starts"), [(4 * GB, True), (4 * GB - 1, False)])
def test_a_bound_holds_for_all_workers_together(bound: int, starts: bool) -> None:
    assert memory(free=100 * GB, bound=bound).admits(heavy("b"), [heavy("a")]) is starts
    half_grown = Residents(busy={"a": GB}, idle={})
    assert memory(bound=bound, residents=half_grown).admits(heavy("b"), [heavy("a")]) is starts


def test_idle_workers_count_in_the_bound() -> None:
    idle = Residents(busy={}, idle={"litert": [GB]})
    assert room_bytes(free_bytes=None, bound_bytes=4 * GB, residents=idle, running=[heavy("a")]) == GB


def test_the_tighter_of_bound_and_system_counts() -> None:
    for free, bound in ((3 * GB, 9 * GB), (9 * GB, 3 * GB)):
        assert room_bytes(free_bytes=free, bound_bytes=bound, residents=NOBODY, running=[]) == 3 * GB
    assert room_bytes(free_bytes=None, bound_bytes=None, residents=NOBODY, running=[heavy("a")]) is None


def test_the_first_wait_is_told_and_no_other() -> None:
    told: list[str] = []
    full = memory(free=GB, bound=None, told=told)
    assert full.admits(heavy("a"), [])
    assert told == []
    for step in ("quantize:m/b", "quantize:m/c"):
        assert not full.admits(heavy(step, 3 * GB), [heavy("a", GB // 2)])
    assert told == [
        "memory: quantize:m/b needs about 3.00 GB more, 500 MB is free beside the steps that run; "
        "such steps wait for each other"
    ]


def test_no_more_than_what_is_known_is_asked_for() -> None:
    asked: list[tuple[str, str]] = []

    def earlier(action: str, kind: str) -> list[int]:
        asked.append((action, kind))
        return [GB, 3 * GB] if action == "quantize" else []

    peaks = Peaks(earlier)
    assert peaks.expected("quantize", "tensorflow", 2 * GB) == 2 * GB  # its own peak, last time
    assert peaks.expected("quantize", "tensorflow", None) == 3 * GB
    assert peaks.expected("convert", "tensorflow", None) == DEFAULT_PEAK_BYTES["tensorflow"]
    peaks.note("convert", "tensorflow", GB)
    peaks.note("convert", "tensorflow", GB // 2)
    assert peaks.expected("convert", "tensorflow", None) == GB
    assert peaks.expected("convert", "litert", None) == DEFAULT_PEAK_BYTES["litert"]
    assert asked == [("quantize", "tensorflow"), ("convert", "tensorflow"), ("convert", "litert")]


def test_a_peak_of_this_build_does_not_hide_a_greater_one_of_an_earlier() -> None:
    peaks = Peaks(lambda action, kind: [3 * GB])
    peaks.note("convert", "tensorflow", GB)
    assert peaks.expected("convert", "tensorflow", None) == 3 * GB


def test_the_bound_is_a_size() -> None:
    assert bound_of({}) is None
    assert bound_of({"QUANTBUILD_MEMORY": ""}) is None
    assert bound_of({"QUANTBUILD_MEMORY": "6GiB"}) == 6 * 2**30
    with pytest.raises(UsageError, match='QUANTBUILD_MEMORY: "much" is no size; write a number and a unit'):
        bound_of({"QUANTBUILD_MEMORY": "much"})
