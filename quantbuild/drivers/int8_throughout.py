"""The artifact that a search begins with: int8 throughout, by the best ranges and bias correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from quantbuild.drivers import candidates
from quantbuild.drivers.candidates import Candidate, Prepared, Tried
from quantbuild.drivers.driven import Make
from quantbuild.drivers.judging import check_is_measured, judged
from quantbuild.drivers.trials import Trials
from quantbuild.errors import MachineError, StepError
from quantbuild.schemes import int8
from quantbuild.step import Step


class Throughout(NamedTuple):
    """All that was tried, the best of it, and what that is made from."""

    tried: list[Tried]
    best: Tried
    given: Prepared


def choose(step: Step, trials: Trials, make: Make) -> Throughout:
    """Choose ranges and bias correction; equalize where that alone does not meet the limit.

    Raises StepError where nothing can be made, or where the selection samples tell of no loss.
    """
    wanted = step.parameters["options"]["search"]
    tried = _tried(step, trials, make, wanted["trials"], equalize=False)
    best = candidates.best(tried)
    check_is_measured(step, best)
    if not judged(best, wanted["max_accuracy_loss"]).meets_limit:
        tried += _tried(step, trials, make, wanted["trials"] - len(tried), equalize=True)
        best = candidates.best(tried)
    return Throughout(tried, best, candidates.prepared(step, trials, best.candidate.options))


def _tried(step: Step, trials: Trials, make: Make, most: int, *, equalize: bool) -> list[Tried]:
    """Try ranges, and bias correction of the best: half of what int8 by itself tries, for a budget to search with.

    Nothing where there are no channels to equalize.
    """
    if most == 0:
        return []
    io = step.parameters["options"]["io"]
    options = msgspec.to_builtins(int8.Options(io=io, equalize=equalize, bias_correction=False))
    try:
        given = candidates.prepared(step, trials, options)
    except StepError as error:
        if not equalize or isinstance(error, MachineError):
            raise
        return [_failed(step, trials, Candidate(options, "equalized"), error)]
    if given.groups == 0:
        return []

    def attempt(options: Mapping[str, Any], most: int) -> list[Tried]:
        wanted = candidates.of(options)[:most]
        return candidates.try_all(wanted, given.inputs, trials, make) if wanted else []

    tried = attempt(options, most)
    sound = [each for each in tried if each.error is None]
    if not sound:
        return tried
    return tried + attempt({**candidates.best(sound).candidate.options, "bias_correction": True}, most - len(tried))


def _failed(step: Step, trials: Trials, candidate: Candidate, error: StepError) -> Tried:
    """Return a candidate of which nothing could be made."""
    inputs = {role: step.inputs[role] for role in ("model", "statistics")}
    trial = trials.artifact(candidate.options, inputs, candidate.label)
    return Tried(candidate, trial, candidates.failed(trial, error), None)
