"""What a driver is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from quantbuild.errors import MachineError, StepError
from quantbuild.outcome import Outcome
from quantbuild.record import Result
from quantbuild.step import Step

Make = Callable[[Sequence[Step]], list[Outcome]]
"""Makes steps side by side; returns what became of each, in order, and raises nothing."""


class Driven(msgspec.Struct, frozen=True, kw_only=True):
    """The files that a driver chose as its step's outputs, by role (paths relative to the root), and what it tells."""

    files: Mapping[str, str]
    values: Mapping[str, Any]
    provisional: str | None = None
    """Why this stands for one build alone: what the machine failed had a say in it. None where it stands for good."""


def made(outcome: Outcome) -> Result:
    """Return what a step made. Raises StepError with its message where it failed, MachineError where that did."""
    if outcome.result is None:
        raise (MachineError if outcome.by_machine else StepError)(outcome.message or f"{outcome.step} failed")
    return outcome.result
