"""What a user's `dodo.py` puts into its namespace."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quantbuild import answers
from quantbuild.errors import EXIT_USAGE, QuantbuildError, told
from quantbuild.machine import processors
from quantbuild.session import make_state_folder
from quantbuild.shell.process import answer_signals, print_whatever_the_terminal_knows
from quantbuild.shell.refusals import look_how_doit_runs
from quantbuild.shell.reporter import Reporter
from quantbuild.shell.shell import DATABASE, Shell, TaskDict
from quantbuild.shell.unknown_tasks import tell_what_was_meant

# More threads than processors: those that wait for the TensorFlow worker or for the machine alone must not keep ready
# steps from running. What really runs at once is bounded by ``Machine``.
THREADS_PER_PROCESSOR = 3
MOST_WAITING_BENCHMARKS = 32


def tasks() -> dict[str, Any]:
    """Return what a `dodo.py` puts into its namespace: doit's settings and the task creator.

    A manifest's errors end the process here with exit code 2, each on a line of its own.
    """
    # A process of a second that holds thousands of small objects to its end: collecting garbage finds none.
    gc.set_threshold(200_000, 50, 50)
    answer_signals(lambda: None)
    print_whatever_the_terminal_knows()
    look_how_doit_runs()
    tell_what_was_meant()
    root = Path.cwd()
    try:
        make_state_folder(root)
        shell = Shell(root)
    except QuantbuildError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        sys.stderr.write(f"{told(error)}\n")
        raise SystemExit(EXIT_USAGE) from None

    def task_quantbuild() -> Iterator[TaskDict]:
        shell.answer_doit()
        yield from shell.tasks()

    class BoundReporter(Reporter):
        shell_of_this_run = shell

    benchmarks = sum(task.name.startswith("benchmark:") for task in shell.session.tasks())
    return {
        "DOIT_CONFIG": {
            "backend": "sqlite3",
            "dep_file": answers.usable_database(DATABASE),
            "default_tasks": ["report"],
            "num_process": THREADS_PER_PROCESSOR * processors() + min(benchmarks, MOST_WAITING_BENCHMARKS),
            "par_type": "thread",
            "reporter": BoundReporter,
            "verbosity": 0,
        },
        "task_quantbuild": task_quantbuild,
    }
