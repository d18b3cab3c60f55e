"""One build: decide each step's freshness, have the stale ones done, keep every outcome as data."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from quantbuild import closing, partial_publication
from quantbuild.attempt import Attempts, one_line
from quantbuild.cache.store import open_cache
from quantbuild.capacity import machine_for, worker_pool
from quantbuild.code import CodeDigests
from quantbuild.digests import Digests
from quantbuild.errors import StepError
from quantbuild.execution import Execution, Pending
from quantbuild.freshness import FORCED, key_of, why_not_fresh
from quantbuild.input_history import InputHistory
from quantbuild.keys import Keys
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.manifest.definitions import Workspace
from quantbuild.memory import Peaks
from quantbuild.outcome import BLOCKED_BY, Outcome
from quantbuild.plan import plan, record_path
from quantbuild.record import Result, read_record
from quantbuild.standing import RestsOn
from quantbuild.step import Step
from quantbuild.sub_steps import SubSteps
from quantbuild.summary import Summary
from quantbuild.trees import Trees
from quantbuild.usual import Usual, usual_of
from quantbuild.watcher import Watcher


class Build:
    """The state of one build in one workspace: what was decided and what became of each step."""

    def __init__(
        self,
        workspace: Workspace,
        digests: Digests,
        *,
        manifests: Sequence[tuple[str, str]],
        watcher: Watcher,
    ) -> None:
        self.workspace = workspace
        self.manifests = manifests
        self.root = workspace.root
        self.steps = {step.id: step for step in plan(workspace)}
        self.outcomes: dict[str, Outcome] = {}
        self._watcher = watcher
        self._told: set[str] = set()
        self._pending: dict[str, Pending] = {}
        self.digests = digests
        state = self.root / STATE_FOLDER
        self.keys = Keys(digests, CodeDigests(state / "code.msgpack"))
        self.history = InputHistory(digests, Trees(state / "trees"))
        self.usual = Usual(self.root, self.steps)
        self.pool = worker_pool(self.root, self.steps)
        self.machine = machine_for(self.pool, short=self._warn)
        settings = workspace.cache
        self.cache = open_cache(self.root, settings.directory, settings.remote, upload=settings.upload, warn=self._warn)
        sub_steps = SubSteps(self._found_or_done)
        self.summary = Summary(self.root, manifests, outcomes=self.outcomes, trials=sub_steps.outcomes)
        execution = Execution(
            self.root,
            digests=digests,
            machine=self.machine,
            pool=self.pool,
            cache=self.cache,
            watcher=watcher,
            make=sub_steps.make,
            peaks=Peaks(self.usual.peaks),
        )
        self._attempts = Attempts(
            self.root,
            execution=execution,
            cache=self.cache,
            history=self.history,
            excused=self._is_excused,
            warn=self._warn,
        )

    # Deciding ------------------------------------------------------------------------------------------------------

    def step(self, step_id: str) -> Step:
        """Return a planned step, or one of the closing steps as the outcomes so far make it."""
        if step_id == "check":
            return closing.check_step(self.workspace, self.outcomes)
        if step_id == "report":
            return closing.report_step(self.workspace, self.outcomes)
        if step_id == "dist":
            return closing.dist_step(self.workspace, self.steps, self.outcomes, self.verdicts())
        return self.steps[step_id]

    def settle(self, step: Step) -> bool:
        """Settle `step` without running it, if it is blocked or fresh; else note why it must run.

        Effects: reads records and digests, writes nothing but this build's memory.
        """
        blocker = self._blocker(step)
        if blocker is not None:
            self._close(Outcome(step=step.id, status="blocked", message=blocker))
            return True
        found = self._looked_at(step)
        if isinstance(found, Outcome):
            self._close(found)
            return True
        self._pending[step.id] = found
        return False

    def _blocker(self, step: Step) -> str | None:
        if step.tolerant:
            return None
        for needed in step.needs:
            outcome = self.outcomes.get(needed)
            if outcome is not None and not outcome.done:
                return outcome.message if outcome.status == "blocked" else f"{BLOCKED_BY}{needed}"
        return None

    def _looked_at(self, step: Step) -> Outcome | Pending:
        """Return that `step` is up to date or cannot be (an input is missing), or why it must run."""
        try:
            with self.machine.hashing():
                preimage = self.keys.preimage(step)
                key = key_of(preimage)
                record = read_record(self.root / record_path(step))
                reasons = why_not_fresh(key, preimage, record, self.digests.digest, self.history.change(step))
        except (StepError, OSError) as error:
            return self._attempts.failed(step, error)
        if reasons:
            return Pending(preimage, key, reasons, *usual_of(record))
        assert record is not None
        assert record.result is not None
        self.keys.note_made(record.result)
        return Outcome(step=step.id, status="up_to_date", result=record.result, reasons=record.run.reasons)

    # Doing ---------------------------------------------------------------------------------------------------------

    def run(self, step: Step, *, forced: bool = False) -> None:
        """Run `step`, which `settle` left open (or which is forced); its outcome is kept, nothing is raised."""
        self._attempts.stand_still_if_stopping()
        if step.id not in self._pending and self.settle(step):
            outcome = self.outcomes[step.id]
            if not forced or outcome.status != "up_to_date":
                return
            preimage = self.keys.preimage(step)
            self._pending[step.id] = Pending(preimage, key_of(preimage), (FORCED,), self.usual.seconds(step.id))
        pending = self._pending.pop(step.id)
        if forced and not pending.asked_for:
            pending = msgspec.structs.replace(pending, reasons=(*pending.reasons, FORCED))
        self._close(self._done(step, pending))

    def _found_or_done(self, step: Step) -> Outcome:
        """Return what becomes of a step that is no task, having done it if it is not fresh."""
        found = self._looked_at(step)
        return found if isinstance(found, Outcome) else self._done(step, found)

    def _done(self, step: Step, pending: Pending) -> Outcome:
        outcome = self._attempts.attempt(step, pending)
        if outcome.result is not None:
            self.keys.note_made(outcome.result)
        return outcome

    def _is_excused(self, step: Step) -> bool:
        """Whether it is no failure that the device of `step` cannot be reached: it is measured there, and need not be.

        A variant that is chosen on a device cannot be made without it, required or not.
        """
        return step.action == "benchmark" and not self.workspace.devices[step.id.rpartition("@")[2]].required

    def forget(self, step_id: str) -> None:
        """Make a step that stands be done again, and not be restored from a cache."""
        self._attempts.forget(self.step(step_id))

    def stop(self) -> None:
        """End the workers. A step in flight has no outcome then: the process ends before anything is made of it."""
        self._attempts.stop()
        self.pool.close()

    # Outcomes ------------------------------------------------------------------------------------------------------

    def _close(self, outcome: Outcome) -> None:
        before = self.outcomes.get(outcome.step)
        if before is not None and before.status == "executed" and outcome.status == "up_to_date":
            return  # dist is asked for twice where verdicts come later; it counts once, by what it did
        self.outcomes[outcome.step] = outcome
        self.machine.settled(outcome.step)
        self._watcher.closed(outcome)

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._watcher.warned(text)

    def verdicts(self) -> dict[str, str | None]:
        """Return each MODEL/VARIANT's verdict by the check step, None wherever it is not fresh."""
        outcome = self.outcomes.get("check")
        result = outcome.result if outcome is not None else self._standing_check()
        if result is None:
            return {}
        verdicts: dict[str, str | None] = result.values["verdicts"]
        return verdicts

    def _standing_check(self) -> Result | None:
        """Return the check's earlier result if all that it judged still stands, looking without running anything."""
        from quantbuild.look import Look  # a look is made of a build, and a build looks only here

        look = Look(self)
        return None if look.explain("check") else look.outcomes["check"].result

    def publish_partly(self) -> None:
        """Bring dist/ in line for the variants that this build touched, where the dist step was not asked for.

        Where dist/ cannot be written, that is an outcome of the dist step.
        """
        try:
            partial_publication.publish(self.workspace, self.steps, self.outcomes, self.verdicts)
        except (StepError, OSError) as error:
            self._close(Outcome(step="dist", status="failed", message=one_line(error)))

    def rests_on(self, step_id: str) -> RestsOn[str]:
        """Return the paths that a finished step's freshness rests on: record, outputs and every input."""
        outcome = self.outcomes[step_id]
        step = self.step(step_id)
        outputs = [] if outcome.result is None else [output.path for output in outcome.result.outputs.values()]
        given = [given.path for given in step.inputs.values() if given.step is None]
        made = [given.path for given in step.inputs.values() if given.step is not None]
        beside = [closing.SARIF_PATH] if step_id == "check" else []
        return RestsOn([record_path(step), *outputs, *beside, *given], made)
