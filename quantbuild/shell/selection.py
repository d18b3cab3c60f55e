"""Which steps one run of doit reaches, and which of them benchmarks let go first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbuild.session import steps_of


def reached(tasks: Mapping[str, Any], selected: Sequence[str], ours: set[str]) -> tuple[set[str], set[str]]:
    """Return the steps of a run that benchmarks let go first (none themselves, needing none), and all its steps.

    `ours` are quantbuild's tasks: a dodo.py may hold others, which settle no step.
    """
    late: dict[str, bool] = {}

    def visit(name: str) -> bool:
        if name not in late:
            late[name] = name.startswith("benchmark:") or any(list(map(visit, tasks[name].task_dep)))
        return late[name]

    for name in selected:
        visit(name)
    steps = {step for name in late if name in ours for step in steps_of(name)}
    return {name for name, is_late in late.items() if not is_late and name in ours}, steps
