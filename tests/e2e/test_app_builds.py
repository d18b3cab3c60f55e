"""What docs/how-to.md tells app builds, run with real CMake and Ninja: nothing is done twice, nothing is missed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from workspace import DEVICE, Workspace, write_light

sys.path.insert(0, str(Path(__file__).parents[1] / "actions"))
import tiny_tflite

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to.md"
CMAKE_HEAD = "cmake_minimum_required(VERSION 3.21)\nproject(app NONE)\n"
DIGITS = """schema = 1
[model.digits]
source = "tflite"
path = "m.tflite"
labels = "labels.txt"
ship = "dynamic"
[model.digits.variant]
float16.scheme = "float16"
dynamic.scheme = "dynamic"
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", HOW_TO.read_text(), re.DOTALL)


@pytest.fixture
def app(tmp_path: Path) -> Workspace:
    """An app's folder with a workspace in its folder `models`."""
    workspace = write_light(tmp_path / "an app" / "models", DIGITS + DEVICE)
    (workspace.root / "labels.txt").write_text("one\n")
    scripts = Path(sys.executable).parent
    workspace.environment["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"
    return workspace


def run(workspace: Workspace, folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=workspace.environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def later(path: Path, content: str | bytes) -> None:
    """Write a file so that its time is after that of everything that was built."""
    time.sleep(1.1)  # Make compares whole seconds on some file systems
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def another_model(workspace: Workspace) -> bytes:
    weights = np.random.default_rng(1).standard_normal((3, 512)).astype(np.float32)
    return tiny_tflite.linear(workspace.root.parent / "other.tflite", weights).read_bytes()


def holds_what_it_promises(workspace: Workspace, build: Callable[[], str], artifact: Path) -> None:
    """Every change of an input leads to a build, nothing else does, and what follows sees new bytes alone."""
    assert "4 executed" in build()
    first = artifact.read_bytes()
    assert "quantbuild: " not in build()
    later(workspace.manifest, workspace.manifest.read_text() + "# a comment\n")
    assert "quantbuild: 0 executed" in build()
    later(workspace.root / "m.tflite", another_model(workspace))
    assert "quantbuild: 4 executed" in build()
    assert artifact.read_bytes() != first
    later(workspace.root / "labels.txt", "eins\n")
    assert "quantbuild: 1 executed" in build()
    later(workspace.root / "manifests" / "more.toml", "schema = 1\n")
    assert "quantbuild: 1 executed" in build()
    artifact.unlink()
    build()
    assert artifact.is_file()


@pytest.mark.parametrize("generator", ["Ninja", "Unix Makefiles"])
def test_cmake_builds_when_an_input_changed_and_only_then(app: Workspace, generator: str) -> None:
    (text,) = blocks("cmake")
    folder = app.root.parent
    (folder / "CMakeLists.txt").write_text(CMAKE_HEAD + text)
    run(app, folder, "cmake", "-G", generator, "-S", ".", "-B", "out")
    packed = folder / "out" / "packed"

    def build() -> str:
        return run(app, folder, "cmake", "--build", "out")

    holds_what_it_promises(app, build, app.root / "dist/digits/model.tflite")
    build()
    assert packed.read_bytes() == (app.root / "dist/digits/model.tflite").read_bytes()
    before = packed.stat().st_mtime_ns
    later(app.manifest, app.manifest.read_text() + "# another\n")
    build()
    assert packed.stat().st_mtime_ns == before  # the model is what it was: nothing after it is done again


@pytest.mark.parametrize("place", ["the workspace", "the app's folder"])
def test_ninja_builds_when_an_input_changed_and_only_then(app: Workspace, place: str) -> None:
    inside, outside = blocks("ninja")
    folder, text = (app.root, inside) if place == "the workspace" else (app.root.parent, outside)
    (folder / "build.ninja").write_text(text)

    def build() -> str:
        return run(app, folder, "ninja", "-v")

    holds_what_it_promises(app, build, app.root / "dist/digits/model.tflite")
    assert "no work to do" in build()


def test_the_depfile_in_dist_has_no_path_of_this_machine(app: Workspace) -> None:
    app.doit("quantize")
    text = (app.root / "dist/quantbuild.d").read_text()
    targets, dependencies = text.replace("\\\n", "").split(":")
    artifacts = ("dist/digits/dynamic.tflite", "dist/digits/float16.tflite", "dist/digits/model.tflite")
    assert targets.split() == list(artifacts)
    assert dependencies.split() == ["labels.txt", "m.tflite", "manifests", "manifests/m.toml"]


def test_a_renamed_manifest_is_named_anew(app: Workspace) -> None:
    app.doit("quantize")
    app.manifest.rename(app.manifest.with_name("renamed.toml"))
    app.doit("quantize")
    assert app.steps("executed") == {"dist"}
    assert "manifests/renamed.toml" in (app.root / "dist/quantbuild.d").read_text()


def test_without_a_build_the_command_says_what_to_run(app: Workspace) -> None:
    assert "run `doit quantize` first" in app.quantbuild("depfile", code=2)
    app.doit("quantize")
    missing = app.quantbuild("depfile", "--output", "no such folder/models.d", code=2)
    assert missing.startswith("no such folder/models.d: No such file or directory; ")
    printed = app.quantbuild("depfile", "--target", "packed")
    assert printed.startswith("packed: \\\n")
    assert f"  {str(app.root / 'm.tflite').replace(' ', chr(92) + ' ')}" in printed
