"""`quantbuild verify`: is the build reproducible? Builds twice and compares, also with what stands in build/."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from quantbuild.build import Build
from quantbuild.digests import Digests
from quantbuild.leftovers import STATE_FOLDER
from quantbuild.look import Look
from quantbuild.manifest.loading import load
from quantbuild.outcome import Outcome
from quantbuild.plan import artifact_step, variant_names
from quantbuild.record import Result
from quantbuild.step import Step
from quantbuild.twice import Comparer, Difference, Turn, Twice, with_needs
from quantbuild.watcher import Watcher

Status = Literal["reproducible", "differs", "failed"]
Standing = Literal["equal", "differs", "other_inputs", "not_up_to_date"]
SCHEMA = 1
CHECKED = ("convert", "calibrate", "quantize", "evaluate")
"""Actions whose results depend on their inputs alone. A benchmark measures a machine, which is never twice the same."""

_STANDING_WORDS = {
    "equal": "equal to the one in build/",
    "differs": "but build/ holds another",
    "other_inputs": "the one in build/ was made from other inputs",
    "not_up_to_date": "none in build/ is up to date",
}


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """One step built twice. `differences` are between the two, `standing_differences` to what stands in build/."""

    id: str
    status: Status
    outputs: dict[str, str] = {}
    """Path to sha256, of the first build."""
    differences: tuple[Difference, ...] = ()
    standing: Standing | None = None
    """None where there is nothing to compare with what stands."""
    standing_differences: tuple[Difference, ...] = ()
    message: str | None = None
    log: str | None = None
    blocked: bool = False

    @property
    def sound(self) -> bool:
        """Whether it was made twice alike, and build/ holds the same."""
        return self.status == "reproducible" and self.standing != "differs"


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """One MODEL/VARIANT: reproducible if every step it comes from is, its evaluation included."""

    name: str
    status: Status
    sha256: str | None
    standing: Standing | None
    step: str | None
    """The first step that is not sound."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `quantbuild verify` came to. `kept` is the folder with both builds, None where it was not needed."""

    schema: int
    artifacts: tuple[Artifact, ...]
    steps: tuple[Checked, ...]
    kept: str | None

    @property
    def sound(self) -> bool:
        """Whether every artifact is reproducible."""
        return all(artifact.step is None for artifact in self.artifacts)


_NOT_TRIED = Turn(message="its driver did not ask for it")


def open_build(root: Path) -> Build:
    """Return the build of the workspace at `root` to plan by and to look at; nothing below the root is written.

    Raises:
        ManifestErrors: all that is wrong with the manifests.
    """
    digests = Digests(root, root / STATE_FOLDER / "digests.msgpack")
    return Build(load(root), digests, manifests=(), watcher=Watcher())


def artifacts_of(build: Build) -> dict[str, list[str]]:
    """Return MODEL/VARIANT to the ids of the steps that make and evaluate it, float32 included."""
    found = {}
    for model in build.workspace.models.values():
        for variant in variant_names(model):
            name = f"{model.name}/{variant}"
            made = (artifact_step(model.name, variant), f"evaluate:{name}")
            found[name] = [step for step in made if step in build.steps]
    return found


def select(names: Sequence[str], selection: str | None) -> list[str]:
    """Return the artifacts that MODEL, MODEL/VARIANT or nothing selects; none where there is no such thing."""
    if selection is None:
        return list(names)
    return [name for name in names if selection in (name, name.partition("/")[0])]


def verify(build: Build, names: Sequence[str], told: Callable[[str], None]) -> Verdict:
    """Build the artifacts `names` twice and compare; `told` hears of each turn. Both builds are kept if they differ."""
    wanted = {name: steps for name, steps in artifacts_of(build).items() if name in names}
    steps = with_needs(build.steps, [step for ids in wanted.values() for step in ids])
    steps = [step for step in steps if step.action in CHECKED]
    # Before anything is made: a look takes what stands in build/ for the inputs of the steps after it.
    stands = _standing(build, steps)
    folder = Path(tempfile.mkdtemp(prefix="quantbuild-verify-"))
    kept = False
    try:
        twice = Twice(build, steps, folder, lambda name, step, turn: told(_turn_line(name, step, turn)))
        twice.run()
        comparer = Comparer(build, folder)
        try:
            checked = [
                _checked(build, each, twice, stands.get(each.id), comparer) for each in _with_trials(steps, twice)
            ]
        finally:
            comparer.close()
        by_id = {step.id: step for step in checked}
        artifacts = tuple(_artifact(build, name, ids, by_id, twice) for name, ids in wanted.items())
        kept = not all(step.sound for step in checked)
        return Verdict(schema=SCHEMA, artifacts=artifacts, steps=tuple(checked), kept=str(folder) if kept else None)
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)


def _standing(build: Build, steps: Sequence[Step]) -> dict[str, Result]:
    """Return the results of the steps that are up to date in the workspace."""
    look = Look(build)
    outcomes: dict[str, Outcome] = {step.id: look.outcomes[step.id] for step in steps if not look.explain(step.id)}
    return {step_id: outcome.result for step_id, outcome in outcomes.items() if outcome.result is not None}


def _checked(build: Build, step: Step, twice: Twice, stands: Result | None, comparer: Comparer) -> Checked:
    first, second = twice.first[step.id], twice.second.get(step.id, _NOT_TRIED)
    for turn, which in ((first, ""), (second, "the second time: ")):
        if turn.result is None:
            message = f"{which}{turn.message}"
            return Checked(id=step.id, status="failed", message=message, log=turn.log, blocked=turn.blocked)
    assert first.result is not None
    differences = twice.differences(step, comparer)
    standing: Standing | None = None
    standing_differences: tuple[Difference, ...] = ()
    if step.id in build.steps:  # a trial is no step of the plan
        standing, standing_differences = _compared_with_standing(build, step, twice, stands, comparer)
    return Checked(
        id=step.id,
        status="differs" if differences else "reproducible",
        outputs={output.path: output.sha256 for output in first.result.outputs.values()},
        differences=differences,
        standing=standing,
        standing_differences=standing_differences,
    )


def _compared_with_standing(
    build: Build, step: Step, twice: Twice, stands: Result | None, comparer: Comparer
) -> tuple[Standing, tuple[Difference, ...]]:
    made = twice.first[step.id].result
    assert made is not None
    if stands is None:
        return "not_up_to_date", ()
    if stands.preimage["inputs"] != made.preimage["inputs"]:
        return "other_inputs", ()  # a step before it differs, which is told there
    found = comparer(step, stands, build.root, made, twice.first_folder)
    return ("differs" if found else "equal"), found


def _with_trials(steps: Sequence[Step], twice: Twice) -> list[Step]:
    """Return the steps, each after the trials of its driver; a trial that fails in both builds decides nothing."""
    found: dict[str, Step] = {}
    for step in steps:
        for trial in twice.trials.get(step.id, ()):
            turns = (twice.first[trial.id], twice.second.get(trial.id))
            if any(turn is not None and turn.result is not None for turn in turns):
                found[trial.id] = trial
        found[step.id] = step
    return list(found.values())


def _artifact(build: Build, name: str, ids: Sequence[str], checked: Mapping[str, Checked], twice: Twice) -> Artifact:
    chain = [checked[step.id] for step in _with_trials(with_needs(build.steps, ids), twice)]
    wrong = next((step for step in chain if not step.sound), None)
    made = checked[ids[0]]
    model_path = next(path for role, path in build.steps[ids[0]].outputs.items() if role == "model")
    status: Status = "reproducible"
    if wrong is not None:
        status = "failed" if wrong.status == "failed" else "differs"
    return Artifact(
        name=name,
        status=status,
        sha256=made.outputs.get(model_path),
        standing=made.standing,
        step=None if wrong is None else wrong.id,
    )


# Words ---------------------------------------------------------------------------------------------------------------


def _turn_line(name: str, step: str, turn: Turn) -> str:
    word = f"{turn.seconds:.1f} s" if turn.result is not None else f"failed: {turn.message}"
    return f"  {name} build: {step}  {'not done: ' + str(turn.message) if turn.blocked else word}"


def lines(verdict: Verdict) -> Iterator[str]:
    """Yield the verdict as text: a line for each artifact, then every step that is not sound, with what differs."""
    width = max((len(artifact.name) for artifact in verdict.artifacts), default=0)
    for artifact in verdict.artifacts:
        yield f"{artifact.name:<{width}}  {_artifact_words(artifact)}"
    for step in verdict.steps:
        if not step.sound and not step.blocked:
            yield from _step_lines(step)
    if verdict.kept is not None:
        yield f"both builds and their logs are kept in {verdict.kept}"
    counts = {
        status: sum(a.status == status for a in verdict.artifacts) for status in ("reproducible", "differs", "failed")
    }
    yield (
        f"quantbuild verify: {counts['reproducible']} reproducible, {counts['differs']} not reproducible, "
        f"{counts['failed']} failed"
    )


def _artifact_words(artifact: Artifact) -> str:
    if artifact.status == "failed":
        return f"failed: {artifact.step}"
    if artifact.status == "differs":
        return f"not reproducible: {artifact.step}"
    assert artifact.standing is not None
    return f"reproducible  sha256 {artifact.sha256}  {_STANDING_WORDS[artifact.standing]}"


def _step_lines(step: Checked) -> Iterator[str]:
    if step.status == "failed":
        log = f"; log: {step.log}" if step.log else ""
        yield f"{step.id}: failed: {step.message}{log}"
        return
    for found, what in (
        (step.differences, "two builds on equal inputs differ"),
        (step.standing_differences, "build/ holds another than was made now from the same inputs"),
    ):
        if found:
            yield f"{step.id}: {what}"
            for difference in found:
                yield f"  {difference.path or difference.role}"
                yield from (f"    {part}" for part in difference.parts)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Return the verdict as plain JSON."""
    found: dict[str, Any] = msgspec.to_builtins(verdict)
    return found
