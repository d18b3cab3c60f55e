"""How many workers of which kind a build has, and how they share this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from quantbuild.execution import worker_kind
from quantbuild.machine import Machine, processors
from quantbuild.memory import Memory, bound_of
from quantbuild.step import Step
from quantbuild.system_memory import free_bytes
from quantbuild.workers import Kind, WorkerPool, step_timeout


def worker_pool(root: Path, steps: Mapping[str, Step], *, only_processors: frozenset[int] | None = None) -> WorkerPool:
    """Return a pool of workers for `steps`, on this process's processors or on those named.

    Raises:
        UsageError: the environment gives a step no number of seconds.
    """
    cores = len(only_processors) if only_processors is not None else processors()
    heavy = _tensorflow_workers(steps, cores)
    limits: dict[Kind, int] = {"light": cores, "litert": cores, "tensorflow": heavy}
    return WorkerPool(root, limits, processors=only_processors, timeout_seconds=step_timeout(os.environ))


def machine_for(pool: WorkerPool, *, short: Callable[[str], None]) -> Machine:
    """Return this machine, shared among the workers of `pool` as far as processors and memory go.

    `short` is told once, when first a step has to wait for memory.

    Raises:
        UsageError: the environment bounds the memory by what is no size.
    """
    memory = Memory(bound_bytes=bound_of(os.environ), free=free_bytes, residents=pool.residents, short=short)
    return Machine(processors(), memory)


def _tensorflow_workers(steps: Mapping[str, Step], cores: int) -> int:
    """Return how many TensorFlow workers may live at once.

    An import costs 9 s of processor time and 400 MB, so a second worker pays from a dozen steps or two conversions on.
    """
    made = (step for step in steps.values() if step.action in ("convert", "quantize"))
    return 1 if sum(worker_kind(step) == "tensorflow" for step in made) < 12 else cores
