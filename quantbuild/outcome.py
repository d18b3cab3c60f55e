"""What became of a step in this build: data that later steps, the page and the exit code read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from quantbuild.record import Result

BLOCKED_BY = "blocked by "

Status = Literal["executed", "restored", "up_to_date", "failed", "blocked", "not_measured"]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A step's fate in this build. `result` is set unless it failed, was blocked or not measured; `message` only then.

    Not measured is a benchmark whose device cannot be reached and is not required: no result, and no failure.
    """

    step: str
    status: Status
    reasons: tuple[str, ...] = ()
    result: Result | None = None
    message: str | None = None
    log: str | None = None
    seconds: float = 0.0
    by_machine: bool = False
    """Whether it failed because time, memory or room ran out, of which its key knows nothing."""

    @property
    def done(self) -> bool:
        """Whether the step's outputs stand."""
        return self.result is not None


Outcomes = Mapping[str, Outcome]


def is_done(outcomes: Outcomes, step: str) -> bool:
    """Whether `step` was looked at in this build and its outputs stand."""
    outcome = outcomes.get(step)
    return outcome is not None and outcome.done


def first_error(outcomes: Outcomes, steps: list[str]) -> str | None:
    """Return the message of the first of `steps` that failed or was blocked."""
    outcome = _first_not_done(outcomes, steps)
    return None if outcome is None else outcome.message


def first_cause(outcomes: Outcomes, steps: list[str]) -> dict[str, str | None] | None:
    """Return step, message and log of the failure behind the first of `steps` that failed or was blocked."""
    outcome = _first_not_done(outcomes, steps)
    if outcome is not None and outcome.status == "blocked":
        failed = outcomes.get((outcome.message or "").removeprefix(BLOCKED_BY))
        outcome = failed or outcome
    return None if outcome is None else {"step": outcome.step, "message": outcome.message, "log": outcome.log}


def _first_not_done(outcomes: Outcomes, steps: list[str]) -> Outcome | None:
    found = (outcomes.get(step) for step in steps)
    return next((outcome for outcome in found if outcome is not None and not outcome.done), None)
