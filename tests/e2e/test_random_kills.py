"""Builds are killed at random moments while inputs change and come back: nothing wrong is left, nothing needs a hand.

Three workspaces with one cache at the same time, so that a killed build's locks and half-kept entries are the others'
too. `QUANTBUILD_TEST_KILLS` sets how many kills must hit a build that has begun: that holds its workspace's lock;
`QUANTBUILD_TEST_SEED` gives other histories.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kill_points
import pytest
from workspace import DODO, Workspace, processes_in, write_light

KILLS = int(os.environ.get("QUANTBUILD_TEST_KILLS", "200"))
SEED = int(os.environ.get("QUANTBUILD_TEST_SEED", "0"))
HISTORIES = 3
# After so many kills a build goes on to its end, and all it leaves is compared with a build from nothing.
KILLS_BETWEEN_LOOKS = 20
LONGEST_SECONDS = 4.0
REPORTED = ("report/check.json", "report/junit.xml", "report/results.sarif")

HEAD = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
"""
MODEL = """[model.{name}]
source = "tflite"
path = "m.tflite"
evaluation = "data"
metric = "top1"
ship = {ship}
"""
SHIPS = ['"a"', '{ default = "a", low_end = "b" }', '{ default = "b" }']
SCHEMES = ["float16", "dynamic"]
SECOND_VARIANT = '[model.n.variant.z]\nscheme = "dynamic"\n'
# Where a build is killed between two writes, and how many of them it lets pass at most.
POINTS = {"dist": 12, "cache": 40, "build/.state": 10, "build": 60, "build/report": 8}
WAYS = [*("doit", "doit", "everything", "worker", "worker", "SIGTERM", "SIGINT"), *(["point"] * 6)]


class State:
    """The inputs of a workspace, as data: written whole, compared by value."""

    def __init__(self, **inputs: Any) -> None:
        self.inputs = inputs

    def manifests(self) -> dict[str, str]:
        """File name to text; the second model has a file of its own."""
        inputs = self.inputs
        variants = {"a": inputs["a"], "b": inputs["b"], "c": inputs["c"]}
        written = "".join(
            f'[model.m.variant.{name}]\nscheme = "{scheme}"\n' for name, scheme in variants.items() if scheme
        )
        files = {"m.toml": HEAD + MODEL.format(name="m", ship=inputs["ship"]) + inputs["gate"] + written}
        if inputs["second"]:
            files["n.toml"] = "schema = 1\n" + MODEL.format(name="n", ship='"z"') + SECOND_VARIANT
        return files

    def write(self, root: Path) -> None:
        """Make the inputs under `root` these; what stands there unchanged is left alone."""
        for kind in ("model", "data"):
            made = _inputs(root.parent, self.inputs[kind])
            name = {"model": "m.tflite", "data": "data.npz"}[kind]
            _write(root / name, (made / name).read_bytes())
        _write(root / "dodo.py", DODO.encode())
        manifests = self.manifests()
        for path in (root / "manifests").glob("*.toml"):
            if path.name not in manifests:
                path.unlink()
        for name, text in manifests.items():
            _write(root / "manifests" / name, text.encode())

    def changed(self, chance: random.Random) -> State:
        choices: dict[str, list[Any]] = {
            "model": [0, 1, 2],
            "data": [0, 1],
            "a": SCHEMES,
            "b": SCHEMES,
            "c": [None, *SCHEMES],
            "ship": SHIPS,
            "second": [False, True],
            "gate": ["", "[model.m.gate]\nmin_agreement = 0.1\n"],
        }
        what = chance.choice(sorted(choices))
        other = [value for value in choices[what] if value != self.inputs[what]]
        return State(**{**self.inputs, what: chance.choice(other)})

    def variants(self) -> list[str]:
        return ["m/a", "m/b", *(["m/c"] if self.inputs["c"] else []), *(["n/z"] if self.inputs["second"] else [])]


FIRST = State(model=0, data=0, a="float16", b="dynamic", c=None, ship=SHIPS[0], second=False, gate="")


def _write(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _inputs(parent: Path, seed: int) -> Path:
    place = parent / f"inputs-{seed}"
    if not place.exists():
        aside = parent / f"inputs-{seed}.{os.getpid()}.{time.monotonic_ns()}"
        write_light(aside, seed=seed)
        try:
            aside.rename(place)
        except OSError:  # the other history was first
            shutil.rmtree(aside)
    return place


class History:
    """One workspace and what is done to it."""

    def __init__(self, folder: Path, seed: int, hook: str) -> None:
        self.chance = random.Random(seed)
        self.workspace = Workspace(folder / f"worn-{seed}")
        self.cache = folder / "cache"
        self.workspace.environment |= {"QUANTBUILD_CACHE_DIR": str(self.cache), "PYTHONPATH": hook}
        self.root = self.workspace.root
        self.folder = folder
        self.seed = seed
        self.state = FIRST
        self.before = FIRST
        self.seconds = 1.0
        """About how long a build takes once it has begun: moments are drawn from it, and it follows what is seen."""
        self.hits: collections.Counter[str] = collections.Counter()
        self.story: list[str] = []
        self.damaged: set[str] = set()
        self.looks = 0

    def live(self, kills: int) -> None:
        looked_at = 0
        self.state.write(self.root)
        while self.count() < kills:
            self.meddle()
            self.killed_build()
            if self.count() - looked_at >= KILLS_BETWEEN_LOOKS:
                looked_at = self.count()
                self.look()
        self.look()

    def count(self) -> int:
        """How many builds were killed that had begun."""
        return self.hits.total() - self.hits["before it began"]

    # Meddling ------------------------------------------------------------------------------------------------------

    def meddle(self) -> None:
        what = self.chance.choice(["change", "change", "put back", "damage", "damage the cache", "nothing", "nothing"])
        if what == "change":
            self.before, self.state = self.state, self.state.changed(self.chance)
        elif what == "put back":
            self.before, self.state = self.state, self.before
        elif what == "damage":
            self.damage()
        elif what == "damage the cache":
            self.damage_cache()
        self.story.append(f"{what}: {self.state.inputs}")
        self.state.write(self.root)

    def damage(self) -> None:
        """Delete, or alter the end of, up to two files that builds have left, records and state among them."""
        left = _files(self.root / "build") + _files(self.root / "dist")
        for path in self.chance.sample(left, min(len(left), 2)):
            deletes = self.chance.random() < 0.5
            self.story.append(f"damage {path.relative_to(self.root)} {'gone' if deletes else 'altered'}")
            _damage(path, deletes)

    def damage_cache(self) -> None:
        left = [path for part in ("ac", "cas") for path in _files(self.cache / part)]
        for path in self.chance.sample(left, min(len(left), 2)):
            self.damaged.add(path.name)
            _damage(path, self.chance.random() < 0.3)

    # Killing -------------------------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        variant = self.chance.choice(self.state.variants())
        one = [f"quantize:{variant}", f"evaluate:{variant}"]
        tasks = ["report", "report", "report", "check", "quantize", "dist", *one]
        options = self.chance.choice([[], [], [], ["-n", "1"], ["-n", "3"], ["-a"]])
        return [*options, self.chance.choice(tasks)]

    def killed_build(self) -> None:
        command = self.command()
        way = self.chance.choice(WAYS)
        environment = dict(self.workspace.environment)
        if way == "point":
            place = self.chance.choice(sorted(POINTS))
            number = min(self.chance.randint(1, POINTS[place]) for _ in range(2))  # late ones are often never reached
            how = self.chance.choice(["before", "torn"])
            folder = self.cache if place == "cache" else self.root / place
            environment[kill_points.VARIABLE] = f"{folder},{number},{how}"
            way = f"point in {place}"
        moment = self.chance.uniform(0.0, self.seconds)
        self.story.append(f"doit {' '.join(command)}: {way} {moment:.2f} s {environment.get(kill_points.VARIABLE, '')}")
        log = self.folder / f"log-{self.seed}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.workspace.command("doit", *command),
                cwd=self.root,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if way.startswith("point"):
            process.wait(timeout=120)
            hit = process.returncode == -signal.SIGKILL
        else:
            hit = self.strike(process, way, moment)
        begun = way == "worker" or self.has_begun(process.pid)
        output = log.read_text()
        self.story[-1] += f" → {'hit' if hit else 'missed'}{'' if begun else ' early'}, {process.returncode}"
        if hit:
            self.hits[way if begun else "before it began"] += 1
        assert "Traceback" not in output or (way == "SIGINT" and not begun), output
        assert "failed: " not in output or way == "worker", output
        assert hit or process.returncode == 0, output

    def has_begun(self, pid: int) -> bool:
        """Whether `pid` is, or was when it was killed, at work in the workspace."""
        try:
            return (self.root / "build/.state/lock").read_text() == str(pid)
        except FileNotFoundError:
            return False

    def strike(self, process: subprocess.Popen[bytes], way: str, moment: float) -> bool:
        """Strike `moment` seconds after the build has begun, seldom after doit has started; whether it still ran."""
        if self.chance.random() < 0.9:
            while process.poll() is None and not self.has_begun(process.pid):
                time.sleep(0.01)
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            self.seconds = min(self.seconds * 1.02, LONGEST_SECONDS)
        else:
            self.seconds = max(self.seconds * 0.9, 0.2)
            return False
        if way == "worker":
            while process.poll() is None and not _kill_one(process.pid, self.chance):
                time.sleep(0.01)
            hit = process.poll() is None
            process.wait(timeout=120)
            return hit
        if way == "everything":
            for pid in _workers(process.pid):
                _kill(pid)
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.send_signal(signal.SIGKILL if way == "doit" else signal.Signals[way])
        code = process.wait(timeout=120)
        return code not in (0, 1)

    # Looking -------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Build to the end; compare with a build from nothing, elsewhere, with another cache."""
        self.looks += 1
        self.story.append("look")
        output = self.workspace.doit("report", code=0)
        fresh = Workspace(self.folder / f"fresh-{self.seed}-{self.looks}")
        self.state.write(fresh.root)
        fresh.doit("report", code=0)
        assert self.workspace.files("dist") == fresh.files("dist"), output
        assert _made(self.workspace) == _made(fresh), output
        assert _told(self.root) == _told(fresh.root), output
        left = [path for path in _files(self.root) if path.name.endswith(".tmp") or ".scratch" in path.parts]
        assert os.environ.get("NOLEFT") or left == []
        self.workspace.doit("report")
        assert self.workspace.last_run()["executed"] == self.workspace.last_run()["restored"] == 0
        assert processes_in(self.workspace) == []
        shutil.rmtree(fresh.root)
        shutil.rmtree(fresh.environment["QUANTBUILD_CACHE_DIR"])


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _damage(path: Path, deletes: bool) -> None:
    try:
        if deletes:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    except FileNotFoundError:  # an orphan of a killed build, or the other history, was faster
        return


def _workers(pid: int) -> list[int]:
    """Return the processes that `pid` started."""
    children: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children.update(map(int, path.read_text().split()))
        except OSError:
            continue
    return sorted(children)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _kill_one(pid: int, chance: random.Random) -> bool:
    workers = _workers(pid)
    return bool(workers) and _kill(chance.choice(workers))


def _made(workspace: Workspace) -> dict[str, Any]:
    """What stands under build/ and is the same wherever and whenever it was made; of a record, its result."""
    made: dict[str, Any] = {}
    models = {path.parent.name for path in (workspace.root / "dist").glob("*/*.tflite")}
    variants = {path.relative_to(workspace.root / "dist").with_suffix("") for path in _files(workspace.root / "dist")}
    for name, content in workspace.files("build").items():
        path = Path(name)
        if path.parts[0] not in models and name not in REPORTED:
            continue
        if len(path.parts) == 3 and path.parent.name != "float32" and path.parent not in variants:
            continue  # of a variant that the manifest has no more
        made[name] = json.loads(content)["result"] if name.endswith(".record.json") else content
    return made


def _told(root: Path) -> list[Any]:
    """What the report says; why a step last ran is history and no result."""
    report = json.loads((root / "build/report/report.json").read_bytes())
    keys = ("name", "artifact", "accuracy", "gates", "error")
    return [[variant[key] for key in keys] for model in report["models"] for variant in model["variants"]]


def test_no_kill_at_any_moment_leaves_anything_wrong(
    tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = kill_points.written(tmp_path / "hook")
    histories = [History(tmp_path, seed, hook) for seed in range(SEED, SEED + HISTORIES)]
    with ThreadPoolExecutor(HISTORIES) as threads:
        lives = [threads.submit(history.live, -(-KILLS // HISTORIES)) for history in histories]
    for life, history in zip(lives, histories, strict=True):
        if life.exception() is not None:
            print("\n".join(history.story))
        life.result()
    hits: collections.Counter[str] = sum((history.hits for history in histories), collections.Counter())
    kills = sum(history.count() for history in histories)
    looks = sum(history.looks for history in histories)
    with capsys.disabled():
        ways = ", ".join(f"{way} {number}" for way, number in sorted(hits.items()))
        print(f"\n{kills} builds killed that had begun ({ways}); {looks} times all was as built from nothing")
    record_property("kills", kills)
    assert kills >= KILLS
    damaged = set().union(*(history.damaged for history in histories))
    for blob in _files(tmp_path / "cache" / "cas"):
        assert blob.name in damaged or hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
