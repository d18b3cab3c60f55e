"""`quantbuild init` from the built wheel in an environment of its own, and the workspace that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel's quantbuild; what it depends on is found in the running environment.

    A .pth line adds a folder and reads no .pth file in it, so an editable quantbuild there stays out of sight.
    """
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("quantbuild-*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "QUANTBUILD_CACHE_DIR": str(folder / "cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheels_workspace_gives_the_page_and_its_second_run_does_nothing(python: Path, tmp_path: Path) -> None:
    where = run(python, tmp_path, "-c", "import quantbuild; print(quantbuild.__file__)")
    assert Path(where.strip()).is_relative_to(python.parents[1])
    assert "next: cd demo && doit report" in run(python, tmp_path, "-m", "quantbuild.cli", "init", "demo")
    demo = tmp_path / "demo"
    manifest = demo / "manifests" / "digits.toml"
    quick = 'runner = "host"\nprocesses = 1\nruns = 5\nseconds = 0.0\nwarmup_seconds = 0.0'
    manifest.write_text(manifest.read_text().replace('runner = "host"', quick))
    run(python, demo, "-m", "doit", "report")
    page = (demo / "build" / "report" / "index.html").read_text()
    assert "vega" in page
    last = run(python, demo, "-m", "doit", "report").strip().splitlines()[-1]
    assert last.startswith("quantbuild: 0 executed, 0 restored")
    assert (demo / "dist" / "digits" / "model.tflite").is_file()
