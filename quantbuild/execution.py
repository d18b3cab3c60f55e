"""Doing one step: restore it from the cache, or run its action in a worker, check what it made and move it into place.

Everything is written into a scratch folder first. Nothing here decides whether a step must run.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from quantbuild import device_lock
from quantbuild.actions import dist as dist_action
from quantbuild.cache.store import ENTRY_SCHEMA, Cache, Entry
from quantbuild.digests import Digest, Digests, Stamp, sha256_of_file
from quantbuild.drivers.driven import Driven
from quantbuild.errors import StepError, WorkerDied, WorkerKilled
from quantbuild.freshness import FORCED, FORGOTTEN, Reason
from quantbuild.leftovers import SCRATCH_FOLDER
from quantbuild.machine import Machine
from quantbuild.memory import Claim, Peaks
from quantbuild.outcome import Outcome
from quantbuild.record import PROVISIONAL, Output, Result
from quantbuild.step import Input, Job, Step, file_name
from quantbuild.steps import plug_in
from quantbuild.watcher import Watcher
from quantbuild.workers import Kind, WorkerPool

PROBE = "probe"


class Pending(msgspec.Struct, frozen=True):
    """A step that must run: its key with the pre-image, and why."""

    preimage: dict[str, Any]
    key: str
    reasons: tuple[Reason, ...]
    usual_seconds: float | None = None
    usual_bytes: int | None = None

    @property
    def asked_for(self) -> bool:
        """Whether the user asked for the step to be done and not to be restored."""
        return any(reason in (FORCED, FORGOTTEN) for reason in self.reasons)


class Clock:
    """Adds up the seconds in which a step ran, without those in which it waited for its turn; and keeps its peak."""

    def __init__(self, usual_seconds: float | None = None, usual_bytes: int | None = None) -> None:
        self.seconds = 0.0
        self.peak_bytes: int | None = None
        """The most memory that the worker of the step's own action held, None where that is not known."""
        self.usual_seconds = usual_seconds
        self.usual_bytes = usual_bytes
        """What the step took when it was last done here, None where that is not known."""

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count the time inside."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds += time.monotonic() - started


class Apart(NamedTuple):
    """Folders that stand for the root, for steps that are made beside what stands in it."""

    outputs: Path
    made_inputs: Path
    """Where the inputs that other steps made are; the user's files are below the root in any case."""
    digests: Digests
    """Of what is below `made_inputs`."""


class Execution:
    """Does steps in the workers of one build, on a machine they share."""

    def __init__(
        self,
        root: Path,
        *,
        digests: Digests,
        machine: Machine,
        pool: WorkerPool,
        cache: Cache,
        watcher: Watcher,
        make: Callable[[Sequence[Step]], list[Outcome]],
        peaks: Peaks,
        apart: Apart | None = None,
    ) -> None:
        self.root = root
        self._apart = apart or Apart(outputs=root, made_inputs=root, digests=digests)
        self.watcher = watcher
        self.digests = digests
        self.machine = machine
        self.pool = pool
        self.cache = cache
        self._peaks = peaks
        self._make = make
        self._told: set[str] = set()

    def restore(self, step: Step, pending: Pending, clock: Clock) -> tuple[Result, tuple[str, ...]] | None:
        """Bring a step's outputs back from the cache; None where it does not have them whole.

        The reasons are those for which the step last ran, wherever that was: a page that is restored with all it shows
        is the same page.
        """
        share = step.action != "benchmark"
        with self._scratch(step) as scratch, self.machine.hashing():
            restored = self.cache.restore(pending.key, scratch, share=share)
            if restored is None:
                return None
            if step.action == "dist":
                # Every artifact stands already; what else was in dist/ must go as well as what belongs there come.
                return self.perform(step, pending, "", clock, locked=True), restored.entry.reasons
            if set(restored.files) != set(step.outputs):
                return None
            outputs = {}
            for role, (path, digest) in restored.files.items():
                place = step.outputs[role]
                self._move(path, place)
                outputs[role] = Output(path=place, sha256=digest.sha256, size_bytes=digest.size_bytes)
                self.digests.remember(place, digest.sha256)
        values = restored.entry.values
        return Result(
            key=pending.key, preimage=pending.preimage, outputs=outputs, values=values
        ), restored.entry.reasons

    def keep(self, step: Step, result: Result, reasons: tuple[str, ...]) -> None:
        """Keep what a step made in the cache, unless it stands for this build alone.

        Raises:
            OSError: the cache's folder cannot be written.
        """
        if result.provisional is not None:
            return
        outputs = {} if step.action == "dist" else result.outputs
        files = {
            role: (self.root / output.path, Digest(output.sha256, output.size_bytes))
            for role, output in outputs.items()
        }
        entry = Entry(schema=ENTRY_SCHEMA, values=result.values, reasons=reasons)
        with self.machine.hashing():
            self.cache.keep(result.key, entry, files, share=step.action != "benchmark")

    def perform(self, step: Step, pending: Pending, log: str, clock: Clock, *, locked: bool = False) -> Result:
        """Do the step; return what it made, in place.

        `locked` says that the caller already keeps benchmarks from starting.

        Raises:
            StepError: the step failed, or an input was edited meanwhile.
            OSError: its outputs could not be written.
        """
        if step.action == "dist":
            values: dict[str, Any] = {}
            with contextlib.nullcontext() if locked else self.machine.shared(), clock.running():
                stamps = self._stamps(step, pending)
                paths = dist_action.publish(self.root, step.parameters, input_paths(step), partial=False)
                self._check_unaltered(step, pending, stamps)
            outputs = {path: self._output(path, self.root / path) for path in paths}
        else:
            values, outputs = self.produce(step, pending, self.root / log, clock)
        for output in outputs.values():
            self.digests.remember(output.path, output.sha256)
        return Result(key=pending.key, preimage=pending.preimage, outputs=outputs, values=values)

    def produce(
        self, step: Step, pending: Pending, log: Path, clock: Clock
    ) -> tuple[dict[str, Any], dict[str, Output]]:
        """Do a step's action in a worker; return its values and its outputs, checked and in place. Nothing is kept.

        Raises:
            StepError: the step failed, or an input was edited meanwhile.
            OSError: its outputs could not be written.
        """
        stamps = self._stamps(step, pending)
        with self._scratch(step) as scratch:
            values = self._work(step, scratch, log, clock) if step.driver is None else self._drive(step, scratch, clock)
            self._check_unaltered(step, pending, stamps)
            made = {role: self._checked(step, scratch / Path(path).name) for role, path in step.outputs.items()}
            outputs = {role: self._output(step.outputs[role], path) for role, path in made.items()}
            for role, path in made.items():
                self._move(path, step.outputs[role])
        return values, outputs

    @contextlib.contextmanager
    def _scratch(self, step: Step) -> Iterator[Path]:
        """Give a step an empty folder on the file system of its outputs, and take it away after.

        No other build has one of this name: a worker that outlives its killed build for a moment writes nothing here.
        """
        folder = self._apart.outputs / SCRATCH_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{file_name(step.id)}.", dir=folder))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _move(self, path: Path, place: str) -> None:
        target = self._apart.outputs / place
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def _work(self, step: Step, scratch: Path, log: Path, clock: Clock) -> dict[str, Any]:
        """Do the step's action in a worker; a .tflite is then loaded and invoked in another one before it counts."""
        job = Job(
            step=step.id,
            action=step.action,
            parameters=step.parameters,
            inputs={role: str(self._place(given)) for role, given in step.inputs.items()},
            outputs={role: str(scratch / Path(path).name) for role, path in step.outputs.items()},
            root=str(self.root),
            scratch=str(scratch),
        )
        if step.action == "benchmark":
            with self._device(step), self._watched(job.step, clock):
                return self.pool.run("light", job, log)
        values = self._run_shared(worker_kind(step), job, log, clock)
        if "description" in step.outputs:
            self._probe(job, log, clock)
        return values

    def _place(self, given: Input) -> Path:
        return (self.root if given.step is None else self._apart.made_inputs) / given.path

    def _probe(self, job: Job, log: Path, clock: Clock) -> None:
        """Load, run and describe the .tflite that a job made: a kernel may refuse it, or end the process."""
        probe = msgspec.structs.replace(
            job, action=PROBE, parameters={"runtime": True}, inputs={"model": job.outputs["model"]}
        )
        try:
            self._run_shared("litert", probe, log, clock)
        except WorkerKilled:
            raise
        except WorkerDied as error:
            remedy = "keep_float keeps an op in float; or use another scheme" if job.action == "quantize" else ""
            raise StepError(f"{error}; the .tflite was being loaded and run{remedy and '; '}{remedy}") from error

    @contextlib.contextmanager
    def _device(self, step: Step) -> Iterator[None]:
        """Have a benchmark's device alone among all builds, and this machine too where the runner asks for that."""
        runner = plug_in("runners", step.parameters["runner"])
        device = step.id.rpartition("@")[2]
        identity = f"{step.runner} {runner.identity(msgspec.convert(step.parameters['options'], runner.Options))}"
        if runner.EXCLUSIVE:
            # The other steps go first, while somebody else may measure; what is waited for after that is short.
            self.machine.wait_for_the_others()
        with (
            device_lock.hold(
                identity,
                waiting=lambda pid: self._tell(
                    f"device {device}: another build (pid {pid}) measures there; waiting for it"
                ),
                without=lambda why: self._tell(
                    f"device {device}: no lock can be kept ({why}); others may measure meanwhile"
                ),
            ),
            self.machine.exclusive() if runner.EXCLUSIVE else self.machine.shared(),
        ):
            yield

    def _tell(self, text: str) -> None:
        """Say something once, however many steps meet it."""
        if text not in self._told:
            self._told.add(text)
            self.watcher.warned(text)

    def _run_shared(self, kind: Kind, job: Job, log: Path, clock: Clock) -> dict[str, Any]:
        main = job.action != PROBE  # the look at an artifact takes little, whatever making it took
        expected = self._peaks.expected(job.action, kind, clock.usual_bytes if main else None)
        claim = Claim(job.step, kind, expected)

        def peaked(peak_bytes: int) -> None:
            self._peaks.note(job.action, kind, peak_bytes)
            if main:
                clock.peak_bytes = peak_bytes

        with self.pool.slot(kind), self.machine.shared(claim), self._watched(job.step, clock):
            return self.pool.run(
                kind,
                job,
                log,
                progress=lambda done, total: self.watcher.progressed(job.step, done, total),
                peaked=peaked,
            )

    def _drive(self, step: Step, scratch: Path, clock: Clock) -> dict[str, Any]:
        """Let the step's driver have it made out of other steps, and take the outputs it chose."""
        assert step.driver is not None
        driver = importlib.import_module(f"quantbuild.drivers.{step.driver}")
        with self._watched(step.id, clock):
            driven: Driven = driver.drive(step, self._make, self._apart.made_inputs)
            for role, source in driven.files.items():
                shutil.copyfile(self._apart.outputs / source, scratch / Path(step.outputs[role]).name)
        if driven.provisional is None:
            return dict(driven.values)
        self._tell(f"{step.id}: {driven.provisional}")
        return {**driven.values, PROVISIONAL: driven.provisional}

    @contextlib.contextmanager
    def _watched(self, step: str, clock: Clock) -> Iterator[None]:
        self.watcher.started(step, clock.usual_seconds)
        try:
            with clock.running():
                yield
        finally:
            self.watcher.paused(step)

    def _stamps(self, step: Step, pending: Pending) -> list[tuple[tuple[str, Stamp], ...]]:
        """Return the stamps of a step's inputs, having made sure that they are what the key says."""
        stamps = []
        for role, given in step.inputs.items():
            digests = self.digests if given.step is None else self._apart.digests
            digests.forget_tree(given.path)  # a folder is walked once a build, but must be looked at anew here
            stamps.append(digests.stamps(given.path))
            digest = digests.digest(given.path)
            if digest is None or digest.sha256 != pending.preimage["inputs"][role]:
                raise StepError(f"{step.id}: its input {given.path} was edited during the build; run it again")
        return stamps

    def _check_unaltered(self, step: Step, pending: Pending, stamps: list[tuple[tuple[str, Stamp], ...]]) -> None:
        if self._stamps(step, pending) != stamps:
            raise StepError(f"{step.id}: one of its inputs was edited while it ran; run the build again")

    def _checked(self, step: Step, path: Path) -> Path:
        if not path.is_file():
            raise StepError(f"{step.id}: the action did not make {path.name}: a fault of quantbuild; see the log")
        return path

    def _output(self, path: str, content: Path) -> Output:
        return Output(path=path, sha256=sha256_of_file(content), size_bytes=content.stat().st_size)


def worker_kind(step: Step) -> Kind:
    """Return the kind of worker a step asks for: its source's or scheme's, else its action's."""
    if step.action == "convert":
        module = plug_in("sources", step.parameters["source"])
    elif step.action == "quantize":
        module = plug_in("schemes", step.parameters["scheme"])
        if hasattr(module, "worker"):
            kind: Kind = module.worker(step.parameters["options"])
            return kind
    else:
        module = importlib.import_module(f"quantbuild.actions.{step.action}")
    constant: Kind = module.WORKER
    return constant


def input_paths(step: Step) -> dict[str, str]:
    """Return role to path, relative to the root, of a step's inputs."""
    return {role: given.path for role, given in step.inputs.items()}
