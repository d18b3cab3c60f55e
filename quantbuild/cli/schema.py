"""`quantbuild schema`: the manifest's JSON Schema."""

from __future__ import annotations

import argparse
import json

from quantbuild.cli.commands import EPILOG, Commands
from quantbuild.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("schema", help="print the manifest's JSON Schema, for editors", epilog=EPILOG)
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the JSON Schema of a manifest."""
    from quantbuild.manifest.schema import json_schema

    del options
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return EXIT_DONE
