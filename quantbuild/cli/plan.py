"""`quantbuild plan`: every step that the manifests ask for."""

from __future__ import annotations

import argparse
import json
from typing import Any

from quantbuild.cli.commands import EPILOG, Commands, build_here
from quantbuild.errors import EXIT_DONE


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("plan", help="print the steps that the manifests ask for", epilog=EPILOG)
    command.add_argument("--json", action="store_true", help="as JSON, with each step's inputs, outputs and key")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print every step; a key is null until the step's inputs exist."""
    from quantbuild.look import Look

    build = build_here()
    look = Look(build)
    steps: list[dict[str, Any]] = [
        {
            "id": step.id,
            "action": step.action,
            "inputs": {role: given.path for role, given in step.inputs.items()},
            "outputs": step.outputs,
            "key": look.key(step.id),
        }
        for step in [*build.steps.values(), *look.closing_steps()]
    ]
    if options.json:
        print(json.dumps({"schema": 1, "steps": steps}, indent=1))
        return EXIT_DONE
    width = max(len(step["id"]) for step in steps)
    for step in steps:
        state = "key unknown until built" if step["key"] is None else step["key"][:12]
        print(f"{step['id']:<{width}}  {state}  {', '.join(step['outputs'].values())}")
    return EXIT_DONE
