"""The shared cache over a real nginx: what one machine built another does not build again."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_tflite
from nginx_server import Nginx
from workspace import DEVICE, MANIFEST, Workspace, write_workspace

TOKEN = "a-secret-of-the-test"


class Machine(Workspace):
    """A clone of the workspace with a home of its own."""

    def __init__(self, folder: Path, source: Path, server: Nginx) -> None:
        super().__init__(shutil.copytree(source, folder / "workspace"))
        self.cache = folder / "home" / ".cache" / "quantbuild"
        self.output = ""
        del self.environment["QUANTBUILD_CACHE_DIR"]
        self.environment |= {
            "XDG_CACHE_HOME": str(self.cache.parent),
            "QUANTBUILD_CACHE_REMOTE": server.address,
            "QUANTBUILD_CACHE_TOKEN": TOKEN,
        }

    def build(self, *arguments: str, upload: bool = False, task: str = "report", code: int = 0) -> None:
        self.environment["QUANTBUILD_CACHE_UPLOAD"] = "1" if upload else "0"
        self.output = self.doit(*arguments, task, code=code)

    def executed(self) -> set[str]:
        return self.steps("executed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = write_workspace(tmp_path / "source", MANIFEST + DEVICE).root
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
    write_workspace(source, MANIFEST)
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


ALONE = {"convert:m", "quantize:m/a", "quantize:m/b"}


@contextlib.contextmanager
def serving(folder: Path, rule: str) -> Iterator[Nginx]:
    nginx = Nginx(folder, rule=rule)
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.stop()


def lines_about_the_cache(machine: Machine) -> list[str]:
    return [line for line in machine.output.splitlines() if line.startswith("cache: ")]


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        ("limit_except GET { deny all; }", "(status 403)"),
        ("if ($request_method = PUT) { return 507; }", "(status 507)"),
        ("if ($request_method = PUT) { return 500; }", "(status 500)"),
    ],
)
def test_a_server_that_takes_nothing_costs_one_warning(tmp_path: Path, source: Path, rule: str, word: str) -> None:
    with serving(tmp_path / "refusing", rule) as nginx:
        machine = Machine(tmp_path / "first", source, nginx)
        machine.build("-n", "1", upload=True, task="quantize")
        assert lines_about_the_cache(machine) == [
            f"cache: the server refuses uploads {word}; results stay on this machine"
        ]
        puts = [request for request in nginx.requests() if request.startswith("PUT")]
        assert len(puts) == (3 if "500" in word else 1)
        assert [request for request in nginx.requests() if request.startswith("GET")]
        assert machine.executed() >= ALONE


def test_what_is_too_large_for_the_server_stays_and_the_rest_is_shared(tmp_path: Path, source: Path) -> None:
    most = 1700
    with serving(tmp_path / "small", f"client_max_body_size {most};") as nginx:
        first = Machine(tmp_path / "first", source, nginx)
        first.build(upload=True, task="quantize")
        assert lines_about_the_cache(first) == [
            "cache: the server takes no file of this size (status 413); it stays on this machine"
        ]
        assert max(path.stat().st_size for path in nginx.store.rglob("*") if path.is_file()) <= most
        second = Machine(tmp_path / "second", source, nginx)
        second.build(task="quantize")
        assert lines_about_the_cache(second) == []
        made = {"convert:m": "*.*", "quantize:m/a": "a/*.*", "quantize:m/b": "b/*.*"}
        large = {
            step
            for step, files in made.items()
            if max(path.stat().st_size for path in (first.root / "build/m").glob(files)) > most
        }
        assert large
        assert second.executed() - {"dist"} == large
        assert large < ALONE


@pytest.mark.parametrize("status", [500, 503])
def test_a_server_in_trouble_is_asked_three_times_and_the_build_goes_on_alone(
    tmp_path: Path, source: Path, status: int
) -> None:
    with serving(tmp_path / "busy", f"return {status};") as nginx:
        machine = Machine(tmp_path / "first", source, nginx)
        machine.build("-n", "1", upload=True, task="quantize")
        assert len(nginx.requests()) == 3
        assert lines_about_the_cache(machine) == [
            f"cache: the server cannot be used (GET /ac/: status {status}); this build goes on without it"
        ]
        assert machine.executed() >= ALONE


@pytest.mark.parametrize("kind", ["a trickle", "silence"])
def test_a_slow_server_is_given_up_and_the_build_goes_on_alone(
    tmp_path: Path, source: Path, built: Machine, server: Nginx, kind: str
) -> None:
    patience = tmp_path / "impatient"
    patience.mkdir()
    # In place of half a minute.
    (patience / "sitecustomize.py").write_text("import quantbuild.cache.remote as r\nr.READ_SECONDS = 3.0\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and says nothing
        nowhere = f"proxy_pass http://127.0.0.1:{silent.getsockname()[1]}; proxy_read_timeout 60s;"
        rule = "limit_rate 50;" if kind == "a trickle" else nowhere
        with serving(tmp_path / "slow", rule) as slow:
            shutil.copytree(server.store, slow.store, dirs_exist_ok=True)
            machine = Machine(tmp_path / "second", source, slow)
            machine.environment["PYTHONPATH"] = str(patience)
            machine.build("-n", "1", task="quantize")
            (line,) = lines_about_the_cache(machine)
            assert ("too slow: " if kind == "a trickle" else "ReadTimeoutError") in line
            assert machine.executed() >= ALONE - {"convert:m"}


def test_wrong_answers_are_made_anew_and_told(tmp_path: Path, source: Path, server: Nginx, built: Machine) -> None:
    def key(step: str) -> str:
        record = json.loads((built.root / f"build/m/{step}.record.json").read_bytes())
        found: str = record["result"]["key"]
        return found

    (server.store / "ac" / key("a/model.tflite")).write_bytes(b"<html>please log in</html>")
    artifact = json.loads((built.root / "dist/quantbuild.lock.json").read_bytes())["artifacts"]["m/b"]["sha256"]
    blob = server.store / "cas" / artifact
    blob.write_bytes(blob.read_bytes()[:100])
    (
        server.store
        / "cas"
        / json.loads((built.root / "build/m/float32.tflite.record.json").read_bytes())["result"]["outputs"][
            "description"
        ]["sha256"]
    ).unlink()
    second = Machine(tmp_path / "second", source, server)
    second.build(task="quantize")
    assert second.executed() - {"dist"} == ALONE
    assert len(lines_about_the_cache(second)) == 2  # what is missing altogether is a miss, as any other
    for name in ("a", "b"):
        path = f"dist/m/{name}.tflite"
        assert (second.root / path).read_bytes() == (built.root / path).read_bytes()


def test_who_may_write_repairs_the_server_too(tmp_path: Path, source: Path, server: Nginx, built: Machine) -> None:
    lock = json.loads((built.root / "dist/quantbuild.lock.json").read_bytes())
    blob = server.store / "cas" / lock["artifacts"]["m/a"]["sha256"]
    good = blob.read_bytes()
    blob.write_bytes(good[:-1] + b"\x00")
    Machine(tmp_path / "second", source, server).build(upload=True)
    assert blob.read_bytes() == good
    third = Machine(tmp_path / "third", source, server)
    third.build()
    assert third.executed() == measured(third.executed())
    assert lines_about_the_cache(third) == []


def test_a_server_that_stops_and_comes_back_is_used_again(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    server.stop()
    second = Machine(tmp_path / "second", source, server)
    second.build(task="quantize")
    assert second.executed() >= ALONE
    server.start()
    third = Machine(tmp_path / "third", source, server)
    third.build(task="quantize")
    assert third.executed() == set()


COLLECT = """
import sys
from pathlib import Path
from quantbuild.cache.local import LocalCache
cache = LocalCache(Path(sys.argv[1]), lambda text: sys.exit(text))
while True:
    cache.collect(0)
"""


def test_collecting_beside_running_builds_spoils_none(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    second = Machine(tmp_path / "second", source, server)
    collecting = subprocess.Popen([sys.executable, "-c", COLLECT, str(second.cache)])
    try:
        for turn in range(4):
            if turn == 2:
                server.stop()  # from now on the local level is all there is
            shutil.rmtree(second.root / "build", ignore_errors=True)
            second.build(upload=True, task="check")
            assert [line for line in lines_about_the_cache(second) if "the server cannot be used" not in line] == []
            lock = "dist/quantbuild.lock.json"
            assert (second.root / lock).read_bytes() == (built.root / lock).read_bytes()
        assert collecting.poll() is None
    finally:
        collecting.kill()
        collecting.wait()


def test_a_latency_is_never_sent(server: Nginx, built: Machine) -> None:
    records = list((built.root / "build").rglob("benchmark@host.json.record.json"))
    assert records
    for record in records:
        key = json.loads(record.read_bytes())["result"]["key"]
        assert not (server.store / "ac" / key).exists()


def test_no_credential_and_no_path_of_the_machine_is_kept(
    tmp_path: Path, source: Path, server: Nginx, built: Machine
) -> None:
    (built.root / "m.tflite").write_bytes(b"no model")  # what failures leave: records, logs, the page
    built.build(upload=True, code=1)
    second = Machine(tmp_path / "second", source, server)
    second.build()
    folders = [root / part for root in (built.root, second.root) for part in ("build", "dist")]
    folders += [built.cache, second.cache, server.store]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert {".state", ".logs", "report", "ac", "cas"} <= {part for path in files for part in path.parts}
    for path in files:
        content = path.read_bytes()
        assert TOKEN.encode() not in content, path
        assert str(tmp_path).encode() not in content, path
        assert tmp_path.name.encode() not in content, path
    assert TOKEN not in built.output + second.output
    assert all(request.endswith(f"Bearer {TOKEN}") for request in server.requests())
