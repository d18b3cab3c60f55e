"""One run over a workspace: from what stands where nothing changed, else through manifests, plan and keys."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import msgspec

from quantbuild import aside, leftovers
from quantbuild.digests import Digests
from quantbuild.errors import UsageError
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.standing import (
    SNAPSHOT_SCHEMA,
    Device,
    File,
    RestsOn,
    Snapshot,
    Standing,
    Task,
    encode_places,
    facts,
    installed_stamp,
    manifest_files,
    read_standing,
    rested,
    write_snapshot,
)

if TYPE_CHECKING:
    from quantbuild.build import Build
    from quantbuild.watcher import Watcher

LOCK = f"{STATE_FOLDER}/lock"
ENDED_WELL = "ended well"
LAST_RUN = "build/last_run.json"
TRIED = ("executed", "restored", "up_to_date", "failed")
COUNTED = ("executed", "restored", "up_to_date", "failed", "blocked", "not_measured")

GROUPS = {
    "convert": "source model → float32.tflite",
    "calibrate": "ranges of every tensor on the calibration set, once a model",
    "quantize": "make every variant, dist/ and the lock",
    "evaluate": "every variant and float32 on the same evaluation samples",
    "sensitivity": "where the noise of a variant comes from, tensor by tensor and op by op",
    "benchmark": "latency and memory of every variant on its devices",
}
OPTIONAL_GROUPS = frozenset({"sensitivity"})
"""Actions that are no task where no manifest asks for them."""
CLOSING_DOCS = {
    "check": "judge the gates; writes junit.xml and results.sarif",
    "dist": "publish artifacts, contracts and the lock to dist/",
    "report": "everything: build/report/index.html and report.json",
}


def steps_of(task: str) -> tuple[str, ...]:
    """Return the steps of a task: a verdict enters the lock, so dist follows check; `doit quantize` asks for dist."""
    return ("check", "dist") if task == "check" else (task,)


def make_state_folder(root: Path) -> None:
    """Make the folder that the state is kept in. Raises UsageError where it cannot be."""
    try:
        (root / STATE_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{STATE_FOLDER}: {error.strerror}; quantbuild keeps its state under build/") from error


class Session:
    """What one process does in one workspace. The build proper is made only when it is needed."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self._watcher = watcher
        make_state_folder(root)
        self._snapshot_path = root / STATE_FOLDER / "standing.msgpack"
        self.digests = Digests(root, root / STATE_FOLDER / "digests.msgpack")
        self._standing: Standing | None = read_standing(self._snapshot_path, self.digests)
        self._stood: dict[str, None] = {}
        self._expected: set[str] = set()
        self._selected: Collection[str] = ()
        self._build: Build | None = None
        self._planning = threading.RLock()
        self._lock_file: IO[str] | None = None
        if self._standing is None:
            self.build  # noqa: B018 - a manifest's errors are to be told before doit goes on

    @property
    def build(self) -> Build:
        """The build proper, planned from the manifests when first asked for, by whichever thread comes first.

        Raises:
            ManifestErrors: all that is wrong with the manifests.
        """
        with self._planning:
            return self._build or self._begin_build()

    def _begin_build(self) -> Build:
        from quantbuild.build import Build
        from quantbuild.manifest.loading import load

        manifests = [(file.path, file.sha256) for file in manifest_files(self.digests)]
        build = self._build = Build(load(self.root), self.digests, manifests=manifests, watcher=self._watcher)
        build.machine.expect(self._expected)
        self._watcher.planned(self._selected, build.usual.seconds)
        for step_id in self._stood:  # in the order of needs, as doit asked
            step = build.step(step_id)
            if not build.settle(step):
                build.run(step)
        return build

    def tasks(self) -> tuple[Task, ...]:
        """Return the doit tasks of this workspace, groups left out."""
        return self._standing.snapshot.tasks if self._standing is not None else planned_tasks(self.build)

    def expect(self, steps: set[str], selected: Collection[str]) -> None:
        """Name the steps that benchmarks let go first, and all that the run has to settle."""
        self._expected, self._selected = steps, selected
        if self._build is not None:
            self._build.machine.expect(steps)
            self._watcher.planned(selected, self._build.usual.seconds)

    def settle(self, task: str) -> bool:
        """Whether all steps of `task` are settled without running anything."""
        steps = steps_of(task)
        with self._planning:
            if self._build is None and self._standing is not None and all(map(self._standing.is_settled, steps)):
                self._stood.update(dict.fromkeys(steps))
                return True
        return all(self.build.settle(self.build.step(step_id)) for step_id in steps)

    def run(self, task: str, *, forced: bool) -> None:
        """Do the steps of `task` that are not settled; with `forced` all of them."""
        for step_id in steps_of(task):
            if forced or step_id == "dist" or step_id not in self.build.outcomes:
                self.build.run(self.build.step(step_id), forced=forced)

    def take_lock(self, waiting: Callable[[str], None]) -> None:
        """Take the workspace's lock for the rest of this process.

        Raises:
            UsageError: the state cannot be written.
        """
        if self._lock_file is not None:
            return
        try:
            self._lock_file = (self.root / LOCK).open("a+", encoding="utf-8")
            if not _lock(self._lock_file, waiting):
                leftovers.sweep(self.root)
        except OSError as error:
            raise UsageError(f"{LOCK}: {error.strerror}; quantbuild keeps its state under build/") from error

    # The end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop the workers."""
        if self._build is not None:
            self._build.stop()

    def finish(self) -> Ending:
        """Publish what a sub-task made, keep the state; return what to tell.

        Raises:
            OSError: the state could not be written.
        """
        if self._is_unpublished():
            self.build  # noqa: B018 - it finds the same steps up to date, and publishes what they made
        if self._build is None:
            assert self._standing is not None
            old, checked = self._standing.snapshot, "check" in self._stood
            failed, undecided = (old.failed_gates, old.undecided_gates) if checked else ((), ())
            counts = dict.fromkeys(COUNTED, 0) | {"up_to_date": len(self._stood)}
            steps = [{"id": step, "status": "up_to_date", "reasons": []} for step in sorted(self._stood)]
            reported = "report" in self._stood
            restamped = self._standing.restamped()
            if restamped is not None:
                write_snapshot(self._snapshot_path, restamped)
        else:
            build = self._build
            build.publish_partly()
            build.summary.write_sarif()
            build.keys.code.save()
            self._keep_standing(build)
            failed, undecided = build.summary.gates("failed"), build.summary.gates("undecided")
            counts = build.summary.counts()
            steps = build.summary.rows()
            outcome = build.outcomes.get("report")
            reported = outcome is not None and outcome.done
        ending = Ending(counts=counts, failed_gates=failed, undecided_gates=undecided, reported=reported)
        self.digests.save()
        self._write_last_run(ending, steps)
        if self._lock_file is not None:
            _write(self._lock_file, f"{os.getpid()} {ENDED_WELL}")
        return ending

    def _is_unpublished(self) -> bool:
        """Whether a variant was asked for without `dist`, and what stands in dist/ may not be it."""
        asked_for = any(step.startswith("quantize:") for step in self._stood) and "dist" not in self._stood
        return self._standing is not None and asked_for and not self._standing.is_settled("dist")

    def _write_last_run(self, ending: Ending, steps: list[dict[str, Any]]) -> None:
        trials = [] if self._build is None else self._build.summary.trial_rows()
        tried = {name: sum(row["status"] == name for row in trials) for name in TRIED}
        content = {
            "schema": 1,
            **ending.counts,
            "failed_gates": ending.failed_gates,
            "undecided_gates": ending.undecided_gates,
            "steps": steps,
            "trials": {**tried, "steps": trials},
        }
        aside.replace(self.root / LAST_RUN, msgspec.json.encode(content) + b"\n")

    def _carry_over(
        self, old: Snapshot, settled: set[str], steps: dict[str, RestsOn[str]], files: dict[str, File]
    ) -> None:
        """Add the steps that this build left alone, but for those that rest on a file which is no longer what it was.

        A sub-task may have made an input of theirs anew: they are stale, and nothing of their own shows it.
        """
        for step_id, rested_on in rested(old).items():
            old_files = [old.files[place] for place in (*rested_on.own, *rested_on.made)]
            same = all(files.get(file.path, file).sha256 == file.sha256 for file in old_files)
            if step_id not in settled and same:
                own, made = ([old.files[place].path for place in part] for part in rested_on)
                steps[step_id] = RestsOn(own, made)
                files |= {file.path: files.get(file.path, file) for file in old_files}
        if "check" in old.steps and "check" not in steps and "dist" not in settled:
            steps.pop("dist", None)  # the lock holds the check's verdicts

    def _keep_standing(self, build: Build) -> None:
        """Keep a snapshot of the steps that this build found or made up to date, and of earlier ones that it left."""
        manifests = manifest_files(self.digests)
        if [(file.path, file.sha256) for file in manifests] != build.manifests:
            return  # a manifest was edited while the build ran: what was planned is no longer what it says
        old = self._standing.snapshot if self._standing is not None else None
        files: dict[str, File] = {}
        steps: dict[str, RestsOn[str]] = {}
        tools: dict[str, str] = {}
        for step_id, outcome in build.outcomes.items():
            if outcome.result is None:
                continue
            rests_on = build.rests_on(step_id)
            known = {path: self.digests.digest(path) for path in (*rests_on.own, *rests_on.made)}
            if None in known.values():
                continue
            steps[step_id] = rests_on
            tools |= outcome.result.preimage["tools"]
            files |= {
                path: File(path, digest.sha256, self.digests.believed_stamp(path))
                for path, digest in known.items()
                if digest is not None
            }
        if old is not None:
            tools = {**old.tools, **tools}
            self._carry_over(old, set(build.outcomes), steps, files)
        used = sorted({path for rests_on in steps.values() for path in (*rests_on.own, *rests_on.made)})
        places = {path: place for place, path in enumerate(used)}
        kept = None if "check" in build.outcomes else old
        tools.pop("python", None)
        snapshot = Snapshot(
            schema=SNAPSHOT_SCHEMA,
            facts=facts(),
            installed=installed_stamp(),
            tools=tools,
            devices=_devices(build, old),
            manifests=manifests,
            tasks=planned_tasks(build),
            steps={step: tuple(places[path] for path in found.own) for step, found in steps.items()},
            made_inputs=encode_places({s: tuple(places[path] for path in found.made) for s, found in steps.items()}),
            files=tuple(files[path] for path in used),
            failed_gates=build.summary.gates("failed") if kept is None else kept.failed_gates,
            undecided_gates=build.summary.gates("undecided") if kept is None else kept.undecided_gates,
        )
        write_snapshot(self._snapshot_path, snapshot)


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended: steps by status, gates that failed or were left undecided, and whether the page stands."""

    counts: dict[str, int]
    failed_gates: tuple[dict[str, Any], ...]
    undecided_gates: tuple[dict[str, Any], ...]
    reported: bool

    @property
    def failed(self) -> bool:
        """Whether the exit code is 1."""
        return bool(self.counts["failed"] or self.counts["blocked"] or self.failed_gates)


def _devices(build: Build, old: Snapshot | None) -> tuple[Device, ...]:
    """Return the devices that a snapshot rests on: as they are now, else as they were when they last answered.

    Figures of a device that is away may stand in the snapshot still; they are of that one and of no other.
    """
    from quantbuild import device

    answered = device.that_answer(build.steps.values())
    found = {(runner, options): Device(runner, options, dict(told)) for runner, options, told in answered}
    before = {} if old is None else {(known.runner, known.options): known for known in old.devices}
    return tuple((before | found).values())


def planned_tasks(build: Build) -> tuple[Task, ...]:
    """Return a task for each step and the closing ones, each with what it needs."""
    from quantbuild import closing

    steps = build.steps
    # An artifact that an evaluation needs is settled before it: naming it again would cost doit an edge each.
    artifacts = tuple(name for name in steps if name.startswith(("convert:", "quantize:")))
    evaluations = tuple(name for name in steps if name.startswith("evaluate:"))
    evaluated = {needed for name in evaluations for needed in steps[name].needs}
    judged = (*(name for name in artifacts if name not in evaluated), *evaluations)
    benchmarks = tuple(name for name in steps if name.startswith("benchmark:"))
    sensitivities = tuple(name for name in steps if name.startswith("sensitivity:"))
    gated = tuple(closing.gated_benchmarks(build.workspace))
    return (
        *(Task(step.id, step.needs, "") for step in steps.values()),
        Task("dist", artifacts, CLOSING_DOCS["dist"]),
        Task("check", (*judged, *gated), CLOSING_DOCS["check"]),
        Task("report", ("check", *sensitivities, *benchmarks), CLOSING_DOCS["report"]),
    )


def _lock(file: IO[str], waiting: Callable[[str], None]) -> bool:
    """Take the lock, telling `waiting` of the process that has it; return whether its last holder ended well."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        waiting(file.read().partition(" ")[0])
        fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(0)
    before = file.read()
    _write(file, str(os.getpid()))
    return not before or before.endswith(ENDED_WELL)


def _write(file: IO[str], text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()
