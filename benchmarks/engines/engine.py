"""What every engine has in common: one pipeline in a folder, runs of it, the log of executions, and faults on demand.

The pipeline is one model and one set of samples, a stage for each variant that reads both, and a report over all. Every
engine runs the same script for a stage (``stage.sh``), which notes each run and obeys faults asked for by name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

SCRIPTS = Path(__file__).parent
STAGE, REPORT, BENCH = (SCRIPTS / name for name in ("stage.sh", "report.sh", "bench.sh"))
MODEL, SET, FOLDER = "m.tflite", "data.npz", "model"

# A run of a few stages takes seconds; one that has not ended after this long waits for what never comes.
HANG_SECONDS = 120.0
LONG_SECONDS = 1800.0
GRACE_SECONDS = 5.0
UNWANTED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "MAKEFLAGS", "MFLAGS", "NINJA_STATUS")


class Run(NamedTuple):
    """How one run ended; the code is None where it hung and was killed."""

    code: int | None
    output: str


class Tool(NamedTuple):
    """An engine's program on this machine."""

    program: tuple[str, ...]
    version: str


class Engine(ABC):
    """One engine's pipeline in one folder."""

    name: ClassVar[str]
    program_name: ClassVar[str]
    state: ClassVar[tuple[str, ...]] = ()
    """What it remembers between runs, relative to the root."""
    committed: ClassVar[tuple[str, ...]] = ()
    """What it writes that its users commit."""
    artifacts: ClassVar[str] = "out/{}.tflite"
    worker_fault: ClassVar[str] = "killed"
    """The fault that ends the process a stage runs in: the script's own, or that of the engine's worker above it."""

    def __init__(self, root: Path, tool: Tool, *, beside: Engine | None = None) -> None:
        """Work in `root`; `beside` another workspace, with its cache and log, where that is given."""
        self.root = root
        self.tool = tool
        self.control = beside.control if beside else root.with_name(f"{root.name}-control")
        self.cache = beside.cache if beside else root.with_name(f"{root.name}-cache")
        self.parameters: dict[str, int] = {}
        self.benchmarked: tuple[str, ...] = ()
        self.model_is_folder = False

    @classmethod
    def find(cls, program: str | None = None) -> Tool | None:
        """Return the program given or found on PATH with its version, None where there is none."""
        found = program or shutil.which(cls.program_name)
        if found is None or shutil.which(found) is None:
            return None
        said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        words = [word for word in said.split("\n")[0].split() if word[:1].isdigit()]
        return Tool((found,), words[0] if words else "unknown")

    # What differs -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def write(self) -> None:
        """Write what the user of this engine writes: the rules, from `parameters`."""

    @abstractmethod
    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command that makes the report, or one target; it goes on after a failure."""

    @property
    @abstractmethod
    def manifest(self) -> Path:
        """The file that the parameter of the first variant stands in; lines with # are comments there."""

    def stage_target(self, name: str) -> str:
        """Return what `command` calls the stage of a variant."""
        return self.artifacts.format(name)

    def report_is_right(self) -> bool:
        """Whether the report is over the artifacts as they should be."""
        content = b"".join(self.expected(name) for name in self.parameters)
        path = self.root / "report.txt"
        return path.is_file() and path.read_text().split()[:1] == [hashlib.sha256(content).hexdigest()]

    def lose_state(self) -> None:
        """Remove what the engine remembers; artifacts stay."""
        for path in self.state:
            full = self.root / path
            shutil.rmtree(full) if full.is_dir() else full.unlink(missing_ok=True)

    # The pipeline -----------------------------------------------------------------------------------------------------

    def prepare(self, stages: int, *, folder: bool = False, benchmarks: int = 0) -> None:
        """Write model, samples and rules, with nothing built."""
        self.model_is_folder = folder
        self.parameters = {f"v{number:03}": number for number in range(stages)}
        self.benchmarked = tuple(self.parameters)[:benchmarks]
        (self.root / "out").mkdir(parents=True)
        self.control.mkdir(exist_ok=True)
        self.model.parent.mkdir(exist_ok=True)
        self.model.write_bytes(model_bytes(0))
        self.set.write_bytes(b"samples 0" * 40)
        self.write()

    @property
    def model(self) -> Path:
        """The file every stage reads first."""
        return self.root / FOLDER / MODEL if self.model_is_folder else self.root / MODEL

    @property
    def model_input(self) -> str:
        """What a stage declares as its first input: the model, or the folder it lies in."""
        return FOLDER if self.model_is_folder else MODEL

    @property
    def set(self) -> Path:
        """The set of samples, which every stage reads second."""
        return self.root / SET

    def artifact(self, name: str) -> Path:
        """Where a variant's artifact lies."""
        return self.root / self.artifacts.format(name)

    def expected(self, name: str) -> bytes:
        """Return what a variant's artifact should hold."""
        return self.model.read_bytes() + self.set.read_bytes() + f"{self.parameters[name]}\n".encode()

    def set_parameter(self, name: str, value: int) -> None:
        """Edit one parameter of one variant."""
        self.parameters[name] = value
        self.write()

    def is_right(self) -> bool:
        """Whether every artifact and the report are what the inputs of now give."""
        return not self.wrong_artifacts() and self.report_is_right()

    def wrong_artifacts(self) -> list[str]:
        """Return the variants whose artifact is missing or not what the inputs of now give."""
        places = {name: self.artifact(name) for name in self.parameters}
        return [n for n, path in places.items() if not path.is_file() or path.read_bytes() != self.expected(n)]

    def clone(self) -> Engine:
        """Return a fresh clone of the workspace: what a user commits, no artifact and no state, the same cache."""
        other = type(self)(self.root.with_name(f"{self.root.name}-clone"), self.tool, beside=self)
        other.prepare(len(self.parameters), folder=self.model_is_folder, benchmarks=len(self.benchmarked))
        other.model.write_bytes(self.model.read_bytes())
        other.set.write_bytes(self.set.read_bytes())
        other.parameters = dict(self.parameters)
        other.write()
        for path in self.committed:
            shutil.copy(self.root / path, other.root / path)
        return other

    # Runs -------------------------------------------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a run: nothing of the user's settings, no home of the user's."""
        kept = {k: v for k, v in os.environ.items() if k not in UNWANTED and not k.startswith(("QUANTBUILD_", "DVC_"))}
        home = self.control / "home"
        home.mkdir(exist_ok=True)
        return kept | {"STAGE_CONTROL": str(self.control), "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}

    def start(self, **how: object) -> subprocess.Popen[str]:
        """Start a run in a process group of its own."""
        return subprocess.Popen(
            self.command(**how),  # type: ignore[arg-type]
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ended(self, process: subprocess.Popen[str], timeout: float = HANG_SECONDS) -> Run:
        """Wait for a run that was started; one that hangs is killed."""
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            return Run(None, "")
        return Run(process.returncode, output)

    def build(self, **how: object) -> Run:
        """Make the report (or the `target`) and wait."""
        return self.ended(self.start(**how))

    def build_well(self, **how: object) -> None:
        """Make the report; anything but exit code 0 ends the measurement."""
        run = self.ended(self.start(**how), LONG_SECONDS)
        if run.code != 0:
            raise RuntimeError(f"{self.name} ended with {run.code}:\n{run.output[-3000:]}")

    def executions(self) -> Counter[str]:
        """Return how often each stage and the report were executed so far."""
        log = self.control / "log"
        return Counter(log.read_text().split()) if log.exists() else Counter()

    def executions_of_a_build(self, **how: object) -> tuple[int, Run]:
        """Make the report; return how many executions that took, and how it ended."""
        before = self.executions()
        run = self.build(**how)
        return (self.executions() - before).total(), run

    # Faults -----------------------------------------------------------------------------------------------------------

    def fault(self, name: str, kind: str) -> None:
        """Ask for a fault in the stage of a variant: see ``stage.sh``."""
        (self.control / f"{name}.{kind}").touch()

    def no_faults(self) -> None:
        """Take all faults back."""
        for path in (*self.control.glob("*.*"), *self.control.glob("hold-after")):
            path.unlink()

    def hold_after(self, count: int) -> None:
        """Ask for the stage after `count` others, whichever that is, to be held with half its output written."""
        (self.control / "hold-after").write_text(str(count))

    def wait_until_held(self, name: str, process: subprocess.Popen[str]) -> None:
        """Wait until the stage of a variant is held by its fault; the one of `hold_after` is named "held"."""
        deadline = time.monotonic() + HANG_SECONDS
        while not (self.control / f"{name}.reached").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                kill(process)
                raise RuntimeError(f"{self.name} did not come to {name}:\n{process.communicate()[0][-3000:]}")
            time.sleep(0.02)

    def release(self, name: str) -> None:
        """Let a stage that is held go on."""
        (self.control / f"{name}.go").touch()


def kill(process: subprocess.Popen[str]) -> None:
    """Kill -9 a run with all of its process group, as a machine that loses power does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def terminate(process: subprocess.Popen[str], go_on: Callable[[], None]) -> None:
    """SIGTERM a run, as CI does with a job that is cancelled; end what it leaves behind.

    One that waits for its stages to end gets them to by `go_on`.
    """
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE_SECONDS)
    if process.poll() is None:
        go_on()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=HANG_SECONDS)
    kill(process)


def model_bytes(seed: int) -> bytes:
    """Return a tiny .tflite; the same seed gives the same bytes, every seed as many.

    It notes its oldest runtime, so that quantbuild, which would add the note, leaves what the script makes of it alone.
    """
    script = (
        "import sys, pathlib, numpy; sys.path.insert(0, sys.argv[1]); import tiny_tflite;"
        "from quantbuild.tflite import versions;"
        "weights = numpy.random.default_rng(int(sys.argv[3])).standard_normal((3, 4)).astype('f');"
        "path = pathlib.Path(sys.argv[2]); tiny_tflite.linear(path, weights);"
        "path.write_bytes(versions.stamp(path.read_bytes()))"
    )
    if seed not in _models:
        path = Path(os.environ.get("TMPDIR", "/tmp"), f"rivals-model-{os.getpid()}-{seed}.tflite")
        tests = SCRIPTS.parents[1] / "tests" / "actions"
        subprocess.run([sys.executable, "-c", script, str(tests), str(path), str(seed)], check=True)
        _models[seed] = path.read_bytes()
        path.unlink()
    return _models[seed]


_models: dict[int, bytes] = {}
