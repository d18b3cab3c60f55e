"""`quantbuild explain`: why a step is not up to date."""

from __future__ import annotations

import argparse

from quantbuild.cli.commands import EPILOG, Commands, build_here, meant
from quantbuild.errors import EXIT_DONE, UsageError


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("explain", help="say whether a step is up to date, or why not", epilog=EPILOG)
    command.add_argument("step", metavar="STEP", help="a step's id as `quantbuild plan` prints it")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print that a step is up to date, or each reason why not, old → new."""
    from quantbuild.freshness import NEVER_BUILT
    from quantbuild.look import Look

    build = build_here()
    look = Look(build)
    if options.step not in look.known_steps():
        raise UsageError(f"{options.step}: no such step; {meant(options.step, look.known_steps())}")
    reasons = look.explain(options.step)
    if not reasons:
        print(f"{options.step}: up to date")
        return EXIT_DONE
    for reason in reasons:
        print(f"{options.step}: {reason.explained()}")
    if NEVER_BUILT in reasons:
        print(f"{options.step}: run `doit {options.step}` to build it")
    return EXIT_DONE
