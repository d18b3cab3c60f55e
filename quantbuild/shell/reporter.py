"""doit's reporter: what doit tells of tasks is left unsaid, since steps speak for themselves."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

from quantbuild.errors import EXIT_FAILED

if TYPE_CHECKING:
    from quantbuild.shell.shell import Shell


class Reporter:
    """doit's reporter: quiet about tasks, since steps speak for themselves; it settles the exit code at the end."""

    desc = "quantbuild's closing line and exit code"
    shell_of_this_run: Shell

    def __init__(self, outstream: IO[str], options: dict[str, Any]) -> None:
        self._errors: list[str] = []
        del outstream, options

    def initialize(self, tasks: dict[str, Any], selected_tasks: list[str]) -> None:
        """Begin the run."""
        self.shell_of_this_run.begin(tasks, selected_tasks)

    def get_status(self, task: Any) -> None:
        """Nothing to say: whether a step is fresh is said when it is settled."""

    def execute_task(self, task: Any) -> None:
        """Nothing to say before a task: its steps are told when they are done."""

    def add_success(self, task: Any) -> None:
        """Nothing to say: an outcome was told when it was kept."""

    def skip_uptodate(self, task: Any) -> None:
        """Nothing to say: the closing line counts it."""

    def skip_ignore(self, task: Any) -> None:
        """Say that doit was told to ignore a task."""
        self._errors.append(f"{task.name}: ignored, as `doit ignore` was told; `doit forget {task.name}` ends that")

    def teardown_task(self, task: Any) -> None:
        """No task has a teardown."""

    def add_failure(self, task: Any, fail: Any) -> None:
        """Keep a failure that is doit's or ours, never a step's."""
        self._errors.append(f"{task.name}: {fail.get_msg()}")

    def cleanup_error(self, exception: Any) -> None:
        """Keep an error of doit's cleaning up."""
        self._errors.append(exception.get_msg())

    def runtime_error(self, message: str) -> None:
        """Keep an error of doit's own."""
        self._errors.append(message)

    def complete_run(self) -> None:
        """Settle the exit code, however doit was called."""
        for error in self._errors:
            sys.stderr.write(f"{error}\n")
        code = self.shell_of_this_run.finish()
        if code or self._errors:
            raise SystemExit(code or EXIT_FAILED)
