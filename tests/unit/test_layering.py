"""Imports point one way, and the parent stays light: read from the code, and proved in a fresh interpreter."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "quantbuild"
MODULES = sorted(PACKAGE.rglob("*.py"))

HEAVY = ("tensorflow", "keras", "tf_keras", "ai_edge_litert", "litert_quantizer", "jinja2", "PIL", "soundfile", "scipy")
# Only a worker imports these, so they may hold NumPy at the top.
WORKER_ONLY = (
    "tflite",
    "lint/calibration.py",
    "lint/fingerprint.py",
    "lint/model_rules.py",
    "report",
    "statistics.py",
    "metrics.py",
    "sample_file.py",
    "gates.py",
    "runners/host_process.py",
)

RIM = ("build", "session", "shell", "cli")
# A module of the left may not import one of the right, at any depth of its own code.
FORBIDDEN = {
    "manifest": ("plan", "build", "session", "shell", "cli", "closing", "execution", "actions", "workers"),
    "plan": ("build", "execution", "session", "shell", "cli", "actions", "workers", "cache"),
    "closing": ("build", "execution", "session", "shell", "cli", "actions", "workers", "cache"),
    "freshness": ("plan", "build", "execution", "session", "shell", "cli", "manifest", "workers"),
    "digests": ("plan", "build", "execution", "session", "shell", "cli", "manifest", "freshness", "record"),
    "cache": ("plan", "build", "execution", "session", "shell", "cli", "manifest", "workers"),
    "workers": ("plan", "build", "execution", "session", "shell", "cli", "manifest"),
    "memory": ("plan", "build", "execution", "session", "shell", "cli", "manifest", "machine"),
    "system_memory": ("plan", "build", "execution", "session", "shell", "cli", "manifest", "machine", "workers"),
    "execution": ("build", "session", "shell", "cli", "manifest"),
    # What a build is made of knows no build.
    "device": (*RIM, "plan", "execution", "workers", "cache", "manifest"),
    "keys": (*RIM, "plan", "execution", "workers", "cache", "manifest"),
    "input_history": (*RIM, "plan", "execution", "workers", "cache", "manifest", "keys"),
    "sub_steps": (*RIM, "plan", "execution", "workers", "cache", "manifest", "attempt"),
    "capacity": (*RIM, "plan", "cache", "manifest", "attempt"),
    "usual": (*RIM, "cache", "manifest", "attempt"),
    "attempt": (*RIM, "manifest", "keys", "sub_steps", "workers"),
    "partial_publication": (*RIM, "attempt", "workers", "cache"),
    "summary": (*RIM, "execution", "attempt", "workers", "cache"),
    "build": ("session", "shell", "cli"),
    "session": ("shell", "cli"),
    "actions": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache"),
    "nodes": (
        *("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
        *("tflite", "schemes", "sources", "datasets", "runners", "report"),
    ),
    "tflite": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "lint": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "schemes": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "sources": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "datasets": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "runners": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
    "report": ("plan", "build", "execution", "session", "shell", "cli", "workers", "cache", "manifest", "actions"),
}


def imports(path: Path, *, top_level: bool) -> Iterator[str]:
    """Yield the modules that a file imports: everywhere, or outside functions and TYPE_CHECKING only."""
    tree = ast.parse(path.read_bytes())
    nodes = _top(tree) if top_level else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _top(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not checking and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            yield from _top(node)


def inside(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=inside)
def test_heavy_modules_are_imported_inside_functions_only(path: Path) -> None:
    light = HEAVY if inside(path).startswith(WORKER_ONLY) else (*HEAVY, "numpy", "rich", "urllib3")
    found = {name.partition(".")[0] for name in imports(path, top_level=True)}
    # LiteRT's flatbuffer schema and its interpreter are what tflite/ is about; no parent imports it.
    allowed = {"ai_edge_litert"} if inside(path).startswith(("tflite", "runners/host_process.py")) else set()
    assert not (found & set(light)) - allowed


def test_only_the_shell_imports_doit() -> None:
    found = {inside(p) for p in MODULES if any(n.split(".")[0] == "doit" for n in imports(p, top_level=False))}
    assert found == {"shell/cleaning.py", "shell/refusals.py", "shell/shell.py", "shell/unknown_tasks.py"}


def test_nobody_imports_the_shell_or_the_command_line() -> None:
    for path in MODULES:
        if inside(path) == "__main__.py":  # it is the command line
            continue
        layer = inside(path).split("/")[0].removesuffix(".py")
        found = {name.split(".")[1] for name in imports(path, top_level=False) if name.startswith("quantbuild.")}
        assert not (found - {layer}) & {"shell", "cli", "worker_main"}, inside(path)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    graph = {}
    for path in MODULES:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        # A package that hands on what its modules define is imported before them in any case.
        graph[name] = {each for each in imports(path, top_level=True) if not f"{name}.".startswith(f"{each}.")}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("layer", sorted(FORBIDDEN))
def test_imports_point_one_way(layer: str) -> None:
    files = [p for p in MODULES if inside(p).split("/")[0].removesuffix(".py") == layer]
    assert files
    # dist runs in the parent: publishing is copying, and execution does it.
    exceptions = {"execution": {"quantbuild.actions"}}.get(layer, set())
    for path in files:
        for name in imports(path, top_level=False):
            parts = name.split(".")
            if parts[0] == "quantbuild" and len(parts) > 1 and name not in exceptions:
                assert parts[1] not in FORBIDDEN[layer], f"{inside(path)} imports {name}"


def test_planning_imports_nothing_heavy() -> None:
    code = (
        "import sys; from pathlib import Path; import quantbuild.shell;"
        "from quantbuild.manifest.loading import load; from quantbuild.plan import plan;"
        f"steps = plan(load(Path({str(ROOT)!r}))); assert len(steps) > 5;"
        f"heavy = [m for m in {(*HEAVY, 'numpy', 'rich', 'urllib3')!r} if m in sys.modules];"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
