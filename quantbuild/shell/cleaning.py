"""What `doit clean` removes: what a task's steps made, their records, and what stands of it in dist/."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from doit.action import PythonAction

from quantbuild.session import steps_of

if TYPE_CHECKING:
    from quantbuild.build import Build


class Cleaning(PythonAction):  # type: ignore[misc]  # doit has no types
    """What `doit clean` does for a task, under a name that says so: doit prints it before each."""

    def __str__(self) -> str:
        return "remove what it made"


def clean(build: Build, task: str, *, dryrun: bool, line: Callable[[str], None]) -> None:
    """Remove all that is of a task and there, telling `line` of each file; with `dryrun` tell alone."""
    for path in _paths_of(build, task):
        full = build.root / path
        if full.exists():
            line(f"{'would remove' if dryrun else 'removed'} {path}")
            if not dryrun:
                full.unlink()


def _paths_of(build: Build, task: str) -> list[str]:
    paths = [path for step_id in steps_of(task) for path in _paths_of_step(build, step_id)]
    return list(dict.fromkeys(paths))


def _paths_of_step(build: Build, step_id: str) -> list[str]:
    from quantbuild import dist
    from quantbuild.closing import SARIF_PATH
    from quantbuild.plan import record_path

    step = build.step(step_id)
    paths = list(step.outputs.values())
    if step_id == "check":
        paths.append(SARIF_PATH)
    if step_id == "dist":
        paths += [*_published(build.root / record_path(step)), dist.DEPFILE_PATH]
    elif step_id.startswith("quantize:"):
        model, _, variant = step_id.removeprefix("quantize:").partition("/")
        paths += dist.files_of(model, variant, build.workspace.models[model].shipped())
    return [*paths, record_path(step)]


def _published(record_path: Path) -> list[str]:
    """Return what the dist step published, by its record: it names one output, and publishes what there is."""
    from quantbuild.record import read_record

    record = read_record(record_path)
    return [] if record is None or record.result is None else list(record.result.outputs)
