"""`quantbuild init`: a small working workspace."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from quantbuild.cli.commands import EPILOG, Commands
from quantbuild.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("init", help="write a small working workspace", epilog=EPILOG)
    command.add_argument("folder", metavar="DIR", nargs="?", default=".", help="where; made if absent (default: here)")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Write a workspace and say what to do next."""
    from quantbuild import starter

    folder = Path(options.folder)
    made = starter.create(folder)
    here = folder.resolve() == Path.cwd()
    print(f"wrote {', '.join(made)}" + ("" if here else f" into {folder}"))
    if ".gitignore" not in made:
        print(f"kept your .gitignore; it should ignore {' and '.join(starter.IGNORED.split())}")
    enter = "" if here else f"cd {shlex.quote(options.folder)} && "
    print(f"next: {enter}doit report")
    return EXIT_DONE
