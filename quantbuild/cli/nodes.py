"""`quantbuild nodes`: what keep_float chooses from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from quantbuild.cli.commands import EPILOG, Commands, build_here, meant, warn
from quantbuild.errors import EXIT_DONE, UsageError


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser("nodes", help="list a model's nodes, which keep_float chooses from", epilog=EPILOG)
    command.add_argument("name", metavar="MODEL[/VARIANT]", help="of the float32 model, or of a variant's artifact")
    command.add_argument("--json", action="store_true", help="as JSON, with whole names")
    command.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Print the nodes of a model that was converted, or of an artifact that was made."""
    from quantbuild.look import Look
    from quantbuild.nodes.table import table
    from quantbuild.plan import FLOAT32, artifact_step, description_path, variant_names

    build = build_here()
    model, _, variant = options.name.partition("/")
    models = build.workspace.models
    known = {name: variant_names(found) for name, found in models.items()}
    if model not in known or (variant or FLOAT32) not in known[model]:
        names = [*known, *(f"{name}/{each}" for name, variants in known.items() for each in variants)]
        nearest = meant(options.name, names, f"there are {', '.join(known)}")
        raise UsageError(f"{options.name}: no such model or variant; {nearest}")
    step = artifact_step(model, variant or FLOAT32)
    place = Path(description_path(model, variant or FLOAT32))
    nodes = json.loads(place.read_bytes()).get("nodes") if place.is_file() else None
    if nodes is None:
        raise UsageError(f"{options.name}: not built yet; run `doit {step}` first")
    if Look(build).explain(step):
        warn(f"{options.name}: these are of the last build; run `doit {step}` to bring them up to date")
    if options.json:
        print(json.dumps({"schema": 1, "nodes": nodes}, indent=1, ensure_ascii=False))
    else:
        for line in table(nodes):
            print(line)
    return EXIT_DONE
