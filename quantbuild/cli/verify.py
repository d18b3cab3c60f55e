"""`quantbuild verify`: is the build reproducible?"""

from __future__ import annotations

import argparse
import json

from quantbuild.cli.commands import Commands, meant, warn, workspace_root
from quantbuild.errors import EXIT_DONE, EXIT_FAILED, UsageError


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "verify",
        help="build twice and compare: is the build reproducible?",
        description="Build twice beside the workspace, without any cache, in processes of their own, and compare the "
        "bytes: with each other, and with what stands in build/. Covers convert, calibrate, quantize and evaluate. "
        "build/, dist/ and the cache are left as they are. Both builds are kept in a temporary folder (TMPDIR) "
        "where they differ.",
        epilog="exit codes: 0 reproducible; 1 something differs or failed; 2 manifest or usage error",
    )
    command.add_argument(
        "selection", metavar="MODEL[/VARIANT]", nargs="?", help="what to build (default: every variant of every model)"
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Build twice beside the workspace and compare; 1 where something differs or failed."""
    import signal

    from quantbuild import verify

    def interrupted(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be cut short
        raise _Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    build = verify.open_build(workspace_root())
    names = list(verify.artifacts_of(build))
    selected = verify.select(names, options.selection)
    if not selected:
        models = sorted({name.partition("/")[0] for name in names})
        nearest = meant(options.selection, [*names, *models], f"there are {', '.join(models)}")
        raise UsageError(f"{options.selection}: no such model or variant; {nearest}")
    try:
        verdict = verify.verify(build, selected, warn)
    except _Interrupted as stop:
        warn("quantbuild verify: interrupted; nothing is kept")
        return 128 + stop.number
    if options.json:
        print(json.dumps(verify.as_json(verdict), indent=1, ensure_ascii=False))
    else:
        for line in verify.lines(verdict):
            print(line)
    return EXIT_DONE if verdict.sound else EXIT_FAILED


class _Interrupted(BaseException):
    """A signal that ends the command; no Exception, so that nothing on the way takes it for a failure of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(number)
