"""`quantbuild doctor`: what is installed, and what is missing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from quantbuild.cli.commands import EPILOG, Commands
from quantbuild.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("doctor", help="say what is installed, and what is missing", epilog=EPILOG)
    command.add_argument("--deep", action="store_true", help="try TensorFlow's private functions too (slow)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print what is there and what is missing: 1 where something needed is missing, 2 where a manifest is broken."""
    import msgspec

    from quantbuild.doctor import diagnose

    diagnosis = diagnose(Path.cwd(), deep=options.deep)
    findings, errors = diagnosis.findings, diagnosis.manifest_errors
    if options.json:
        print(json.dumps({"schema": 1, **msgspec.to_builtins(diagnosis)}, indent=1, ensure_ascii=False))
    else:
        width = max(len(finding.name) for finding in findings)
        part = None
        for finding in findings:
            if finding.part != part:
                part = finding.part
                print(part)
            problem = f"  <- {finding.problem}" if finding.problem else ""
            print(f"  {finding.name:<{width}}  {finding.value}{problem}")
        for line in errors:
            print(line, file=sys.stderr)
    if errors:
        return EXIT_USAGE
    return EXIT_FAILED if any(finding.problem for finding in findings) else EXIT_DONE
