"""The doit shell: tasks, order, selection and parallelism by doit; correctness by us. Only this module imports doit.

A task never fails in doit's eyes: its steps' outcomes are data, so that one failed step stops only what needs it, and
the exit code is settled when the run is complete. doit's database decides nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

from doit import Globals
from doit.action import PythonAction
from doit.runner import MRunner, MThreadRunner, Runner

from quantbuild import answers
from quantbuild.errors import EXIT_FAILED, EXIT_USAGE, QuantbuildError, told
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.machine import processors
from quantbuild.session import CLOSING_DOCS, GROUPS, OPTIONAL_GROUPS, Session, make_state_folder, steps_of
from quantbuild.standing import Task
from quantbuild.watcher import Watcher

if TYPE_CHECKING:
    from quantbuild.build import Build
    from quantbuild.outcome import Outcome
    from quantbuild.progress import Display

DATABASE = f"{STATE_FOLDER}/doit.db"
REPORT_PAGE = "build/report/index.html"
# More threads than processors: those that wait for the TensorFlow worker or for the machine alone must not keep ready
# steps from running. What really runs at once is bounded by ``Machine``.
THREADS_PER_PROCESSOR = 3
MOST_WAITING_BENCHMARKS = 32
MOST_REASONS_TOLD = 2
LONG_SECONDS = 10.0
"""From here on a step's start is worth a line where no display shows it."""

TaskDict = dict[str, Any]


def tasks() -> dict[str, Any]:
    """Return what a `dodo.py` puts into its namespace: doit's settings and the task creator.

    A manifest's errors end the process here with exit code 2, each on a line of its own.
    """
    # A process of a second that holds thousands of small objects to its end: collecting garbage finds none.
    gc.set_threshold(200_000, 50, 50)
    _answer_signals(lambda: None)
    _print_whatever_the_terminal_knows()
    _look_how_doit_runs()
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


def _answer_signals(end: Callable[[], None]) -> None:
    """On Ctrl-C and SIGTERM call `end` and end the process: finished steps have their records, that in flight none."""

    def interrupted(number: int, _frame: object) -> None:
        end()
        os.write(2, f"\nquantbuild: interrupted by {signal.Signals(number).name}; finished steps are kept\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)


def _print_whatever_the_terminal_knows() -> None:
    """Write what the terminal's encoding lacks (an arrow, a name) as an escape: no line of text may end a build."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _look_how_doit_runs() -> None:
    """Learn of -a, and refuse what would take exit code or outcomes from us: -r REPORTER, -P process and -s.

    Nothing but the runner knows of these, and doit hands it to nobody.
    """
    run_all = Runner.run_all

    def checked(runner: Runner, dispatcher: Any) -> Any:
        if not isinstance(runner.reporter, Reporter):
            _refuse("-r: another reporter would drop the exit code of failed steps; leave it out")
        if isinstance(runner, MRunner) and not isinstance(runner, MThreadRunner):
            _refuse("-P process: steps run in processes of their own already; leave it out, or use -P thread")
        shell = runner.reporter.shell_of_this_run
        closing = [task for task in shell.session.tasks() if task.name in CLOSING_DOCS]
        if any(task.needs and not dispatcher.tasks[task.name].task_dep for task in closing):
            _refuse("-s: check, dist and report are made of what the steps before them came to; leave it out")
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


def _refuse(problem: str) -> NoReturn:
    assert sys.__stderr__ is not None
    sys.__stderr__.write(f"doit: {problem}\n")  # the reporter may have replaced sys.stderr
    raise SystemExit(EXIT_USAGE)


class Shell:
    """Maps doit's tasks to a session's."""

    def __init__(self, root: Path) -> None:
        self._printing = threading.Lock()
        self._display = _display()
        self.session = Session(root, Terminal(self._line, self._display))
        self.run_everything = False
        """Whether doit was told to (-a)."""
        self._ignored = answers.ignored_tasks(root / DATABASE)
        self._aborted = False
        self._ending = False

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
        _answer_signals(self._end)
        atexit.register(self.session.close)
        self._take_lock()
        early, steps = _reached(tasks, selected, {task.name for task in self.session.tasks()})
        self.session.expect(early, steps)

    def _take_lock(self) -> None:
        try:
            self.session.take_lock(
                lambda pid: self._line(f"quantbuild: another build runs in this workspace (pid {pid}); waiting for it")
            )
        except QuantbuildError as error:
            self._abort(error)

    def finish(self) -> int:
        """Keep the state, print the closing lines; return the exit code."""
        if self._display is not None:
            self._display.stop()
        if self._aborted:
            return 0  # the exit code is on its way already
        try:
            ending = self.session.finish()
        except OSError as error:
            self._line(f"quantbuild: the build's state was not kept: {told(error)}")
            return EXIT_FAILED
        finally:
            self.session.close()
        for gate in ending.undecided_gates:
            self._line(f"gate undecided: {gate['model']}/{gate['variant']}: {gate['message']}")
        for gate in ending.failed_gates:
            self._line(f"gate failed: {gate['model']}/{gate['variant']}: {gate['message']}")
        if ending.reported:
            self._line(f"report: {REPORT_PAGE}")
        counted = ("executed", "restored", "up_to_date", "failed")
        self._line("quantbuild: " + ", ".join(f"{ending.counts[name]} {name.replace('_', ' ')}" for name in counted))
        return EXIT_FAILED if ending.failed else 0

    def _line(self, text: str) -> None:
        # doit replaces sys.stdout while an action runs; the true one is written to, whole lines at a time.
        if not self._ending and self._display is not None and self._display.line(text):
            return
        with self._printing:
            if self._ending:
                return
            assert sys.__stdout__ is not None
            try:
                sys.__stdout__.write(text + "\n")
                sys.__stdout__.flush()
            except OSError:
                # The reader (head, less) has had enough, the log's disk is full, the terminal is gone. The build goes
                # on: what it is for are files and the exit code.
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), sys.__stdout__.fileno())

    def _end(self) -> None:
        """End the workers and the display at once; what their end makes of the steps in flight is told to nobody."""
        self._ending = True
        self.session.close()
        if self._display is not None:
            self._display.stop()

    # Cleaning ------------------------------------------------------------------------------------------------------

    def _clean(self, task: str, dryrun: bool) -> None:
        """Remove what a task's steps made, their records and what stands of it in dist/ (`doit clean`)."""
        for path in self._paths_of(task):
            full = self.session.root / path
            if full.exists():
                self._line(f"{'would remove' if dryrun else 'removed'} {path}")
                if not dryrun:
                    full.unlink()

    def _paths_of(self, task: str) -> list[str]:
        from quantbuild import dist
        from quantbuild.closing import SARIF_PATH
        from quantbuild.plan import record_path
        from quantbuild.record import read_record

        build = self._build_to_alter()
        paths: list[str] = []
        for step_id in steps_of(task):
            step = build.step(step_id)
            paths += step.outputs.values()
            if step_id == "check":
                paths.append(SARIF_PATH)
            if step_id == "dist":  # it names one output and publishes what there is
                record = read_record(self.session.root / record_path(step))
                published = record.result.outputs if record is not None and record.result is not None else {}
                paths += [*published, dist.DEPFILE_PATH]
            elif step_id.startswith("quantize:"):
                model, _, variant = step_id.removeprefix("quantize:").partition("/")
                paths += dist.files_of(model, variant, build.workspace.models[model].shipped())
            paths.append(record_path(step))
        return list(dict.fromkeys(paths))

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


class Cleaning(PythonAction):  # type: ignore[misc]  # doit has no types
    """What `doit clean` does for a task, under a name that says so: doit prints it before each."""

    def __str__(self) -> str:
        return "remove what it made"


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


class Terminal(Watcher):
    """Tells the user what a build does: a line for each step that was done, and a display where there is a terminal."""

    def __init__(self, line: Callable[[str], None], display: Display | None) -> None:
        self._line = line
        self._display = display
        self._begun: set[str] = set()

    def planned(self, steps: Collection[str], usual_seconds: Callable[[str], float | None]) -> None:
        """Give the display its total, and what its estimate is made of."""
        if self._display is not None:
            self._display.planned(steps, usual_seconds)

    def started(self, step: str, usual_seconds: float | None) -> None:
        """Show what runs; without a display say of a long step how long it took last time, where that is known."""
        if self._display is not None:
            self._display.started(step, usual_seconds)
        elif step not in self._begun and usual_seconds is not None and usual_seconds >= LONG_SECONDS:
            from quantbuild.progress import duration

            self._begun.add(step)
            self._line(f"  {step}  begun; it took {duration(usual_seconds)} last time")

    def paused(self, step: str) -> None:
        """Show that it runs no more."""
        if self._display is not None:
            self._display.paused(step)

    def progressed(self, step: str, done: int, total: int) -> None:
        """Show how far it is."""
        if self._display is not None:
            self._display.progressed(step, done, total)

    def closed(self, outcome: Outcome) -> None:
        """Say what became of a step that was not up to date."""
        if self._display is not None:
            self._display.closed(outcome.step, outcome.seconds if outcome.status == "executed" else None)
        if outcome.status == "restored":
            self._line(f"  {outcome.step}  restored from the cache")
        elif outcome.status == "executed":
            self._line(f"  {outcome.step}  {outcome.seconds:.1f} s  ({_told(outcome.reasons)})")
        elif not outcome.done:
            log = f"; log: {outcome.log}" if outcome.log else ""
            status = {"failed": "failed: ", "not_measured": "not measured: "}.get(outcome.status, "")
            self._line(f"  {outcome.step}  {status}{outcome.message}{log}")
        if outcome.status in ("executed", "restored"):
            for warning in _warnings(outcome):
                self._line(f"    {warning}")

    def warned(self, text: str) -> None:
        """Say it."""
        self._line(text)


def _warnings(outcome: Outcome) -> list[str]:
    """Return what the step's lint found, a line each; what is only worth knowing is on the page."""
    found = [] if outcome.result is None else outcome.result.values.get("lint", [])
    return [f"{each['severity']}: {each['message']} [{each['rule']}]" for each in found if each["severity"] != "info"]


def _display() -> Display | None:
    """Return a display where the true standard output is a terminal that can move its cursor."""
    stream = sys.__stdout__
    if stream is None or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    from quantbuild.progress import Display

    return Display(stream)


def _reached(tasks: Mapping[str, Any], selected: Sequence[str], ours: set[str]) -> tuple[set[str], set[str]]:
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


def _told(reasons: Sequence[str]) -> str:
    """Return the first few reasons; `quantbuild explain` and build/last_run.json hold them all."""
    more = len(reasons) - MOST_REASONS_TOLD
    told = "; ".join(reasons[:MOST_REASONS_TOLD])
    return f"{told}; and {more} more" if more > 0 else told
