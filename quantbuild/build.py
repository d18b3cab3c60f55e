"""One build: decide each step's freshness, do the stale ones in workers, keep every outcome as data."""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import msgspec

from quantbuild import closing, dist
from quantbuild.actions import dist as dist_action
from quantbuild.cache.store import open_cache
from quantbuild.code import CodeDigests
from quantbuild.digests import Digest, Digests
from quantbuild.errors import MachineError, StepError, told
from quantbuild.execution import Clock, Execution, Pending, input_paths, worker_kind
from quantbuild.freshness import (
    FORCED,
    FORGOTTEN,
    KEY_SCHEMA,
    InputChange,
    Reason,
    input_change,
    key_of,
    why_not_fresh,
)
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.machine import Machine, processors
from quantbuild.manifest.definitions import Workspace
from quantbuild.outcome import BLOCKED_BY, Outcome, Status
from quantbuild.plan import plan, record_path
from quantbuild.record import RECORD_SCHEMA, Failure, Record, Result, RunFacts, read_record, write_record
from quantbuild.standing import RestsOn
from quantbuild.step import Step, file_name
from quantbuild.steps import plug_in
from quantbuild.tools import cpu, versions
from quantbuild.trees import Trees, file_changes, parse
from quantbuild.watcher import Watcher
from quantbuild.workers import Kind, WorkerPool, step_timeout

LOG_FOLDER = "build/.logs"


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
        self.digests = digests
        self.code = CodeDigests(self.root / STATE_FOLDER / "code.msgpack")
        self.machine = Machine(processors())
        self.pool = worker_pool(self.root, self.steps)
        self.trees = Trees(self.root / STATE_FOLDER / "trees")
        self._told: set[str] = set()
        settings = workspace.cache
        self.cache = open_cache(self.root, settings.directory, settings.remote, upload=settings.upload, warn=self._warn)
        self.execution = Execution(
            self.root,
            digests=digests,
            machine=self.machine,
            pool=self.pool,
            cache=self.cache,
            watcher=watcher,
            make=self.make,
        )
        self.trials: dict[str, Outcome] = {}
        """What became of the steps that drivers had made: they are no tasks, and no count of tasks has them."""
        self._trial_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._stopping = False
        self._pending: dict[str, Pending] = {}
        self._made: dict[str, str] = {}

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

    def _looked_at(self, step: Step) -> Outcome | Pending:
        """Return that `step` is up to date or cannot be (an input is missing), or why it must run."""
        try:
            with self.machine.hashing():
                preimage = self.preimage(step)
                key = key_of(preimage)
                record = read_record(self.root / record_path(step))
                reasons = why_not_fresh(key, preimage, record, self.digests.digest, self.input_change(step))
        except (StepError, OSError) as error:
            return self._failure(step, error, pending=Pending({}, "", ()), log=None, seconds=0.0, began="")
        if reasons:
            return Pending(preimage, key, reasons, record.usual_seconds if record is not None else None)
        assert record is not None
        assert record.result is not None
        self.note_made(record.result)
        return Outcome(step=step.id, status="up_to_date", result=record.result, reasons=record.run.reasons)

    def input_change(self, step: Step) -> InputChange:
        """Return what says how an input of `step` changed: by its path, and of a folder file by file."""

        def told(role: str, old: str | None, new: str | None) -> Iterable[Reason]:
            given = step.inputs.get(role)
            path = role if given is None else given.path
            yield from input_change(path, old, new)
            listing = self.digests.tree_listing(path) if given is not None and old is not None else None
            before = self.trees.listing(old) if listing is not None and old is not None else None
            if listing is not None and before is not None:
                yield from file_changes(path, before, parse(listing))

        return told

    def preimage(self, step: Step, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Return what the step's key is the digest of, the inputs of the roles `without` left out.

        Raises:
            StepError: an input is missing.
        """
        inputs = {}
        for role, given in step.inputs.items():
            if role in without:
                continue
            sha256 = self._made.get(given.path) if given.step is not None else None
            if sha256 is None:
                sha256 = self._digest_of_input(step, given.path).sha256
            inputs[role] = sha256
        preimage: dict[str, Any] = {
            "schema": KEY_SCHEMA,
            "action": step.action,
            "code": self.code.digest((f"quantbuild.actions.{step.action}", *step.code)),
            "parameters": step.parameters,
            "inputs": inputs,
            "tools": versions(step.tools),
        }
        if step.by_cpu:
            preimage["cpu"] = cpu()
        if step.runner is not None:
            preimage["device"] = device_fingerprint(step)
        return preimage

    def reasons(self, step_id: str) -> tuple[Reason, ...]:
        """Return why a step that `settle` left open must run."""
        return self._pending[step_id].reasons

    def usual_seconds(self, step_id: str) -> float | None:
        """Return what a step took when it was last done here; None where that is not known, as of the closing steps."""
        step = self.steps.get(step_id)
        record = read_record(self.root / record_path(step)) if step is not None else None
        return record.usual_seconds if record is not None else None

    def _digest_of_input(self, step: Step, path: str) -> Digest:
        digest = self.digests.digest(path)
        if digest is None:
            raise StepError(f"{step.id}: its input {path} is missing; put it there or correct the manifest")
        return digest

    def _blocker(self, step: Step) -> str | None:
        if step.tolerant:
            return None
        for needed in step.needs:
            outcome = self.outcomes.get(needed)
            if outcome is not None and not outcome.done:
                return outcome.message if outcome.status == "blocked" else f"{BLOCKED_BY}{needed}"
        return None

    def note_made(self, result: Result) -> None:
        """Note what a step made, for the keys of the steps that it is an input of."""
        for output in result.outputs.values():
            self._made[output.path] = output.sha256

    # Doing ---------------------------------------------------------------------------------------------------------

    def run(self, step: Step, *, forced: bool = False) -> None:
        """Run `step`, which `settle` left open (or which is forced); its outcome is kept, nothing is raised."""
        self._stand_still_if_stopping()
        if step.id not in self._pending and self.settle(step):
            outcome = self.outcomes[step.id]
            if not forced or outcome.status != "up_to_date":
                return
            preimage = self.preimage(step)
            self._pending[step.id] = Pending(preimage, key_of(preimage), (FORCED,))
        pending = self._pending.pop(step.id)
        if forced and not pending.asked_for:
            pending = msgspec.structs.replace(pending, reasons=(*pending.reasons, FORCED))
        self._close(self._attempt(step, pending))

    def make(self, steps: Sequence[Step]) -> list[Outcome]:
        """Make steps that are no tasks, side by side, for a driver; return what became of each, in order.

        They have keys, records and cache entries as every step has. Called from a driver's thread; raises nothing.
        """
        with ThreadPoolExecutor(max_workers=max(len(steps), 1)) as threads:
            return list(threads.map(self._make_one, steps))

    def _make_one(self, step: Step) -> Outcome:
        with self._trial_locks[step.id]:  # two variants of a model may try the same
            known = self.trials.get(step.id)
            if known is None:
                found = self._looked_at(step)
                known = found if isinstance(found, Outcome) else self._attempt(step, found)
                self.trials[step.id] = known
        return known

    def _attempt(self, step: Step, pending: Pending) -> Outcome:
        """Restore `step` from the cache or do it.

        Everything is written aside, checked and renamed; the old record goes first and the new one comes last.
        """
        self._stand_still_if_stopping()
        log = f"{LOG_FOLDER}/{file_name(step.id)}.log"
        clock = Clock(pending.usual_seconds)
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            (self.root / record_path(step)).unlink(missing_ok=True)
            (self.root / log).unlink(missing_ok=True)
            with self.cache.key_lock(pending.key):
                restored = None if pending.asked_for else self.execution.restore(step, pending, clock)
                result, reasons = restored or (
                    self.execution.perform(step, pending, log, clock),
                    tuple(reason.text() for reason in pending.reasons),
                )
                if restored is None:
                    self._keep(step, result, reasons)
            self._keep_trees(step, result)
            facts = RunFacts(started=began, seconds=round(clock.seconds, 3), reasons=reasons, worker=log)
            record = Record(schema=RECORD_SCHEMA, step=step.id, result=result, failure=None, run=facts)
            write_record(self.root / record_path(step), record)
        except (StepError, OSError) as error:
            return self._failure(step, error, pending=pending, log=log, seconds=clock.seconds, began=began)
        self.note_made(result)
        status: Status = "executed" if restored is None else "restored"
        return Outcome(step=step.id, status=status, reasons=reasons, result=result, log=log, seconds=clock.seconds)

    def _keep(self, step: Step, result: Result, reasons: tuple[str, ...]) -> None:
        """Keep what a step made in the cache; a cache that cannot be written costs a warning."""
        try:
            self.execution.keep(step, result, reasons)
        except OSError as error:
            # It names a file written aside, another one each time: the folder is one word for all of them.
            place = f"{error.strerror or error}: {self.cache.local.folder}"
            self._warn(f"cache: {place}; this build goes on without keeping results")

    def _keep_trees(self, step: Step, result: Result) -> None:
        """Keep what the folders among a step's inputs held, for whoever asks later what changed."""
        for role, given in step.inputs.items():
            listing = self.digests.tree_listing(given.path) if given.step is None else None
            digest = self.digests.digest(given.path) if listing is not None else None
            if listing is not None and digest is not None and digest.sha256 == result.preimage["inputs"][role]:
                with contextlib.suppress(OSError):
                    self.trees.keep(digest.sha256, listing)

    def _warn(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._watcher.warned(text)

    def stop(self) -> None:
        """End the workers. A step in flight has no outcome then: the process ends before anything is made of it."""
        self._stopping = True
        self.pool.close()

    def _stand_still_if_stopping(self) -> None:
        """Hold this thread for good in a build that is stopped: a worker that we killed is no failed step.

        Going on would keep a failure that was none, and take the step's artifact out of dist/.
        """
        if self._stopping:
            threading.Event().wait()

    # Outcomes ------------------------------------------------------------------------------------------------------

    def _failure(
        self, step: Step, error: BaseException, *, pending: Pending, log: str | None, seconds: float, began: str
    ) -> Outcome:
        """Keep in its record that `step` failed; return its outcome."""
        self._stand_still_if_stopping()
        message = _one_line(error).removeprefix(f"{step.id}: ")
        texts = tuple(reason.text() for reason in pending.reasons)
        log = log if log is not None and (self.root / log).exists() else None
        record = Record(
            schema=RECORD_SCHEMA,
            step=step.id,
            result=None,
            failure=Failure(message=message, log=log),
            run=RunFacts(started=began, seconds=round(seconds, 3), reasons=texts, worker=log or ""),
        )
        try:
            # dist/ holds what other variants came to as well; only what lies under build/ is this step's alone.
            for path in step.outputs.values() if step.action != "dist" else ():
                (self.root / path).unlink(missing_ok=True)
            write_record(self.root / record_path(step), record)
        except OSError as unwritten:
            message = f"{message} (and its record could not be written: {_one_line(unwritten)})"
        return Outcome(
            step=step.id,
            status="failed",
            reasons=texts,
            message=message,
            log=log,
            seconds=seconds,
            by_machine=isinstance(error, OSError | MachineError),
        )

    def _close(self, outcome: Outcome) -> None:
        before = self.outcomes.get(outcome.step)
        if before is not None and before.status == "executed" and outcome.status == "up_to_date":
            return  # dist is asked for twice where verdicts come later; it counts once, by what it did
        self.outcomes[outcome.step] = outcome
        self.machine.settled(outcome.step)
        self._watcher.closed(outcome)

    def forget(self, step_id: str) -> None:
        """Make a step that stands be done again: its record says "forgotten", so that no cache gives it back either."""
        path = self.root / record_path(self.step(step_id))
        if path.exists():
            facts = RunFacts(started="", seconds=0.0, reasons=(), worker="")
            failure = Failure(message=FORGOTTEN.kind)
            write_record(path, Record(schema=RECORD_SCHEMA, step=step_id, result=None, failure=failure, run=facts))

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

        What failed goes in any case: to the dist step, a file that it did not publish is none. Where dist/ cannot be
        written, that is an outcome of the dist step.
        """
        try:
            self._publish_partly()
        except OSError as error:
            self._close(Outcome(step="dist", status="failed", message=_one_line(error)))

    def _publish_partly(self) -> None:
        touched = {name for name in self.outcomes if name.startswith("quantize:")}
        for name in touched:
            if not self.outcomes[name].done:
                model, _, variant = name.removeprefix("quantize:").partition("/")
                for path in dist.files_of(model, variant, self.workspace.models[model].shipped()):
                    (self.root / path).unlink(missing_ok=True)
        if not touched or "dist" in self.outcomes:
            return
        step = closing.dist_step(self.workspace, self.steps, self.outcomes, self.verdicts())
        parameters = dict(step.parameters)
        parameters["artifacts"] = [a for a in parameters["artifacts"] if f"quantize:{a['name']}" in touched]
        models = {artifact["name"].partition("/")[0] for artifact in parameters["artifacts"]}
        parameters["ship"] = {model: ship for model, ship in parameters["ship"].items() if model in models}
        dist_action.publish(self.root, parameters, input_paths(step), partial=True)

    def counts(self) -> dict[str, int]:
        """Return how many steps were executed, restored, up to date, failed and blocked."""
        counts: dict[str, int] = dict.fromkeys(("executed", "restored", "up_to_date", "failed", "blocked"), 0)
        for outcome in self.outcomes.values():
            counts[outcome.status] += 1
        return counts

    def gates(self, verdict: Literal["failed", "undecided"]) -> tuple[dict[str, Any], ...]:
        """Return the gates that this build's check found so, none where it was not asked for."""
        outcome = self.outcomes.get("check")
        return () if outcome is None or outcome.result is None else tuple(outcome.result.values[verdict])

    def step_rows(self, outcomes: Mapping[str, Outcome]) -> list[dict[str, Any]]:
        """Return each step's fate as build/last_run.json holds it."""
        return [
            {
                "id": outcome.step,
                "status": outcome.status,
                "reasons": outcome.reasons if outcome.status != "up_to_date" else (),
                "message": outcome.message,
                "log": outcome.log,
                "seconds": round(outcome.seconds, 3),
            }
            for outcome in sorted(outcomes.values(), key=lambda outcome: outcome.step)
        ]

    def rests_on(self, step_id: str) -> RestsOn[str]:
        """Return the paths that a finished step's freshness rests on: record, outputs and every input."""
        outcome = self.outcomes[step_id]
        step = self.step(step_id)
        outputs = [] if outcome.result is None else [output.path for output in outcome.result.outputs.values()]
        given = [given.path for given in step.inputs.values() if given.step is None]
        made = [given.path for given in step.inputs.values() if given.step is not None]
        return RestsOn([record_path(step), *outputs, *given], made)

    def devices_used(self) -> list[tuple[str, bytes, Mapping[str, str]]]:
        """Return runner, options (JSON) and fingerprint of each device that a planned step runs on."""
        found = {}
        for step in self.steps.values():
            if step.runner is not None:
                options = msgspec.json.encode(_device_options(step), order="deterministic")
                if (step.runner, options) not in found:
                    found[step.runner, options] = device_fingerprint(step)
        return [(runner, options, fingerprint) for (runner, options), fingerprint in found.items()]


def device_fingerprint(step: Step) -> Mapping[str, str]:
    """Return what identifies the device a benchmark runs on, or the one whose latencies a driver chooses by."""
    assert step.runner is not None
    runner = plug_in("runners", step.runner)
    fingerprint: Mapping[str, str] = runner.fingerprint(msgspec.convert(_device_options(step), runner.Options))
    return fingerprint


def _device_options(step: Step) -> Mapping[str, Any]:
    """Return the options of the runner of a step that has one."""
    of = step.parameters if step.driver is None else step.parameters["device"]
    options: Mapping[str, Any] = of["options"]
    return options


def worker_pool(root: Path, steps: Mapping[str, Step], *, only_processors: frozenset[int] | None = None) -> WorkerPool:
    """Return a pool of workers for `steps`, on this process's processors or on those named.

    Raises:
        UsageError: the environment gives a step no number of seconds.
    """
    cores = len(only_processors) if only_processors is not None else processors()
    heavy = _tensorflow_workers(steps, cores)
    limits: dict[Kind, int] = {"light": cores, "litert": cores, "tensorflow": heavy}
    return WorkerPool(root, limits, processors=only_processors, timeout_seconds=step_timeout(os.environ))


def _tensorflow_workers(steps: Mapping[str, Step], cores: int) -> int:
    """Return how many TensorFlow workers may live at once.

    An import costs 9 s of processor time and 400 MB, so a second worker pays from a dozen steps or two conversions on.
    """
    made = (step for step in steps.values() if step.action in ("convert", "quantize"))
    return 1 if sum(worker_kind(step) == "tensorflow" for step in made) < 12 else cores


def _one_line(error: BaseException) -> str:
    return told(error) if isinstance(error, OSError) else " ".join(str(error).split())
