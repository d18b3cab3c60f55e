"""`quantbuild cache`: what the local cache holds, and making it smaller."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from quantbuild.cli.commands import EPILOG, Commands, warn
from quantbuild.errors import EXIT_DONE, UsageError

if TYPE_CHECKING:
    from quantbuild.cache.local import LocalCache
    from quantbuild.manifest.definitions import Workspace


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    cache = commands.add_parser("cache", help="look at the local cache, or make it smaller", epilog=EPILOG)
    actions = cache.add_subparsers(title="actions", required=True, metavar="ACTION")
    command = actions.add_parser("stat", help="print what the local cache holds", epilog=EPILOG)
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=stat)
    command = actions.add_parser("gc", help="remove what was not used for longest", epilog=EPILOG)
    command.add_argument("--max-size", metavar="SIZE", required=True, help="what may stay: 500MB, 2GiB")
    command.set_defaults(command=collect)


def stat(options: argparse.Namespace) -> int:
    """Print how many actions and blobs the local cache holds, and their bytes."""
    from quantbuild.units import size

    cache = _local_cache()
    usage = cache.usage()
    if options.json:
        print(json.dumps({"schema": 1, "folder": str(cache.folder), **usage._asdict()}))
    else:
        print(f"{cache.folder}: {usage.actions} actions, {usage.blobs} blobs, {size(usage.size_bytes)}")
    return EXIT_DONE


def collect(options: argparse.Namespace) -> int:
    """Remove the least recently used entries of the local cache."""
    from quantbuild.units import parse_size, size

    most = parse_size(options.max_size)
    if most is None:
        raise UsageError(f'--max-size: "{options.max_size}" is no size; write a number and a unit: 500MB, 2GiB')
    cache = _local_cache()
    before = cache.usage().size_bytes
    after = cache.collect(most).size_bytes
    print(f"{cache.folder}: {size(before - after)} removed, {size(after)} left")
    return EXIT_DONE


def _local_cache() -> LocalCache:
    from quantbuild.cache.local import LocalCache
    from quantbuild.cache.store import local_folder
    from quantbuild.manifest.loading import CACHE_VARIABLES

    root = Path.cwd()
    workspace = _workspace_here(root)
    directory = os.environ.get(CACHE_VARIABLES["directory"]) if workspace is None else workspace.cache.directory
    return LocalCache(local_folder(root, directory or None), warn)


def _workspace_here(root: Path) -> Workspace | None:
    """Return the workspace whose manifests are in `root`, None where there is none."""
    from quantbuild.manifest.loading import load

    return load(root) if (root / "manifests").is_dir() else None
