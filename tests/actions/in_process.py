"""Builds a workspace's models in this process, drivers included, without the machinery of the shell."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.errors import StepError
from quantbuild.manifest.loading import load
from quantbuild.outcome import Outcome
from quantbuild.plan import plan
from quantbuild.record import Output, Result
from quantbuild.step import Job, Step


class InProcess:
    """Makes the steps of the workspace at `root`; `made` are all that were made, trials too, in order."""

    def __init__(self, root: Path, manifest: str) -> None:
        (root / "manifests").mkdir(parents=True, exist_ok=True)
        (root / "manifests" / "m.toml").write_text(manifest)
        self.root = root
        self.steps = {step.id: step for step in plan(load(root, environ={}))}
        self.made: list[Step] = []
        self._known: dict[str, Outcome] = {}

    def __call__(self, *ids: str) -> dict[str, Any]:
        """Make the steps `ids` and what they need; return the values of the last one. Raises StepError."""
        for needed in ids:
            self(*self.steps[needed].needs)
            outcome = self.make([self.steps[needed]])[0]
            if outcome.result is None:
                raise StepError(outcome.message or needed)
        return dict(outcome.result.values) if ids and outcome.result else {}

    def make(self, steps: Sequence[Step]) -> list[Outcome]:
        return [self._known.get(step.id) or self._make(step) for step in steps]

    def path(self, step: str, role: str = "model") -> Path:
        return self.root / self.steps[step].outputs[role]

    def _make(self, step: Step) -> Outcome:
        self.made.append(step)
        for path in step.outputs.values():
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        try:
            values = self._act(step) if step.driver is None else self._drive(step)
            msgspec.json.encode(values)
            self._known[step.id] = Outcome(step=step.id, status="executed", result=self._result(step, values))
        except StepError as error:
            self._known[step.id] = Outcome(step=step.id, status="failed", message=str(error))
        return self._known[step.id]

    def _act(self, step: Step) -> dict[str, Any]:
        job = Job(
            step=step.id,
            action=step.action,
            parameters=step.parameters,
            inputs={role: str(self.root / given.path) for role, given in step.inputs.items()},
            outputs={role: str(self.root / path) for role, path in step.outputs.items()},
            root=str(self.root),
            scratch=str(self.root),
        )
        values: dict[str, Any] = importlib.import_module(f"quantbuild.actions.{step.action}").run(job)
        if "description" in job.outputs:
            probe = msgspec.structs.replace(
                job, action="probe", parameters={"runtime": True}, inputs={"model": job.outputs["model"]}
            )
            importlib.import_module("quantbuild.actions.probe").run(probe)
        return values

    def _drive(self, step: Step) -> dict[str, Any]:
        driven = importlib.import_module(f"quantbuild.drivers.{step.driver}").drive(step, self.make, self.root)
        for role, source in driven.files.items():
            shutil.copyfile(self.root / source, self.root / step.outputs[role])
        return dict(driven.values)

    def _result(self, step: Step, values: dict[str, Any]) -> Result:
        outputs = {}
        for role, path in step.outputs.items():
            data = (self.root / path).read_bytes()
            outputs[role] = Output(path=path, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        return Result(key="", preimage={}, outputs=outputs, values=values)
