"""A name on doit's command line that no task has: told in one line, with the task that was perhaps meant."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from doit.cmd_clean import Clean
from doit.cmd_forget import Forget
from doit.cmd_ignore import Ignore
from doit.cmd_info import Info
from doit.cmd_list import List
from doit.control import TaskControl
from doit.exceptions import InvalidCommand

from quantbuild.shell.refusals import refuse


def tell_what_was_meant() -> None:
    """Refuse a name that is no task before doit does, whose exit code for it is 3 and whose `info` has a traceback."""
    process = TaskControl.process

    def processed(control: TaskControl, selection: list[str] | None) -> None:
        try:
            process(control, selection)
        except InvalidCommand as error:
            if error.not_found is None:
                raise
            _refuse(error.not_found, {*control.tasks, *_commands()})

    TaskControl.process = processed
    for command in (Clean, Forget, Ignore, Info, List):
        command._execute = _checked(command._execute)  # noqa: SLF001 - what doit calls once the tasks are loaded


def _checked(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)  # doit reads its parameters
    def checked(command: Any, **options: Any) -> Any:
        tasks = {task.name for task in command.task_list}
        for name in () if command.sel_default_tasks else command.sel_tasks:
            if name not in tasks and "*" not in name:
                _refuse(name, tasks)
        return execute(command, **options)

    return checked


def _refuse(name: str, known: Iterable[str]) -> None:
    from quantbuild.manifest.problems import nearest, quoted

    meant = nearest(name, sorted(known))
    remedy = f"did you mean {quoted(meant)}?" if meant else "`doit list --all` shows them all"
    refuse(f"{name}: no such task; {remedy}")


def _commands() -> list[str]:
    """Return doit's commands: a misspelt one is taken for a task to run."""
    from doit.doit_cmd import DoitMain

    return [command.get_name() for command in DoitMain.DOIT_CMDS]
