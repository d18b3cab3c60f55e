"""The command line `quantbuild`: plan, explain, schema. Building itself is doit's command line over the same steps."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quantbuild import __version__
from quantbuild.errors import EXIT_DONE, EXIT_FAILED, EXIT_USAGE, QuantbuildError, UsageError, told

EPILOG = "exit codes: 0 done; 1 a step or a gate failed; 2 manifest or usage error"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. A user's mistake is one clear message and no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the terminal cannot show is escaped
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quantbuild",
        description="A build system for on-device models. Build with `doit quantize` and `doit report`.",
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"quantbuild {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    command = commands.add_parser("init", help="write a small working workspace", epilog=EPILOG)
    command.add_argument("folder", metavar="DIR", nargs="?", default=".", help="where; made if absent (default: here)")
    command.set_defaults(command=init_command)

    command = commands.add_parser("plan", help="print the steps that the manifests ask for", epilog=EPILOG)
    command.add_argument("--json", action="store_true", help="as JSON, with each step's inputs, outputs and key")
    command.set_defaults(command=plan_command)

    command = commands.add_parser("explain", help="say whether a step is up to date, or why not", epilog=EPILOG)
    command.add_argument("step", metavar="STEP", help="a step's id as `quantbuild plan` prints it")
    command.set_defaults(command=explain_command)

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
    command.set_defaults(command=verify_command)

    command = commands.add_parser("nodes", help="list a model's nodes, which keep_float chooses from", epilog=EPILOG)
    command.add_argument("name", metavar="MODEL[/VARIANT]", help="of the float32 model, or of a variant's artifact")
    command.add_argument("--json", action="store_true", help="as JSON, with whole names")
    command.set_defaults(command=nodes_command)

    command = commands.add_parser("doctor", help="say what is installed, and what is missing", epilog=EPILOG)
    command.add_argument("--deep", action="store_true", help="try TensorFlow's private functions too (slow)")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=doctor_command)

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
    command.set_defaults(command=depfile_command)

    cache = commands.add_parser("cache", help="look at the local cache, or make it smaller", epilog=EPILOG)
    actions = cache.add_subparsers(title="actions", required=True, metavar="ACTION")
    command = actions.add_parser("stat", help="print what the local cache holds", epilog=EPILOG)
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(command=cache_stat_command)
    command = actions.add_parser("gc", help="remove what was not used for longest", epilog=EPILOG)
    command.add_argument("--max-size", metavar="SIZE", required=True, help="what may stay: 500MB, 2GiB")
    command.set_defaults(command=cache_gc_command)

    command = commands.add_parser("schema", help="print the manifest's JSON Schema, for editors", epilog=EPILOG)
    command.set_defaults(command=schema_command)
    return parser


def init_command(options: argparse.Namespace) -> int:
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


def _build() -> Any:
    """Return a build of the workspace in the current folder, to look at and not to run."""
    from quantbuild.session import Session
    from quantbuild.watcher import Watcher

    return Session(_workspace_root(), Watcher()).build


def _workspace_root() -> Path:
    root = Path.cwd()
    if not (root / "manifests").is_dir():
        raise UsageError(f"{root.name}: no folder manifests/ here; run quantbuild where dodo.py is")
    return root


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def plan_command(options: argparse.Namespace) -> int:
    """Print every step; a key is null until the step's inputs exist."""
    from quantbuild.look import Look

    build = _build()
    look = Look(build)
    steps = [
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


def explain_command(options: argparse.Namespace) -> int:
    """Print that a step is up to date, or each reason why not, old → new."""
    from quantbuild.freshness import NEVER_BUILT
    from quantbuild.look import Look

    build = _build()
    look = Look(build)
    if options.step not in look.known_steps():
        raise UsageError(f"{options.step}: no such step; {_meant(options.step, look.known_steps())}")
    reasons = look.explain(options.step)
    if not reasons:
        print(f"{options.step}: up to date")
        return EXIT_DONE
    for reason in reasons:
        print(f"{options.step}: {reason.explained()}")
    if NEVER_BUILT in reasons:
        print(f"{options.step}: run `doit {options.step}` to build it")
    return EXIT_DONE


def _meant(name: str, known: Sequence[str], otherwise: str = "`quantbuild plan` lists them") -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    return f'did you mean "{close[0]}"?' if close else otherwise


def verify_command(options: argparse.Namespace) -> int:
    """Build twice beside the workspace and compare; 1 where something differs or failed."""
    import signal

    from quantbuild import verify

    def interrupted(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)  # cleaning up is not to be cut short
        raise _Interrupted(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    build = verify.open_build(_workspace_root())
    names = list(verify.artifacts_of(build))
    selected = verify.select(names, options.selection)
    if not selected:
        models = sorted({name.partition("/")[0] for name in names})
        meant = _meant(options.selection, [*names, *models], f"there are {', '.join(models)}")
        raise UsageError(f"{options.selection}: no such model or variant; {meant}")
    try:
        verdict = verify.verify(build, selected, _warn)
    except _Interrupted as stop:
        _warn("quantbuild verify: interrupted; nothing is kept")
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


def nodes_command(options: argparse.Namespace) -> int:
    """Print the nodes of a model that was converted, or of an artifact that was made."""
    from quantbuild.look import Look
    from quantbuild.nodes.table import table
    from quantbuild.plan import FLOAT32, artifact_step, description_path, variant_names

    build = _build()
    model, _, variant = options.name.partition("/")
    models = build.workspace.models
    known = {name: variant_names(found) for name, found in models.items()}
    if model not in known or (variant or FLOAT32) not in known[model]:
        names = [*known, *(f"{name}/{each}" for name, variants in known.items() for each in variants)]
        meant = _meant(options.name, names, f"there are {', '.join(known)}")
        raise UsageError(f"{options.name}: no such model or variant; {meant}")
    step = artifact_step(model, variant or FLOAT32)
    place = Path(description_path(model, variant or FLOAT32))
    nodes = json.loads(place.read_bytes()).get("nodes") if place.is_file() else None
    if nodes is None:
        raise UsageError(f"{options.name}: not built yet; run `doit {step}` first")
    if Look(build).explain(step):
        _warn(f"{options.name}: these are of the last build; run `doit {step}` to bring them up to date")
    if options.json:
        print(json.dumps({"schema": 1, "nodes": nodes}, indent=1, ensure_ascii=False))
    else:
        for line in table(nodes):
            print(line)
    return EXIT_DONE


def doctor_command(options: argparse.Namespace) -> int:
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


def depfile_command(options: argparse.Namespace) -> int:
    """Print or write a depfile of what stands in dist/."""
    from quantbuild import aside, depfile
    from quantbuild.manifest.loading import load

    root = _workspace_root()
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


def _workspace_here(root: Path) -> Any:
    """Return the workspace whose manifests are in `root`, None where there is none."""
    from quantbuild.manifest.loading import load

    return load(root) if (root / "manifests").is_dir() else None


def _local_cache() -> Any:
    from quantbuild.cache.local import LocalCache
    from quantbuild.cache.store import local_folder
    from quantbuild.manifest.loading import CACHE_VARIABLES

    root = Path.cwd()
    workspace = _workspace_here(root)
    directory = os.environ.get(CACHE_VARIABLES["directory"]) if workspace is None else workspace.cache.directory
    return LocalCache(local_folder(root, directory or None), _warn)


def cache_stat_command(options: argparse.Namespace) -> int:
    """Print how many actions and blobs the local cache holds, and their bytes."""
    from quantbuild.units import size

    cache = _local_cache()
    usage = cache.usage()
    if options.json:
        print(json.dumps({"schema": 1, "folder": str(cache.folder), **usage._asdict()}))
    else:
        print(f"{cache.folder}: {usage.actions} actions, {usage.blobs} blobs, {size(usage.size_bytes)}")
    return EXIT_DONE


def cache_gc_command(options: argparse.Namespace) -> int:
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


def schema_command(options: argparse.Namespace) -> int:
    """Print the JSON Schema of a manifest."""
    from quantbuild.manifest.schema import json_schema

    del options
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
