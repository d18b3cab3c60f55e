"""A look at which steps are fresh, without running anything: for explain, plan and a verdict that still stands."""

from __future__ import annotations

from quantbuild import closing
from quantbuild.build import Build
from quantbuild.errors import StepError, told
from quantbuild.freshness import Reason, key_of, known_reasons, why_not_fresh
from quantbuild.outcome import Outcome
from quantbuild.plan import record_path
from quantbuild.record import read_record
from quantbuild.step import Step


class Look:
    """What would be up to date now. `outcomes` holds the steps found fresh, besides those the build has settled."""

    def __init__(self, build: Build) -> None:
        self._build = build
        self._keys: dict[str, str] = {}
        self._reasons: dict[str, tuple[Reason, ...]] = {}
        self.outcomes: dict[str, Outcome] = dict(build.outcomes)

    def known_steps(self) -> list[str]:
        """Return the ids of all steps, the closing ones last."""
        return [*self._build.steps, *closing.CLOSING]

    def closing_steps(self) -> list[Step]:
        """Return check, dist and report as what is fresh now makes them."""
        for step_id in self._build.steps:
            self.explain(step_id)
        return [self._closing_step(step_id) for step_id in closing.CLOSING]

    def key(self, step_id: str) -> str | None:
        """Return a step's key, None until its inputs exist."""
        self.explain(step_id)
        return self._keys.get(step_id)

    def explain(self, step_id: str) -> tuple[Reason, ...]:
        """Return why a step is not up to date; empty where it is, or where this build has settled it as done."""
        known = self.outcomes.get(step_id)
        if known is not None and known.done:
            return ()
        if step_id not in self._reasons:
            self._reasons[step_id] = self._look(step_id)
        return self._reasons[step_id]

    def _look(self, step_id: str) -> tuple[Reason, ...]:
        try:
            return self._looked_at(step_id)
        except StepError as error:
            return (Reason(str(error).removeprefix(f"{step_id}: ")),)
        except OSError as error:
            return (Reason(told(error)),)

    def _looked_at(self, step_id: str) -> tuple[Reason, ...]:
        needs = self._needs(step_id)
        stale = [needed for needed in needs if self.explain(needed)]
        unknown = tuple(Reason(f"unknown until {needed} is built") for needed in stale)
        if stale and step_id in closing.CLOSING:
            return unknown  # what it is made of follows from them
        step = self._closing_step(step_id) if step_id in closing.CLOSING else self._build.steps[step_id]
        roles = [role for role, given in step.inputs.items() if given.step in stale]
        build = self._build
        preimage = build.keys.preimage(step, without=roles)
        record = read_record(build.root / record_path(step))
        if stale:
            known = known_reasons(preimage, roles, record, build.digests.digest, build.history.change(step))
            return (*known, *unknown)
        key = self._keys[step_id] = key_of(preimage)
        reasons = why_not_fresh(key, preimage, record, build.digests.digest, build.history.change(step))
        if not reasons:
            assert record is not None
            self.outcomes[step_id] = Outcome(
                step=step_id, status="up_to_date", result=record.result, reasons=record.run.reasons
            )
        return reasons

    def _needs(self, step_id: str) -> list[str]:
        steps = self._build.steps
        if step_id not in closing.CLOSING:
            return list(steps[step_id].needs)
        made = [name for name in steps if name.startswith(("convert:", "quantize:"))]
        if step_id == "dist":
            return made
        judged = [name for name in steps if name.startswith("evaluate:")]
        if step_id == "check":
            return [*made, *judged, *closing.gated_benchmarks(self._build.workspace)]
        return ["check", *(name for name in steps if name.startswith(("sensitivity:", "benchmark:")))]

    def _closing_step(self, step_id: str) -> Step:
        workspace = self._build.workspace
        if step_id == "check":
            return closing.check_step(workspace, self.outcomes)
        if step_id == "report":
            return closing.report_step(workspace, self.outcomes)
        verdicts = {} if self.explain("check") else self._verdicts()
        return closing.dist_step(workspace, self._build.steps, self.outcomes, verdicts)

    def _verdicts(self) -> dict[str, str | None]:
        result = self.outcomes["check"].result
        assert result is not None
        verdicts: dict[str, str | None] = result.values["verdicts"]
        return verdicts
