"""Doing one step: an artifact that ends the process which loads and runs it is told as what it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from quantbuild.errors import MachineError, StepError, WorkerDied, WorkerKilled
from quantbuild.execution import Clock, Execution
from quantbuild.step import Job


class Crashing(Execution):
    """Its workers all die."""

    def __init__(self, signal: str = "6 (SIGABRT)", error: type[StepError] = WorkerDied) -> None:
        self.asked: list[Job] = []
        self._signal, self._error = signal, error

    def _run_shared(self, kind: Any, job: Job, log: Path, clock: Clock) -> dict[str, Any]:
        self.asked.append(job)
        raise self._error(f"{job.step}: its worker was ended by signal {self._signal}")


@pytest.mark.parametrize(("action", "has_remedy"), [("quantize", True), ("convert", False)])
def test_an_artifact_that_ends_its_process_is_told_with_what_to_do(
    action: str, has_remedy: bool, tmp_path: Path
) -> None:
    job = Job(
        step=f"{action}:m",
        action=action,
        parameters={"scheme": "int8"},
        inputs={"model": "float32.tflite"},
        outputs={"model": "model.tflite", "description": "artifact.json"},
        root=str(tmp_path),
        scratch=str(tmp_path),
    )
    execution = Crashing()
    with pytest.raises(StepError) as caught:
        execution._probe(job, tmp_path / "log", Clock())
    assert str(caught.value).startswith(
        f"{action}:m: its worker was ended by signal 6 (SIGABRT); the .tflite was being"
    )
    assert ("keep_float keeps an op in float" in str(caught.value)) == has_remedy
    assert [(asked.action, asked.inputs) for asked in execution.asked] == [("probe", {"model": "model.tflite"})]


def test_a_process_that_was_killed_says_nothing_of_its_artifact(tmp_path: Path) -> None:
    root = str(tmp_path)
    job = Job(
        step="quantize:m", action="quantize", parameters={}, inputs={}, outputs={"model": "m"}, root=root, scratch=root
    )
    with pytest.raises(MachineError) as caught:
        Crashing("9 (SIGKILL)", WorkerKilled)._probe(job, tmp_path / "log", Clock())
    assert str(caught.value) == "quantize:m: its worker was ended by signal 9 (SIGKILL)"
