"""`quantbuild init`: a small working workspace, from data inside the package."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from quantbuild.errors import UsageError

HERE = Path(__file__).parent
IN_WHEEL = HERE / "digits"
IN_CHECKOUT = HERE.parents[1] / "examples" / "digits"

DODO = "from quantbuild.shell import tasks\nglobals().update(tasks())\n"
IGNORED = "/build/\n/dist/\n"
# Where each file of the example goes in the new workspace.
EXAMPLE_FILES = {
    "digits.npz": "data/digits.npz",
    "LICENSE": "data/LICENSE",
    "model.keras": "models/digits.keras",
    "labels.txt": "models/labels.txt",
}
TOP_LEVEL = ("dodo.py", "manifests", "manifest.schema.json", "data", "models")


def example_folder() -> Path:
    """Return the folder of the example's files: inside an installed wheel, or in a checkout.

    Raises:
        UsageError: this installation has neither.
    """
    for folder in (IN_WHEEL, IN_CHECKOUT):
        if all((folder / name).is_file() for name in EXAMPLE_FILES):
            return folder
    raise UsageError("quantbuild init: the example's files are not in this installation; install quantbuild again")


def create(folder: Path) -> list[str]:
    """Write a workspace into `folder`, which may exist; return the names of what was put there.

    All of it is made aside and moved into place at the end; where that fails, it is taken away again. A README or
    .gitignore of the user's stays.

    Raises:
        UsageError: something of a workspace is there already, or the folder cannot be written.
    """
    there = [name for name in TOP_LEVEL if os.path.lexists(folder / name)]
    if there:
        raise UsageError(f"{folder}: {', '.join(there)} is there already; choose an empty folder")
    example = example_folder()
    try:
        with _made(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".quantbuild-init-") as aside:
            _write(Path(aside), example)
            new = [path for path in sorted(Path(aside).iterdir()) if not os.path.lexists(folder / path.name)]
            _move_all(new, folder)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror}; choose a folder that can be written") from None
    return [path.name for path in new]


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; take away again what was made, where the work inside fails."""
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for place in absent:
            with contextlib.suppress(OSError):  # somebody put a file there meanwhile: it is theirs
                place.rmdir()
        raise


def _move_all(paths: Sequence[Path], folder: Path) -> None:
    """Move all of `paths` into `folder`, or none."""
    moved: list[Path] = []
    try:
        for path in paths:
            path.rename(folder / path.name)
            moved.append(path)
    except BaseException:
        for path in moved:
            (folder / path.name).rename(path)  # its folder goes, and it with that
        raise


def _write(folder: Path, example: Path) -> None:
    from quantbuild.manifest.schema import json_schema

    for name, place in EXAMPLE_FILES.items():
        target = folder / place
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(example / name, target)
    (folder / "manifests").mkdir()
    shutil.copyfile(HERE / "workspace.toml", folder / "manifests" / "digits.toml")
    shutil.copyfile(HERE / "workspace_readme.md", folder / "README.md")
    (folder / "manifest.schema.json").write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
    (folder / "dodo.py").write_text(DODO, encoding="utf-8")
    (folder / ".gitignore").write_text(IGNORED, encoding="utf-8")
