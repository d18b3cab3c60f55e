"""A pool of spawned worker processes, each doing one step at a time; a death, hang or kill costs that step alone."""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from quantbuild.errors import MachineError, StepError, UnreachableError, UsageError, WorkerDied, WorkerKilled
from quantbuild.step import Job
from quantbuild.system_memory import resident_bytes

Kind = Literal["light", "litert", "tensorflow"]

# A worker is replaced once it holds this much: the TensorFlow converter leaks on every call (tensorflow#122598).
RECYCLE_ABOVE_BYTES = 3 * 1024**3
STEP_TIMEOUT_SECONDS = 3600.0
TIMEOUT_VARIABLE = "QUANTBUILD_STEP_TIMEOUT"
# What a worker forked may keep its pipe open, so that its death has to be looked for.
LOOK_SECONDS = 1.0
END_TIMEOUT_SECONDS = 5.0

WORKER_ENVIRONMENT = {
    "CUDA_VISIBLE_DEVICES": "-1",
    "KERAS_BACKEND": "tensorflow",
    "PYTHONHASHSEED": "0",
    "PYTHONUNBUFFERED": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_USE_LEGACY_KERAS": "0",
}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent writes to a worker: a job and the log its descriptors 1 and 2 go to."""

    job: Job
    log: str


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker writes back: values, or one line of error; and its resident memory in bytes."""

    values: dict[str, Any] | None = None
    error: str | None = None
    unexpected: bool = False
    unreachable: bool = False
    by_machine: bool = False
    """Whether memory or room ran out."""
    resident_bytes: int = 0
    peak_bytes: int | None = None
    """The most that the worker held while it did the job; None where the system does not tell."""
    progress: tuple[int, int] | None = None
    """Samples done and all of them: no reply yet, a word on the way."""


def step_timeout(environ: Mapping[str, str]) -> float:
    """Return how many seconds a step may take: an hour, or as the environment says. Raises UsageError."""
    text = environ.get(TIMEOUT_VARIABLE)
    if not text:
        return STEP_TIMEOUT_SECONDS
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise UsageError(f'{TIMEOUT_VARIABLE}: "{text}" is no number of seconds above 0; write one, or unset it')


class Residents(NamedTuple):
    """What the workers hold now, in bytes: the busy ones by step, the idle ones by kind, the next to be used last."""

    busy: Mapping[str, int]
    idle: Mapping[Kind, Sequence[int]]


class _Worker:
    """One process and its two pipes."""

    def __init__(self, kind: Kind, root: Path, processors: frozenset[int] | None) -> None:
        self.kind = kind
        reply_read, reply_write = os.pipe()
        environment = {**os.environ, **WORKER_ENVIRONMENT}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "quantbuild.worker_main", str(reply_write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(reply_write,),
            cwd=root,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends the workers
        )
        if processors is not None:
            os.sched_setaffinity(self.process.pid, processors)
        os.close(reply_write)
        self._replies = os.fdopen(reply_read, "rb", buffering=0)
        self._unread = b""

    def ask(self, request: Request, timeout_seconds: float, progress: Callable[[int, int], None]) -> Reply | None:
        """Send a request and wait for its reply; None when the process died.

        Raises:
            TimeoutError: no reply came in time.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(msgspec.json.encode(request) + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        deadline = time.monotonic() + timeout_seconds
        while True:
            line = self._read_line(deadline)
            if not line.endswith(b"\n"):
                return None
            reply = msgspec.json.decode(line, type=Reply)
            if reply.progress is None:
                return reply
            progress(*reply.progress)

    def _read_line(self, deadline: float) -> bytes:
        with selectors.DefaultSelector() as selector:
            selector.register(self._replies, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                left = deadline - time.monotonic()
                if not selector.select(min(max(0.0, left), LOOK_SECONDS)):
                    if left <= 0:
                        raise TimeoutError
                    if self.process.poll() is None or selector.select(0):
                        continue
                    break
                piece = self._replies.read(65536)
                if not piece:
                    break
                self._unread += piece
        line, newline, self._unread = self._unread.partition(b"\n")
        return line + newline

    def await_end(self) -> None:
        """Let a process that has closed its pipe end, so that what is told of its end is not our own signal."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=END_TIMEOUT_SECONDS)

    def kill(self) -> None:
        """End the process and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._close()

    def stop(self) -> None:
        """Let an idle worker end by itself."""
        self._close()
        try:
            self.process.wait(timeout=END_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _close(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self._replies.close()


class WorkerPool:
    """Workers by kind, started when first needed and reused; `limits` bounds how many of a kind live at once.

    `processors` are those that the workers may use, None for all of this process (a system need not know of such sets).
    """

    def __init__(
        self,
        root: Path,
        limits: dict[Kind, int],
        *,
        processors: frozenset[int] | None = None,
        timeout_seconds: float = STEP_TIMEOUT_SECONDS,
    ) -> None:
        self._root = root
        self._timeout_seconds = timeout_seconds
        self._processors = processors
        self._idle: dict[Kind, list[_Worker]] = {kind: [] for kind in limits}
        self._busy: dict[_Worker, str] = {}
        self._slots = {kind: threading.Semaphore(limit) for kind, limit in limits.items()}
        # Reentrant: Ctrl-C closes the pool in the main thread, which may be starting a worker just then (doit -n 1).
        self._lock = threading.RLock()
        self._closed = False
        self.started: dict[Kind, int] = dict.fromkeys(limits, 0)

    @contextlib.contextmanager
    def slot(self, kind: Kind) -> Iterator[None]:
        """Hold the right to one worker of `kind`."""
        with self._slots[kind]:
            yield

    def run(
        self,
        kind: Kind,
        job: Job,
        log: Path,
        *,
        timeout_seconds: float | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
        peaked: Callable[[int], None] = lambda peak_bytes: None,
    ) -> dict[str, Any]:
        """Do `job` in a worker of `kind`; return the action's values.

        `progress` is told how many samples are done, and of how many; `peaked` the most bytes that the worker held.

        Raises:
            UnreachableError: the step's device cannot be reached.
            StepError: the step failed; the message says why in one line. WorkerDied where its process ended,
                MachineError where time, memory or room ran out.
        """
        timeout_seconds = timeout_seconds or self._timeout_seconds
        worker = self._take(kind, job.step)
        try:
            reply = worker.ask(Request(job=job, log=str(log)), timeout_seconds, progress)
        except TimeoutError:
            self._drop(worker)
            raise MachineError(
                f"{job.step}: no result after {timeout_seconds:.0f} s, its worker was stopped; see its log, "
                f"or set {TIMEOUT_VARIABLE} to more seconds"
            ) from None
        except BaseException:
            self._drop(worker)
            raise
        if reply is None:
            worker.await_end()
            self._drop(worker)
            code = worker.process.returncode
            raise (WorkerKilled if code == -signal.SIGKILL else WorkerDied)(f"{job.step}: {_death(code)}")
        self._give_back(worker, reply)
        if reply.peak_bytes is not None:
            peaked(reply.peak_bytes)
        if reply.error is not None:
            error = UnreachableError if reply.unreachable else MachineError if reply.by_machine else StepError
            raise error(reply.error)
        return reply.values or {}

    def residents(self) -> Residents:
        """Return what the workers hold now."""
        with self._lock:
            busy = {step: worker.process.pid for worker, step in self._busy.items()}
            idle = {kind: [worker.process.pid for worker in workers] for kind, workers in self._idle.items()}
        return Residents(
            busy={step: resident_bytes(pid) for step, pid in busy.items()},
            idle={kind: [resident_bytes(pid) for pid in pids] for kind, pids in idle.items()},
        )

    def close(self) -> None:
        """Stop idle workers and kill busy ones."""
        with self._lock:
            self._closed = True
            idle = [worker for workers in self._idle.values() for worker in workers]
            busy = list(self._busy)
            for workers in self._idle.values():
                workers.clear()
        for worker in busy:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGKILL)
        for worker in idle:
            worker.stop()

    def _take(self, kind: Kind, step: str) -> _Worker:
        with self._lock:
            if self._closed:
                raise StepError("the build is being stopped")
            while self._idle[kind]:
                worker = self._idle[kind].pop()
                if worker.process.poll() is None:
                    break
                worker.kill()
            else:
                worker = _Worker(kind, self._root, self._processors)
                self.started[kind] += 1
            self._busy[worker] = step
            return worker

    def _give_back(self, worker: _Worker, reply: Reply) -> None:
        with self._lock:
            self._busy.pop(worker, None)
            keep = reply.resident_bytes < RECYCLE_ABOVE_BYTES and not self._closed
            if keep:
                self._idle[worker.kind].append(worker)
        if not keep:
            worker.stop()

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        with self._lock:
            self._busy.pop(worker, None)


def _death(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        number = -returncode
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = "unknown"
        hint = ", often the sign that memory ran out" if number == signal.SIGKILL else ""
        return f"its worker was ended by signal {number} ({name}{hint}); the other steps go on; see its log"
    return f"its worker ended by itself with exit code {returncode}; the other steps go on; see its log"
