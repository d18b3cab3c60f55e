"""The device that a step runs on or is chosen by, asked through its runner."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from quantbuild.errors import StepError, UnreachableError
from quantbuild.step import Step
from quantbuild.steps import plug_in


def fingerprint(step: Step) -> Mapping[str, str]:
    """Return what identifies the device a benchmark runs on, or the one whose latencies a driver chooses by.

    Raises:
        UnreachableError: it does not answer.
    """
    assert step.runner is not None
    runner = plug_in("runners", step.runner)
    try:
        found: Mapping[str, str] = runner.fingerprint(msgspec.convert(_options(step), runner.Options))
    except StepError as error:
        raise UnreachableError(str(error)) from error
    return found


def that_answer(steps: Iterable[Step]) -> list[tuple[str, bytes, Mapping[str, str]]]:
    """Return runner, options (JSON) and fingerprint of each device that one of `steps` runs on and that answers."""
    found: dict[tuple[str, bytes], Mapping[str, str]] = {}
    for step in steps:
        if step.runner is not None:
            options = msgspec.json.encode(_options(step), order="deterministic")
            if (step.runner, options) not in found:
                with contextlib.suppress(UnreachableError):
                    found[step.runner, options] = fingerprint(step)
    return [(runner, options, told) for (runner, options), told in found.items()]


def _options(step: Step) -> Mapping[str, Any]:
    """Return the options of the runner of a step that has one."""
    of = step.parameters if step.driver is None else step.parameters["device"]
    options: Mapping[str, Any] = of["options"]
    return options
