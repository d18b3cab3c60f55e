"""The shared cache over a real nginx: what one machine built another does not build again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nginx_server import Nginx

sys.path.insert(0, str(Path(__file__).parents[1] / "actions"))
import tiny_tflite

MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[model.m]
source = "tflite"
path = "m.tflite"
calibration = "data"
evaluation = "data"
metric = "top1"
[model.m.variant]
a = { scheme = "float16" }
b = { scheme = "dynamic" }
[device.host]
runner = "host"
processes = 1
runs = 5
seconds = 0.0
warmup_seconds = 0.0
"""
TOKEN = "a-secret-of-the-test"


class Machine:
    """A clone of the workspace with a home of its own."""

    def __init__(self, folder: Path, source: Path, server: Nginx) -> None:
        self.root = folder / "workspace"
        self.cache = folder / "home" / ".cache" / "quantbuild"
        self.output = ""
        self._server = server
        shutil.copytree(source, self.root)

    def build(self, *, upload: bool = False, task: str = "report") -> dict[str, object]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("QUANTBUILD_")}
        environment |= {
            "XDG_CACHE_HOME": str(self.cache.parent),
            "QUANTBUILD_CACHE_REMOTE": self._server.address,
            "QUANTBUILD_CACHE_UPLOAD": "1" if upload else "0",
            "QUANTBUILD_CACHE_TOKEN": TOKEN,
        }
        command = [sys.executable, "-m", "doit", task]
        done = subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True, check=False)
        self.output = done.stdout + done.stderr
        assert done.returncode == 0, self.output
        run: dict[str, object] = json.loads((self.root / "build/last_run.json").read_bytes())
        return run

    def executed(self) -> set[str]:
        run = json.loads((self.root / "build/last_run.json").read_bytes())
        return {step["id"] for step in run["steps"] if step["status"] == "executed"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "manifests").mkdir(parents=True)
    (root / "manifests" / "m.toml").write_text(MANIFEST)
    (root / "dodo.py").write_text("from quantbuild.shell import tasks\nglobals().update(tasks())\n")
    rng = np.random.default_rng(0)
    tiny_tflite.linear(root / "m.tflite", rng.standard_normal((3, 64)).astype(np.float32))
    np.savez(root / "data.npz", x=rng.standard_normal((30, 64)).astype(np.float32), y=rng.integers(0, 3, 30))
    return root


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nginx]:
    nginx = Nginx(tmp_path / "nginx")
    nginx.start()
    yield nginx
    nginx.stop()


@pytest.fixture
def built(tmp_path: Path, source: Path, server: Nginx) -> Machine:
    first = Machine(tmp_path / "first", source, server)
    first.build(upload=True)
    return first


def measured(executed: set[str]) -> set[str]:
    """Steps that a second machine must do itself: its own latencies, and the page that shows them."""
    return {step for step in executed if step.startswith("benchmark:")} | ({"report"} & executed)


def test_a_second_machine_executes_nothing_but_benchmarks_and_their_page(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    second = Machine(tmp_path / "second", source, server)
    second.build()
    assert second.executed() == measured(second.executed())
    assert (second.root / "dist/quantbuild.lock.json").read_bytes() == (
        built.root / "dist/quantbuild.lock.json"
    ).read_bytes()


def test_without_devices_nothing_at_all_is_executed(tmp_path: Path, source: Path, server: Nginx) -> None:
    manifest = source / "manifests" / "m.toml"
    manifest.write_text(MANIFEST.partition("[device.host]")[0])
    Machine(tmp_path / "first", source, server).build(upload=True)
    second = Machine(tmp_path / "second", source, server)
    second.build()
    assert second.executed() == set()


def test_a_corrupted_blob_is_repaired_and_nothing_else_is_done(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    lock = json.loads((built.root / "dist/quantbuild.lock.json").read_bytes())
    blob = server.store / "cas" / lock["artifacts"]["m/a"]["sha256"]
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x00")
    second = Machine(tmp_path / "second", source, server)
    second.build()
    assert second.executed() - measured(second.executed()) == {"quantize:m/a"}
    assert second.output.count("does not match its name") == 1


def test_a_reader_never_attempts_a_put(tmp_path: Path, source: Path, server: Nginx, built: Machine) -> None:
    server.forget_requests()
    second = Machine(tmp_path / "second", source, server)
    (second.root / "data.npz").write_bytes((built.root / "data.npz").read_bytes() + b"\x00")
    second.build(task="quantize")
    assert server.requests()
    assert not [request for request in server.requests() if request.startswith("PUT")]


def test_with_the_server_gone_the_build_goes_on_with_one_warning(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    server.stop()
    second = Machine(tmp_path / "second", source, server)
    second.build(task="quantize")
    assert {"convert:m", "quantize:m/a", "quantize:m/b"} <= second.executed()
    assert second.output.count("cache: the server cannot be used") == 1
    assert second.output.count("cache:") == 1


def test_a_server_that_refuses_uploads_costs_one_warning(tmp_path: Path, source: Path) -> None:
    nginx = Nginx(tmp_path / "refusing", rule="limit_except GET { deny all; }")
    nginx.start()
    try:
        machine = Machine(tmp_path / "first", source, nginx)
        machine.build(upload=True, task="quantize")
        assert machine.output.count("refuses uploads (status 403)") == 1
    finally:
        nginx.stop()


def test_a_latency_is_never_sent(server: Nginx, built: Machine) -> None:
    records = list((built.root / "build").rglob("benchmark@host.json.record.json"))
    assert records
    for record in records:
        key = json.loads(record.read_bytes())["result"]["key"]
        assert not (server.store / "ac" / key).exists()


def test_no_credential_and_no_path_of_the_machine_is_kept(tmp_path: Path, server: Nginx, built: Machine) -> None:
    kept = [*(built.root / "build").rglob("*"), *built.cache.rglob("*"), *server.store.rglob("*")]
    files = [path for path in kept if path.is_file() and ".state" not in path.parts]
    assert len(files) > 20
    for path in files:
        content = path.read_bytes()
        assert TOKEN.encode() not in content, path
        assert str(tmp_path).encode() not in content, path
    assert all(request.endswith(f"Bearer {TOKEN}") for request in server.requests())
