"""Workspaces as the end-to-end tests use them: how they are written, and how doit and quantbuild are run in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tiny_tflite

DODO = "from quantbuild.shell import tasks\nglobals().update(tasks())\n"

DEVICE = """
[device.host]
runner = "host"
processes = 1
runs = 5
seconds = 0.0
warmup_seconds = 0.0
"""

# Without TensorFlow: a source, schemes and a device that a light machine has.
MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[model.m]
source = "tflite"
path = "m.tflite"
evaluation = "data"
metric = "top1"
ship = "a"
[model.m.variant.a]
scheme = "float16"
[model.m.variant.b]
scheme = "dynamic"
"""


class Workspace:
    """One workspace and how doit and quantbuild are run in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = root / "manifests" / "m.toml"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("QUANTBUILD_")},
            "QUANTBUILD_CACHE_DIR": str(root.parent / f"{root.name}-cache"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # A home of the tests' own: no other build on this machine is waited for, or waits for these.
            "XDG_CACHE_HOME": str(root.parent / "cache-home"),
        }

    def command(self, module: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", module, *arguments]

    def doit(self, *arguments: str, code: int | None = 0) -> str:
        """Run doit; assert its exit code (None: any) and that it printed no traceback; return all it printed."""
        return self._run(self.command("doit", *arguments), code)

    def start(self, *arguments: str, stderr: int = subprocess.STDOUT) -> subprocess.Popen[str]:
        """Start doit; what it prints is read from its pipe."""
        return subprocess.Popen(
            self.command("doit", *arguments),
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def quantbuild(self, *arguments: str, code: int | None = 0) -> str:
        return self._run(self.command("quantbuild.cli", *arguments), code)

    def _run(self, command: list[str], code: int | None) -> str:
        done = subprocess.run(
            command, cwd=self.root, env=self.environment, capture_output=True, text=True, check=False, timeout=500
        )
        output = done.stdout + done.stderr
        assert "Traceback" not in output, output
        assert code is None or done.returncode == code, f"exit code {done.returncode}\n{output}"
        return output

    def last_run(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / "build/last_run.json").read_bytes())
        return found

    def steps(self, status: str) -> set[str]:
        return {step["id"] for step in self.last_run()["steps"] if step["status"] == status}

    def edit(self, old: str, new: str) -> None:
        text = self.manifest.read_text()
        assert old in text
        self.manifest.write_text(text.replace(old, new))

    def files(self, folder: str) -> dict[str, bytes]:
        """Path below `folder` to content."""
        place = self.root / folder
        return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}

    def copied(self, target: Path) -> Workspace:
        shutil.copytree(self.root, target, symlinks=True)
        return Workspace(target)


def processes_in(workspace: Workspace) -> list[str]:
    """Return the commands of the processes that work in a workspace, or were started for one of its steps."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            if (folder / "cwd").resolve() == workspace.root or str(workspace.root) in command:
                found.append(command)
        except OSError:
            continue  # it has ended, or is not ours
    return found


def write_workspace(root: Path, manifest: str) -> Workspace:
    """Write a workspace's manifest and dodo file; the models and data are the caller's."""
    (root / "manifests").mkdir(parents=True, exist_ok=True)
    (root / "manifests" / "m.toml").write_text(manifest)
    (root / "dodo.py").write_text(DODO)
    return Workspace(root)


def write_light(root: Path, manifest: str = MANIFEST + DEVICE, seed: int = 0) -> Workspace:
    """Write a workspace that needs no TensorFlow; `seed` gives another model and other data."""
    workspace = write_workspace(root, manifest)
    rng = np.random.default_rng(seed)
    tiny_tflite.linear(root / "m.tflite", rng.standard_normal((3, 512)).astype(np.float32))
    np.savez(root / "data.npz", x=rng.standard_normal((60, 512)).astype(np.float32), y=rng.integers(0, 3, 60))
    return workspace


def worker_hook(folder: Path, code: str) -> str:
    """Write code that every worker runs at its start, and no other process; return the value of PYTHONPATH."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\nif 'quantbuild.worker_main' in sys.orig_argv:\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
    )
    return str(folder)


def started(workspace: Workspace, *arguments: str) -> subprocess.Popen[str]:
    """Start doit and wait until a step is in flight."""
    process = workspace.start(*arguments)
    deadline = time.monotonic() + 60
    while not (workspace.root / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process
