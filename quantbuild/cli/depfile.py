"""`quantbuild depfile`: what dist/ depends on, for other build systems."""

from __future__ import annotations

import argparse
from pathlib import Path

from quantbuild.cli.commands import EPILOG, Commands, workspace_root
from quantbuild.errors import EXIT_DONE, UsageError


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "depfile",
        help="print what dist/ depends on, for Ninja, CMake and Make",
        description="Print a depfile: what stands in dist/ depends on these files of yours. dist/quantbuild.d is the "
        "same with paths relative to the workspace, for Ninja run there; here they are absolute, as CMake takes them.",
        epilog=EPILOG,
    )
    command.add_argument("--output", metavar="FILE", help="write it there instead")
    command.add_argument(
        "--target",
        metavar="NAME",
        action="append",
        help="what depends on them, word for word as your build file names it; may be repeated (default: every .tflite "
        "in dist/)",
    )
    command.add_argument("--relative-to", metavar="DIR", help="paths as seen from there, where your build runs")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print or write a depfile of what stands in dist/."""
    from quantbuild import aside, depfile
    from quantbuild.manifest.loading import load

    root = workspace_root()
    workspace = load(root)
    labels = [model.labels for model in workspace.models.values() if model.labels is not None]
    targets, depends = depfile.of_lock(root, labels, workspace.files)
    seen_from = None if options.relative_to is None else Path(options.relative_to).absolute()
    text = depfile.rule(
        options.target or depfile.spelled(targets, root, seen_from), depfile.spelled(depends, root, seen_from)
    )
    if options.output is None:
        print(text.decode(), end="")
        return EXIT_DONE
    try:
        aside.replace(Path(options.output), text)
    except OSError as error:
        raise UsageError(f"{options.output}: {error.strerror}; make its folder, or name another file") from error
    return EXIT_DONE
