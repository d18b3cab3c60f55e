"""Building steps twice beside the workspace, on equal inputs: nothing of build/, dist/ or a cache is read or written,
but for latencies, which are never twice the same: what was chosen by one is chosen by the one in build/ again.

The second build has processes and folders of its own and, where it may choose, one processor less: what depends on any
of them shows. A step that differs hands on what it made first, so that the steps after it are judged by themselves.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from quantbuild.build import Build
from quantbuild.capacity import machine_for, worker_pool
from quantbuild.digests import Digests, sha256_of_file
from quantbuild.errors import MachineError, StepError
from quantbuild.execution import Apart, Clock, Execution, Pending
from quantbuild.freshness import changes, key_of
from quantbuild.machine import processors
from quantbuild.memory import Peaks
from quantbuild.outcome import Outcome, Status
from quantbuild.plan import record_path
from quantbuild.record import Output, Result, read_record
from quantbuild.step import Job, Step, file_name
from quantbuild.watcher import Watcher

FIRST, SECOND, COMPARISON = "first", "second", "comparison"
# The first build by another name: a path that leaks into an output is then another one in the second build.
_GIVEN = "first-again"


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What one of a step's two turns came to; `result` is None where it failed or was blocked."""

    result: Result | None = None
    message: str | None = None
    log: str | None = None
    blocked: bool = False
    by_machine: bool = False
    seconds: float = 0.0


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One output, or the values in its record, in which two builds of a step differ."""

    role: str
    path: str | None
    parts: tuple[str, ...]


Told = Callable[[str, str, Turn], None]
"""Is told (which build, step, turn) when a step's turn is over."""


class Twice:
    """Two builds of `steps` (each after what it needs) in `folder`, the second on the results of the first."""

    def __init__(self, build: Build, steps: Sequence[Step], folder: Path, told: Told) -> None:
        self._build = build
        self._steps = steps
        self._told = told
        self.folder = folder
        self.first: Mapping[str, Turn] = {}
        self.second: Mapping[str, Turn] = {}
        self.trials: Mapping[str, list[Step]] = {}
        """The steps that a step's driver had made, by the id of that step."""

    def run(self) -> None:
        """Do every step in both builds, one build after the other."""
        for name in (FIRST, SECOND):
            (self.folder / name).mkdir(parents=True)
        (self.folder / _GIVEN).symlink_to(FIRST, target_is_directory=True)
        first = _Round(self._build, FIRST, self.folder, made_inputs=FIRST, earlier=None, told=self._told)
        self.first, self.trials = first.turns, first.trials
        first.run(self._steps)
        second = _Round(self._build, SECOND, self.folder, made_inputs=_GIVEN, earlier=first.turns, told=self._told)
        self.second = second.turns
        second.run(self._steps)

    def differences(self, step: Step, compare: Comparer) -> tuple[Difference, ...]:
        """Return in what the two builds of a step differ; empty where one of them has no result."""
        first, second = self.first[step.id].result, self.second[step.id].result
        if first is None or second is None:
            return ()
        return compare(step, first, self.folder / FIRST, second, self.folder / SECOND)

    @property
    def first_folder(self) -> Path:
        """The folder that stands for the root in the first build."""
        return self.folder / FIRST


class _Round:
    """One of the two builds. `earlier` are the first one's turns, None in the first."""

    def __init__(
        self, build: Build, name: str, folder: Path, *, made_inputs: str, earlier: Mapping[str, Turn] | None, told: Told
    ) -> None:
        self._build = build
        self._name = name
        self._folder = folder / name
        self._earlier = earlier
        self._told = told
        self._stopped = False
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._driving = threading.local()
        self.turns: dict[str, Turn] = {}
        self.trials: dict[str, list[Step]] = {}
        self._pool = worker_pool(
            build.root, build.steps, only_processors=None if earlier is None else fewer_processors()
        )
        self._execution = Execution(
            build.root,
            digests=build.digests,
            machine=machine_for(self._pool, short=lambda text: None),
            pool=self._pool,
            cache=build.cache,
            watcher=Watcher(),
            make=self._make,
            peaks=Peaks(),
            apart=Apart(
                outputs=self._folder,
                made_inputs=folder / made_inputs,
                digests=Digests(folder / made_inputs, folder / f"{name}.digests"),
            ),
        )

    def run(self, steps: Sequence[Step]) -> None:
        """Do every step that nothing blocks."""
        try:
            in_order(steps, self._do, stop=self._stop)
        finally:
            self._pool.close()

    def _stop(self) -> None:
        self._stopped = True  # the end that we make of a step is no failure of it, and told to nobody
        self._pool.close()

    def _do(self, step: Step) -> None:
        blocked = self._blocker(step)
        self._driving.step = step.id
        self.turns[step.id] = self._turn(step) if blocked is None else Turn(message=blocked, blocked=True)
        if not self._stopped:
            self._told(self._name, step.id, self.turns[step.id])

    def _blocker(self, step: Step) -> str | None:
        if self._earlier is not None:
            return None if self._earlier[step.id].result is not None else "not built the first time"
        for needed in step.needs:
            if self.turns[needed].result is None:
                return self.turns[needed].message if self.turns[needed].blocked else f"blocked by {needed}"
        return None

    def _turn(self, step: Step) -> Turn:
        clock = Clock()
        log = self._folder / f"{file_name(step.id)}.log"
        earlier = self._earlier.get(step.id) if self._earlier is not None else None
        try:
            preimage = self._build.keys.preimage(step)
            if earlier is not None and earlier.result is not None and earlier.result.preimage != preimage:
                raise StepError("one of its inputs was edited between the two builds; run it again")  # noqa: TRY301
            pending = Pending(preimage, key_of(preimage), ())
            values, outputs = self._execution.produce(step, pending, log, clock)
        except (StepError, OSError) as error:
            message = str(error).removeprefix(f"{step.id}: ")
            return Turn(
                message=message,
                log=str(log) if log.exists() else None,
                by_machine=isinstance(error, OSError | MachineError),
                seconds=clock.seconds,
            )
        result = Result(key=pending.key, preimage=preimage, outputs=outputs, values=values)
        if earlier is None:
            self._build.keys.note_made(result)
        return Turn(result=result, seconds=clock.seconds)

    def _make(self, steps: Sequence[Step]) -> list[Outcome]:
        """Make the trials that a driver asks for; it then decides by what the first build made of them, in both."""
        compared = [step for step in steps if step.action != "benchmark"]  # a latency is never twice the same
        self.trials.setdefault(self._driving.step, []).extend(compared)
        with ThreadPoolExecutor(max_workers=max(len(steps), 1)) as threads:
            return list(threads.map(self._make_one, steps))

    def _make_one(self, step: Step) -> Outcome:
        with self._locks[step.id]:  # two variants of a model may try the same
            if step.id not in self.turns:
                self.turns[step.id] = self._measured_before(step) or self._turn(step)
        turn = (self._earlier or self.turns).get(step.id, self.turns[step.id])
        status: Status = "failed" if turn.result is None else "executed"
        return Outcome(
            step=step.id, status=status, result=turn.result, message=turn.message, by_machine=turn.by_machine
        )

    def _measured_before(self, step: Step) -> Turn | None:
        """Return what a benchmark found in the first build, and in that what it found in build/, if that is known."""
        if step.action != "benchmark":
            return None
        if self._earlier is not None:
            return self._earlier.get(step.id)
        record = read_record(self._build.root / record_path(step))
        if record is None or record.result is None:
            return None
        try:
            return Turn(result=record.result) if self._taken_from_build(step, record.result) else None
        except (StepError, OSError):
            return None  # it is measured anew, which says what is wrong

    def _taken_from_build(self, step: Step, result: Result) -> bool:
        """Copy the outputs of a step that stands in build/; return whether they are what this build would ask for."""
        if result.key != key_of(self._build.keys.preimage(step)):
            return False
        for output in result.outputs.values():
            target = self._folder / output.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._build.root / output.path, target)
            if sha256_of_file(target) != output.sha256:
                return False
        return True


class Comparer:
    """Compares two results of a step, in a worker of its own: nothing made is read in this process."""

    def __init__(self, build: Build, folder: Path) -> None:
        self._root = build.root
        self._folder = folder
        self._pool = worker_pool(build.root, {})

    def __call__(
        self, step: Step, first: Result, first_folder: Path, second: Result, second_folder: Path
    ) -> tuple[Difference, ...]:
        """Return a difference for each output whose bytes differ, and one for the values that a record holds."""
        found = [
            Difference(role=role, path=output.path, parts=self._parts(step, output, first_folder, second_folder))
            for role, output in first.outputs.items()
            if output.sha256 != second.outputs[role].sha256
        ]
        told = tuple(change.text() for change in changes({"value": first.values}, {"value": second.values}))
        if told:
            found.append(Difference(role="values", path=None, parts=told))
        return tuple(found)

    def _parts(self, step: Step, output: Output, first: Path, second: Path) -> tuple[str, ...]:
        job = Job(
            step=step.id,
            action="compare",
            parameters={},
            inputs={"first": str(first / output.path), "second": str(second / output.path)},
            outputs={},
            root=str(self._root),
            scratch=str(self._folder),
        )
        try:
            parts: list[str] = self._pool.run("litert", job, self._folder / f"{COMPARISON}.log")["differences"]
        except StepError as error:
            return (f"cannot be compared: {str(error).removeprefix(f'{step.id}: ')}",)
        return tuple(parts)

    def close(self) -> None:
        """End the worker."""
        self._pool.close()


def in_order(steps: Sequence[Step], do: Callable[[Step], None], *, stop: Callable[[], None]) -> None:
    """Do all steps, each after those it needs, side by side where they can be; `stop` ends those that run.

    The first exception is raised, after `stop`.
    """
    futures: dict[str, Future[None]] = {}

    def after(step: Step, needs: list[Future[None]]) -> None:
        # No deadlock: what a step waits for stands before it in the executor's queue.
        for needed in needs:
            needed.result()
        do(step)

    executor = ThreadPoolExecutor(max_workers=3 * processors())
    try:
        for step in steps:
            futures[step.id] = executor.submit(after, step, [futures[needed] for needed in step.needs])
        for future in futures.values():
            future.result()
    except BaseException:  # Ctrl-C too: what runs is ended, so that nothing is written after the folder has gone
        stop()
        executor.shutdown(cancel_futures=True)
        raise
    executor.shutdown()


def fewer_processors() -> frozenset[int] | None:
    """Return this process's processors but one; None where it has one alone, or the system knows no such set."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))
    return frozenset(mine[1:]) if len(mine) > 1 else None


def with_needs(steps: Mapping[str, Step], wanted: Sequence[str]) -> list[Step]:
    """Return the steps of `wanted` and all they need, in the order of the plan, which has what is needed first."""
    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        step_id = waiting.pop()
        if step_id not in found:
            found.add(step_id)
            waiting.extend(steps[step_id].needs)
    return [step for step in steps.values() if step.id in found]
