"""What doit asks its database of our tasks, answered by us: the database decides nothing, so it is not asked.

doit looks there four times a task, which is a tenth of what a build with nothing to do costs. Its tasks of the user's
own, in the same `dodo.py`, are its business as ever.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

IGNORED = "SELECT task_id FROM doit WHERE task_data LIKE '%\"ignore:\"%'"


class Status:
    """What doit reads of a task's status (``doit.dependency.DependencyStatus``)."""

    __slots__ = ("error_reason", "reasons", "status")

    def __init__(self, *, settled: bool) -> None:
        self.status = "up-to-date" if settled else "run"
        self.error_reason: str | None = None
        self.reasons: defaultdict[str, list[Any]] = defaultdict(list)

    def get_error_message(self) -> str | None:
        """Return nothing: what a step lacks is an outcome of its own."""
        return self.error_reason


def ignored_tasks(database: Path) -> frozenset[str]:
    """Return the tasks that `doit ignore` was told of; drop a database that doit would refuse with a traceback."""
    if not database.is_file():
        return frozenset()
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            return frozenset(name for (name,) in connection.execute(IGNORED))
    except sqlite3.OperationalError:
        return frozenset()  # it has no table yet, or another build is writing it
    except sqlite3.DatabaseError:
        database.unlink()
        return frozenset()


def usable_database(path: str) -> str:
    """Return `path` if doit's database is there or can be made, else one in memory: it decides nothing of ours."""
    if Path(path).exists():
        return path
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("create table if not exists doit (task_id text not null primary key, task_data json)")
    except sqlite3.Error:  # no room, or nobody may write there
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
        return ":memory:"
    return path


def take_over(
    manager: Any,
    ours: Collection[str],
    ignored: Collection[str],
    settled: Callable[[str], bool],
    forget: Callable[[str], None],
) -> None:
    """Let `manager` (``doit.dependency.Dependency``) ask `settled` of our tasks, and tell `forget` of what it drops.

    Nothing of ours is written to the database but what `doit ignore` says.
    """
    get_status, get_values, is_ignored = manager.get_status, manager.get_values, manager.status_is_ignore
    save_success, remove, remove_all = manager.save_success, manager.remove, manager.remove_all

    def our_status(task: Any, tasks: Any, get_log: bool = False) -> Any:
        if task.name not in ours:
            return get_status(task, tasks, get_log)
        task.dep_changed = []
        return Status(settled=settled(task.name))

    def our_values(name: str) -> Any:
        return {} if name in ours else get_values(name)

    def our_ignored(task: Any) -> Any:
        return task.name in ignored if task.name in ours else is_ignored(task)

    def our_success(task: Any, result_hash: str | None = None) -> None:
        if task.name not in ours:
            save_success(task, result_hash)

    def our_remove(name: str) -> None:
        if name in ours:  # neither a group nor a task of the user's own
            forget(name)
        remove(name)

    def our_remove_all() -> None:
        for name in ours:
            forget(name)
        remove_all()

    manager.get_status, manager.get_values, manager.status_is_ignore = our_status, our_values, our_ignored
    manager.save_success, manager.remove, manager.remove_all = our_success, our_remove, our_remove_all
