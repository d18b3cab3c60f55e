"""What quantbuild refuses of doit, and what it learns of how doit was called: by patches, since doit tells nobody."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from doit.runner import MRunner, MThreadRunner, Runner

from quantbuild.errors import EXIT_USAGE
from quantbuild.session import CLOSING_DOCS
from quantbuild.shell.reporter import Reporter


def look_how_doit_runs() -> None:
    """Learn of -a, and refuse what would take exit code or outcomes from us: -r REPORTER, -P process and -s.

    Nothing but the runner knows of these, and doit hands it to nobody.
    """
    run_all = Runner.run_all

    def checked(runner: Runner, dispatcher: Any) -> Any:
        if not isinstance(runner.reporter, Reporter):
            refuse("-r: another reporter would drop the exit code of failed steps; leave it out")
        if isinstance(runner, MRunner) and not isinstance(runner, MThreadRunner):
            refuse("-P process: steps run in processes of their own already; leave it out, or use -P thread")
        shell = runner.reporter.shell_of_this_run
        closing = [task for task in shell.session.tasks() if task.name in CLOSING_DOCS]
        if any(task.needs and not dispatcher.tasks[task.name].task_dep for task in closing):
            refuse("-s: check, dist and report are made of what the steps before them came to; leave it out")
        shell.run_everything = runner.always_execute
        _make_losing_the_database_harmless(runner.dep_manager)
        return run_all(runner, dispatcher)

    Runner.run_all = checked


def _make_losing_the_database_harmless(manager: Any) -> None:
    """Go on where doit's database cannot be written (a full disk): it decides nothing."""
    close: Callable[[], None] = manager.close

    def close_if_possible() -> None:
        with contextlib.suppress(sqlite3.Error):
            close()

    manager.close = close_if_possible


def refuse(problem: str) -> NoReturn:
    """End the process with the exit code of a usage error."""
    assert sys.__stderr__ is not None
    sys.__stderr__.write(f"doit: {problem}\n")  # the reporter may have replaced sys.stderr
    raise SystemExit(EXIT_USAGE)
