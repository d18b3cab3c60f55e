"""Workspaces of the end-to-end tests: real doit in a process of its own, small real models, a cache of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "actions"))
from workspace import Workspace, worker_hook, write_light


@pytest.fixture
def light(tmp_path: Path) -> Workspace:
    """A workspace that nothing was built in yet."""
    return write_light(tmp_path / "light")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = write_light(tmp_path_factory.mktemp("built") / "light")
    workspace.doit("report")
    return workspace


@pytest.fixture
def built(built_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of a workspace in which everything was built, with no cache."""
    return built_once.copied(tmp_path / "built")


@pytest.fixture(scope="session")
def make_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Run a script that makes models, in a folder and a process of its own; return the folder."""

    def make(script: str) -> Path:
        folder = tmp_path_factory.mktemp("models")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return folder

    return make


SLOW = """
import pathlib, time
import quantbuild.actions.evaluate as evaluate
done = evaluate.run
def run(job):
    pathlib.Path(job.root, "started").write_text(job.step)
    while not pathlib.Path(job.root, "go").exists():
        time.sleep(0.02)
    return done(job)
evaluate.run = run
"""


@pytest.fixture
def slow(light: Workspace, tmp_path: Path) -> Workspace:
    """A workspace whose evaluations wait for a file named go."""
    light.environment["PYTHONPATH"] = worker_hook(tmp_path / "hook", SLOW)
    return light
