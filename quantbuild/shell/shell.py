"""Maps doit's tasks to a session's, and one run of doit to a build."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from doit import Globals

from quantbuild import answers
from quantbuild.errors import EXIT_FAILED, QuantbuildError, told
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.session import GROUPS, OPTIONAL_GROUPS, Session, steps_of
from quantbuild.shell.cleaning import Cleaning, clean
from quantbuild.shell.printer import Printer
from quantbuild.shell.process import answer_signals
from quantbuild.shell.selection import reached
from quantbuild.shell.terminal import Terminal, ending_lines
from quantbuild.standing import Task

if TYPE_CHECKING:
    from quantbuild.build import Build

DATABASE = f"{STATE_FOLDER}/doit.db"

TaskDict = dict[str, Any]


class Shell:
    """Maps doit's tasks to a session's."""

    def __init__(self, root: Path) -> None:
        self._printer = Printer()
        self.session = Session(root, Terminal(self._printer.line, self._printer.display))
        self.run_everything = False
        """Whether doit was told to (-a)."""
        self._ignored = answers.ignored_tasks(root / DATABASE)
        self._aborted = False

    # Tasks ---------------------------------------------------------------------------------------------------------

    def tasks(self) -> Iterator[TaskDict]:
        """Yield doit's tasks: a group for each action, a task for each step, and the closing ones."""
        tasks = self.session.tasks()
        for action, doc in GROUPS.items():
            if action in OPTIONAL_GROUPS and not any(task.name.startswith(f"{action}:") for task in tasks):
                continue
            group: TaskDict = {"basename": action, "name": None, "doc": doc}
            if action == "quantize":
                group["task_dep"] = ["dist"]
            yield group
        for task in tasks:
            yield self._task(task)

    def _task(self, task: Task) -> TaskDict:
        basename, _, sub_name = task.name.partition(":")
        made: TaskDict = {
            "basename": basename,
            "actions": [(self._run, (task.name,))],
            "task_dep": task.needs,
            "clean": [Cleaning(self._clean, (task.name,))],
            "doc": task.doc,
        }
        if sub_name:
            made["name"] = sub_name
        return made

    def _settled(self, task: str) -> bool:
        try:
            return self.session.settle(task)
        except QuantbuildError as error:
            self._abort(error)

    def _abort(self, error: QuantbuildError) -> NoReturn:
        """End the process: a file that the manifests name was taken away, or the state cannot be written any more."""
        sys.stderr.write(f"{error}\n")
        self._aborted = True
        raise SystemExit(error.exit_code) from None

    def _run(self, task: str) -> bool:
        """Do a task's steps. doit calls it for a settled task only where it was told to run everything."""
        self.session.run(task, forced=self.run_everything)
        return True

    # Run -----------------------------------------------------------------------------------------------------------

    def begin(self, tasks: Mapping[str, Any], selected: Sequence[str]) -> None:
        """Answer signals by ending the workers, take the workspace's lock, and let benchmarks come last."""
        answer_signals(self._end)
        atexit.register(self.session.close)
        self._take_lock()
        early, steps = reached(tasks, selected, {task.name for task in self.session.tasks()})
        self.session.expect(early, steps)

    def _take_lock(self) -> None:
        def waiting(pid: str) -> None:
            self._printer.line(f"quantbuild: another build runs in this workspace (pid {pid}); waiting for it")

        try:
            self.session.take_lock(waiting)
        except QuantbuildError as error:
            self._abort(error)

    def finish(self) -> int:
        """Keep the state, print the closing lines; return the exit code."""
        self._printer.take_display_away()
        if self._aborted:
            return 0  # the exit code is on its way already
        try:
            ending = self.session.finish()
        except OSError as error:
            self._printer.line(f"quantbuild: the build's state was not kept: {told(error)}")
            return EXIT_FAILED
        finally:
            self.session.close()
        for line in ending_lines(ending):
            self._printer.line(line)
        return EXIT_FAILED if ending.failed else 0

    def _end(self) -> None:
        """End the workers and the display at once; what their end makes of the steps in flight is told to nobody."""
        self._printer.end()
        self.session.close()
        self._printer.take_display_away()

    # What alters the workspace without a run -----------------------------------------------------------------------

    def _clean(self, task: str, dryrun: bool) -> None:
        clean(self._build_to_alter(), task, dryrun=dryrun, line=self._printer.line)

    def _build_to_alter(self) -> Build:
        """Return the build proper, with no other process at work in the workspace."""
        self._take_lock()
        try:
            return self.session.build
        except QuantbuildError as error:
            self._abort(error)

    def answer_doit(self) -> None:
        """Answer for our tasks what doit would ask its database, and give `doit forget` its meaning."""
        if Globals.dep_manager is not None:
            ours = {task.name for task in self.session.tasks()}
            answers.take_over(Globals.dep_manager, ours, self._ignored, self._settled, self._forget)

    def _forget(self, task: str) -> None:
        for step_id in steps_of(task):
            self._build_to_alter().forget(step_id)
