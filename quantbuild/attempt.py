"""One attempt at a step: restored from the cache or done, and recorded, whatever it came to."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Callable
from pathlib import Path

from quantbuild.cache.store import Cache
from quantbuild.errors import MachineError, StepError, UnreachableError, told
from quantbuild.execution import Clock, Execution, Pending
from quantbuild.freshness import FORGOTTEN
from quantbuild.input_history import InputHistory
from quantbuild.outcome import Outcome, Status
from quantbuild.plan import record_path
from quantbuild.record import RECORD_SCHEMA, Failure, Record, Result, RunFacts, write_record
from quantbuild.step import Step, file_name

LOG_FOLDER = "build/.logs"


class Attempts:
    """Does the steps of one build, each in the thread that asks for it, and keeps their records.

    `excused` says of a step whose device cannot be reached whether that is no failure.
    """

    def __init__(
        self,
        root: Path,
        *,
        execution: Execution,
        cache: Cache,
        history: InputHistory,
        excused: Callable[[Step], bool],
        warn: Callable[[str], None],
    ) -> None:
        self._root = root
        self._execution = execution
        self._cache = cache
        self._history = history
        self._excused = excused
        self._warn = warn
        self._stopping = False

    def attempt(self, step: Step, pending: Pending) -> Outcome:
        """Restore `step` from the cache or do it; what keeps it from being done is its outcome and no exception.

        Everything is written aside, checked and renamed; the old record goes first and the new one comes last.
        """
        self.stand_still_if_stopping()
        log = f"{LOG_FOLDER}/{file_name(step.id)}.log"
        clock = Clock(pending.usual_seconds, pending.usual_bytes)
        began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            (self._root / record_path(step)).unlink(missing_ok=True)
            (self._root / log).unlink(missing_ok=True)
            with self._cache.key_lock(pending.key):
                restored = None if pending.asked_for else self._execution.restore(step, pending, clock)
                result, reasons = restored or (self._execution.perform(step, pending, log, clock), _texts(pending))
                if restored is None:
                    self._keep(step, result, reasons)
            self._history.keep(step, result)
            facts = RunFacts(
                started=began,
                seconds=round(clock.seconds, 3),
                reasons=reasons,
                worker=log,
                peak_bytes=clock.peak_bytes,
            )
            record = Record(schema=RECORD_SCHEMA, step=step.id, result=result, failure=None, run=facts)
            write_record(self._root / record_path(step), record)
        except (StepError, OSError) as error:
            return self.failed(step, error, pending=pending, log=log, seconds=clock.seconds, began=began)
        status: Status = "executed" if restored is None else "restored"
        return Outcome(step=step.id, status=status, reasons=reasons, result=result, log=log, seconds=clock.seconds)

    def _keep(self, step: Step, result: Result, reasons: tuple[str, ...]) -> None:
        """Keep what a step made in the cache; a cache that cannot be written costs a warning."""
        try:
            self._execution.keep(step, result, reasons)
        except OSError as error:
            # It names a file written aside, another one each time: the folder is one word for all of them.
            place = f"{error.strerror or error}: {self._cache.local.folder}"
            self._warn(f"cache: {place}; this build goes on without keeping results")

    def failed(
        self,
        step: Step,
        error: StepError | OSError,
        *,
        pending: Pending | None = None,
        log: str | None = None,
        seconds: float = 0.0,
        began: str = "",
    ) -> Outcome:
        """Keep in its record that `step` failed; return its outcome."""
        self.stand_still_if_stopping()
        message = one_line(error).removeprefix(f"{step.id}: ")
        reasons = () if pending is None else _texts(pending)
        log = log if log is not None and (self._root / log).exists() else None
        excused = isinstance(error, UnreachableError) and self._excused(step)
        record = Record(
            schema=RECORD_SCHEMA,
            step=step.id,
            result=None,
            failure=Failure(message=message, log=log, unreachable=excused),
            run=RunFacts(started=began, seconds=round(seconds, 3), reasons=reasons, worker=log or ""),
        )
        try:
            # dist/ holds what other variants came to as well; only what lies under build/ is this step's alone.
            for path in step.outputs.values() if step.action != "dist" else ():
                (self._root / path).unlink(missing_ok=True)
            write_record(self._root / record_path(step), record)
        except OSError as unwritten:
            message = f"{message} (and its record could not be written: {one_line(unwritten)})"
        return Outcome(
            step=step.id,
            status="not_measured" if excused else "failed",
            reasons=reasons,
            message=message,
            log=log,
            seconds=seconds,
            by_machine=isinstance(error, OSError | MachineError),
        )

    def forget(self, step: Step) -> None:
        """Make a step that stands be done again: its record says "forgotten", so that no cache gives it back either."""
        path = self._root / record_path(step)
        if path.exists():
            facts = RunFacts(started="", seconds=0.0, reasons=(), worker="")
            failure = Failure(message=FORGOTTEN.kind)
            write_record(path, Record(schema=RECORD_SCHEMA, step=step.id, result=None, failure=failure, run=facts))

    def stop(self) -> None:
        """Let no step come to anything from here on: the process is about to end."""
        self._stopping = True

    def stand_still_if_stopping(self) -> None:
        """Hold this thread for good in a build that is stopped: a worker that we killed is no failed step.

        Going on would keep a failure that was none, and take the step's artifact out of dist/.
        """
        if self._stopping:
            threading.Event().wait()


def one_line(error: StepError | OSError) -> str:
    """Return what went wrong, without line ends."""
    return told(error) if isinstance(error, OSError) else " ".join(str(error).split())


def _texts(pending: Pending) -> tuple[str, ...]:
    return tuple(reason.text() for reason in pending.reasons)
