"""Runs samples through interpreters side by side, with a few of them in memory at a time, results in their order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Protocol, TypeVar

from quantbuild.tflite import graph
from quantbuild.tflite.feeding import SampleError

STATEFUL = frozenset({"ASSIGN_VARIABLE", "RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"})
"""Ops whose result depends on earlier runs of the same interpreter, and cannot be reset."""

Feed = TypeVar("Feed")
Feed_contra = TypeVar("Feed_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class Reader(Protocol[Feed_contra, Result_co]):
    """One interpreter: runs a sample and reads something of it. Not to be shared by threads."""

    def read(self, feed: Feed_contra) -> Result_co:
        """Raise RuntimeError when the interpreter cannot run the sample."""
        ...


def usable_interpreters(model: graph.ModelT, wanted: int | None = None) -> int:
    """Return how many may run side by side: `wanted`, else one per usable core; one where a run depends on others."""
    if any(STATEFUL & set(graph.op_names(model, each)) for each in model.subgraphs):
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return wanted or cores


def read_in_order(
    make: Callable[[], Reader[Feed, Result_co]], samples: Iterable[tuple[int, Feed]], interpreters: int
) -> Iterator[tuple[int, Feed, Result_co]]:
    """Give (number, feed, what was read) in the samples' order; raise SampleError for one that does not run.

    Invoke and the copies release the GIL, so threads run side by side. Readers are made as samples come,
    for a set smaller than the machine.
    """
    idle: SimpleQueue[Reader[Feed, Result_co]] = SimpleQueue()
    opened = 0
    pending: deque[tuple[int, Feed, Future[Result_co]]] = deque()
    with ThreadPoolExecutor(interpreters) as pool:
        for number, feed in samples:
            if opened < interpreters:
                idle.put(make())
                opened += 1
            pending.append((number, feed, pool.submit(_read_one, idle, number, feed)))
            if len(pending) > 2 * interpreters:
                first, its_feed, future = pending.popleft()
                yield first, its_feed, future.result()
        for number, feed, future in pending:
            yield number, feed, future.result()


def _read_one(idle: SimpleQueue[Reader[Feed, Result_co]], number: int, feed: Feed) -> Result_co:
    reader = idle.get()
    try:
        return reader.read(feed)
    except (RuntimeError, ValueError) as error:
        raise SampleError(f"sample {number}: the model cannot run it ({first_line(error)}); see the log") from error
    finally:
        idle.put(reader)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
