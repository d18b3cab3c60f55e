"""The parser of all commands, and their exit codes. Building itself is doit's command line over the same steps."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence

from quantbuild import __version__
from quantbuild.cli import cache, depfile, doctor, explain, init, nodes, plan, schema, verify
from quantbuild.cli.commands import EPILOG
from quantbuild.errors import EXIT_DONE, EXIT_USAGE, QuantbuildError, told

COMMANDS = (init, plan, explain, verify, nodes, doctor, depfile, cache, schema)
"""A module for each command, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. A user's mistake is one clear message and no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except QuantbuildError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output (head, less) has had enough: that is no error of ours.
        sys.stderr.close()
        return EXIT_DONE
    except OSError as error:
        print(told(error), file=sys.stderr)
        return EXIT_USAGE


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each puts what it runs into `command`."""
    made = argparse.ArgumentParser(
        prog="quantbuild",
        description="A build system for on-device models. Build with `doit quantize` and `doit report`.",
        epilog=EPILOG,
    )
    made.add_argument("--version", action="version", version=f"quantbuild {__version__}")
    commands = made.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    return made
