"""Full disks, read-only file systems, files that may not be read: real ones, each told in one line.

Nothing is half-written, what does not need the bad place is built, and when it is mended the next build ends as one
from nothing would. Small file systems are mounted in a mount namespace, which goes with its last process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_tflite
from workspace import MANIFEST, Workspace, write_light

FULL = "No space left on device"
READ_ONLY = "Read-only file system"
# Without the capability to read and write whatever it likes, root is a user as any other.
AS_A_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
AS_ROOT = os.geteuid() == 0
CANNOT_MOUNT = (
    "this test mounts a small file system, and this machine forbids it; give root the capability SYS_ADMIN "
    "(docker run --cap-add=SYS_ADMIN), or let users make namespaces (sysctl kernel.unprivileged_userns_clone=1)"
)


class Mounted(Workspace):
    """A workspace that is seen, and run in, from a namespace of its own, where some folders are small file systems."""

    def __init__(self, root: Path, holder: int) -> None:
        super().__init__(root)
        self._enter = ["nsenter", "-t", str(holder), "-m", *([] if AS_ROOT else ["-U", "--preserve-credentials"])]
        self.seen = Path(f"/proc/{holder}/root{root}")
        """The root, for a look from outside."""

    def command(self, module: str, *arguments: str) -> list[str]:
        return self.inside(*super().command(module, *arguments))

    def inside(self, *command: str) -> list[str]:
        return [*self._enter, "--", "sh", "-c", 'cd "$0" && exec "$@"', str(self.root), *command]

    def remount(self, folder: str, how: str) -> None:
        # With type and source mount does not repeat the options it finds, among them owners unknown in a namespace.
        command = self.inside("mount", "-t", "tmpfs", "-o", f"remount,{how}", "tmpfs", str(self.root / folder))
        subprocess.run(command, check=True, capture_output=True)

    def last_run(self) -> dict[str, Any]:
        return Workspace(self.seen).last_run()

    def files(self, folder: str) -> dict[str, bytes]:
        return Workspace(self.seen).files(folder)


Mount = Callable[[str, str], Mounted]


def large(root: Path) -> Workspace:
    """A workspace whose float32 model takes 1.2 MB."""
    workspace = write_light(root, MANIFEST)
    rng = np.random.default_rng(0)
    tiny_tflite.linear(root / "m.tflite", rng.standard_normal((3, 100_000)).astype(np.float32))
    np.savez(root / "data.npz", x=rng.standard_normal((6, 100_000)).astype(np.float32), y=rng.integers(0, 3, 6))
    return workspace


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Make a workspace of a large model, and mount a small file system at one of its folders."""
    with contextlib.ExitStack() as stack:

        def mounted(folder: str, size: str) -> Mounted:
            root = large(tmp_path / "light").root
            (root / folder).mkdir(parents=True, exist_ok=True)
            script = 'mount -t tmpfs -o "size=$1,mode=755" tmpfs "$0" && echo ready && exec sleep 600'
            namespaces = ["--mount"] if AS_ROOT else ["--mount", "--user", "--map-root-user"]
            holder = stack.enter_context(
                subprocess.Popen(
                    ["unshare", *namespaces, "sh", "-c", script, str(root / folder), size],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(holder.kill)
            assert holder.stdout is not None
            assert holder.stderr is not None
            if holder.stdout.readline() != "ready\n":
                pytest.fail(f"{CANNOT_MOUNT}; it said: {holder.stderr.read().strip()}", pytrace=False)
            return Mounted(root, holder.pid)

        yield mounted


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """What a build of the same inputs comes to where nothing is in its way."""
    workspace = large(tmp_path_factory.mktemp("good") / "light")
    workspace.doit("report")
    return workspace


def assert_whole(workspace: Workspace, folder: str) -> None:
    """Every file that a record names is what the record says, and nothing was left half-written."""
    files = workspace.files(folder)
    assert [name for name in files if name.endswith(".tmp") or name.startswith(".scratch/")] == []
    for name, content in files.items():
        if name.endswith(".record.json") and (result := json.loads(content)["result"]) is not None:
            for output in result["outputs"].values():
                if not output["path"].startswith(f"{folder}/"):
                    continue  # of dist/, whose record is not there
                made = files[output["path"].removeprefix(f"{folder}/")]
                assert hashlib.sha256(made).hexdigest() == output["sha256"], output["path"]


def failures(output: str) -> list[str]:
    return [line.strip() for line in output.splitlines() if "failed: " in line]


# Full -------------------------------------------------------------------------------------------------------------


def test_a_full_build_folder_fails_the_steps_that_find_no_room_and_no_other(mount: Mount, good: Workspace) -> None:
    workspace = mount("build", "2300k")  # the float32 model and one more
    output = workspace.doit("report", code=1)
    assert failures(output)
    for line in failures(output):
        assert FULL in line, output
        assert "make room and build again" in line, output
    assert "convert:m  failed" not in output
    assert_whole(workspace, "build")
    workspace.remount("build", "size=50m")
    workspace.doit("report")
    assert workspace.files("dist") == good.files("dist")
    assert_whole(workspace, "build")


def test_a_build_folder_without_any_room_is_told_and_filled_when_there_is(mount: Mount, good: Workspace) -> None:
    workspace = mount("build", "200k")
    (workspace.seen / "build/.state").mkdir()
    with contextlib.suppress(OSError), (workspace.seen / "build/filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    output = workspace.doit("report", code=2)
    assert output == f"build/.state/lock: {FULL}; quantbuild keeps its state under build/\n"
    assert workspace.files("dist") == {}
    (workspace.seen / "build/filler").unlink()
    workspace.remount("build", "size=50m")
    workspace.doit("report")
    assert workspace.files("dist") == good.files("dist")


def test_a_full_dist_fails_the_publishing_alone(mount: Mount, good: Workspace) -> None:
    workspace = mount("dist", "900k")  # one of the two
    output = workspace.doit("report", code=1)
    (line,) = failures(output)
    assert line.startswith(f"dist  failed: {FULL}: ")
    assert line.endswith("make room and build again")
    assert (workspace.root / "build/report/index.html").is_file()
    assert all(content == good.files("dist")[name] for name, content in workspace.files("dist").items())
    workspace.remount("dist", "size=50m")
    workspace.doit("report")
    assert workspace.files("dist") == good.files("dist")


def test_a_full_cache_is_a_warning_and_holds_nothing_by_half(mount: Mount, good: Workspace) -> None:
    workspace = mount("cache", "1500k")
    workspace.environment["QUANTBUILD_CACHE_DIR"] = str(workspace.root / "cache")
    output = workspace.doit("report")
    assert output.count("this build goes on without keeping results") == 1
    assert workspace.files("dist") == good.files("dist")
    kept = workspace.files("cache")
    assert [name for name in kept if name.startswith("tmp/")] == []
    for name, content in kept.items():
        assert not name.startswith("cas/") or hashlib.sha256(content).hexdigest() == name.removeprefix("cas/")
    workspace.remount("cache", "size=50m")
    assert "without keeping results" not in workspace.doit("-a", "report")


def test_a_limit_on_the_size_of_files_is_told_as_a_full_disk_is(tmp_path: Path, good: Workspace) -> None:
    """As a quota or `ulimit -f` sets one: wherever nothing can be mounted this is the disk that is full."""
    workspace = large(tmp_path / "light")
    command = ["prlimit", "--fsize=700000", *workspace.command("doit", "report")]
    done = subprocess.run(
        command, cwd=workspace.root, env=workspace.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "convert:m  failed: File too large; raise the limit on the size of a file" in done.stdout
    assert_whole(workspace, "build")
    workspace.doit("report")
    assert workspace.files("dist") == good.files("dist")


# Read-only ---------------------------------------------------------------------------------------------------------


def test_a_read_only_build_folder_is_one_line(mount: Mount) -> None:
    workspace = mount("build", "50m")
    workspace.remount("build", "ro")
    for command in (["doit", "report"], ["quantbuild.cli", "plan"]):
        output = workspace._run(workspace.command(*command), 2)
        assert output == f"build/.state: {READ_ONLY}; quantbuild keeps its state under build/\n"


def test_a_build_folder_that_became_read_only_is_told_and_nothing_is_lost(mount: Mount, good: Workspace) -> None:
    workspace = mount("build", "50m")
    workspace.doit("report")
    workspace.remount("build", "ro")
    workspace.edit('scheme = "dynamic"', 'scheme = "float16"')
    output = workspace.doit("report", code=2)
    assert output == f"build/.state/lock: {READ_ONLY}; quantbuild keeps its state under build/\n"
    assert workspace.files("dist") == good.files("dist")
    workspace.remount("build", "rw")
    workspace.edit('[model.m.variant.b]\nscheme = "float16"', '[model.m.variant.b]\nscheme = "dynamic"')
    workspace.doit("report")
    assert workspace.last_run()["executed"] == 0


def test_a_read_only_dist_fails_the_publishing_alone(mount: Mount, good: Workspace) -> None:
    workspace = mount("dist", "50m")
    workspace.remount("dist", "ro")
    for task in ("report", "quantize:m/a"):
        output = workspace.doit(task, code=1)
        (line,) = failures(output)
        assert line.startswith(f"dist  failed: {READ_ONLY}: ")
    assert (workspace.root / "build/report/index.html").is_file()
    workspace.remount("dist", "rw")
    workspace.doit("report")
    assert workspace.files("dist") == good.files("dist")


def test_a_read_only_cache_is_read_all_the_same(mount: Mount, good: Workspace) -> None:
    workspace = mount("cache", "50m")
    workspace.environment["QUANTBUILD_CACHE_DIR"] = str(workspace.root / "cache")
    workspace.doit("report")
    workspace.remount("cache", "ro")
    subprocess.run(["rm", "-r", workspace.root / "build", workspace.root / "dist"], check=True)
    output = workspace.doit("report")
    assert workspace.steps("executed") == set(), output
    assert READ_ONLY not in output
    assert workspace.files("dist") == good.files("dist")
    workspace.edit("[model.m.variant.b]", "[model.m.variant.c]")
    output = workspace.doit("report")
    assert output.count(READ_ONLY) == 1, output
    assert "this build goes on without keeping results" in output
    assert (workspace.root / "dist/m/c.tflite").is_file()


# Forbidden ---------------------------------------------------------------------------------------------------------


class Forbidden(Workspace):
    """A workspace whose commands may do no more than a user may, whoever runs the tests."""

    def command(self, module: str, *arguments: str) -> list[str]:
        return [*(AS_A_USER if AS_ROOT else ()), *super().command(module, *arguments)]


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Forbidden]:
    workspace = Forbidden(write_light(tmp_path / "light", MANIFEST).root)
    yield workspace
    subprocess.run(["chmod", "-R", "u+rwX", tmp_path], check=True)


SECOND_MODEL = """
[dataset.other]
loader = "npz"
path = "other.npz"
input = "x"
label = "y"
[model.n]
source = "tflite"
path = "n.tflite"
evaluation = "other"
metric = "top1"
[model.n.variant.a]
scheme = "float16"
"""


@pytest.mark.parametrize(("name", "step"), [("n.tflite", "convert:n"), ("other.npz", "evaluate:n/float32")])
def test_an_input_that_may_not_be_read_fails_what_needs_it_alone(forbidden: Forbidden, name: str, step: str) -> None:
    for source, copy in (("m.tflite", "n.tflite"), ("data.npz", "other.npz")):
        (forbidden.root / copy).write_bytes((forbidden.root / source).read_bytes())
    forbidden.manifest.write_text(forbidden.manifest.read_text() + SECOND_MODEL)
    forbidden.doit("quantize")
    (forbidden.root / name).write_bytes((forbidden.root / name).read_bytes() + b"\0")
    (forbidden.root / name).chmod(0)
    for command in (["report"], ["-n", "1", "report"]):
        output = forbidden.doit(*command, code=1)
        (line,) = failures(output)
        assert line == f"{step}  failed: Permission denied: {name}"
    assert {"evaluate:m/a", "report"} <= forbidden.steps("executed") | forbidden.steps("up_to_date")
    assert (forbidden.root / "build/report/index.html").is_file()
    assert "Permission denied" in forbidden.quantbuild("explain", step)
    (forbidden.root / name).chmod(0o644)
    forbidden.doit("report", code=None)
    assert not [step for step in forbidden.last_run()["steps"] if "Permission denied" in (step["message"] or "")]


@pytest.mark.parametrize("built", [False, True])
def test_a_manifest_that_may_not_be_read_is_one_line(forbidden: Forbidden, built: bool) -> None:
    if built:
        forbidden.doit("quantize")
    forbidden.manifest.chmod(0)
    (forbidden.manifest.parent / "z.toml").write_text("schema = 1\n")
    for command in (["doit", "report"], ["quantbuild.cli", "plan"]):
        output = forbidden._run(forbidden.command(*command), 2)
        assert output == "manifests/m.toml:1: Permission denied; make it readable\n"


def test_a_cache_that_may_not_be_read_is_built_without(forbidden: Forbidden, tmp_path: Path) -> None:
    forbidden.doit("quantize")
    cache = Path(forbidden.environment["QUANTBUILD_CACHE_DIR"])
    dist = forbidden.files("dist")
    for path in (cache / "cas").iterdir():
        path.chmod(0)
    subprocess.run(["rm", "-r", forbidden.root / "build", forbidden.root / "dist"], check=True)
    output = forbidden.doit("quantize")
    assert "cannot be read (Permission denied)" in output
    assert forbidden.steps("restored") == set()
    assert forbidden.files("dist") == dist
    cache.chmod(0)
    forbidden.doit("-a", "quantize")
    assert forbidden.files("dist") == dist


def test_a_root_that_may_not_be_written_is_one_line(forbidden: Forbidden) -> None:
    forbidden.root.chmod(0o555)
    assert forbidden.doit("report", code=2) == (
        "build/.state: Permission denied; quantbuild keeps its state under build/\n"
    )


def test_a_dodo_file_alone_says_where_to_begin(forbidden: Forbidden) -> None:
    forbidden.manifest.parent.chmod(0)
    output = forbidden.doit("report", code=2)
    assert output.count("\n") == 1
    assert "manifests" in output
