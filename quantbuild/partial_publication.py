"""dist/ after a build of single variants: what they came to is published, and nothing else in it is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec

from quantbuild import closing, dist
from quantbuild.actions import dist as dist_action
from quantbuild.errors import StepError
from quantbuild.execution import input_paths
from quantbuild.manifest.definitions import Workspace
from quantbuild.outcome import Outcome, Outcomes
from quantbuild.plan import record_path
from quantbuild.record import read_record
from quantbuild.step import Step

Steps = Mapping[str, Step]


def publish(
    workspace: Workspace, steps: Steps, outcomes: Outcomes, verdicts: Callable[[], Mapping[str, str | None]]
) -> None:
    """Bring dist/ in line for the variants among `outcomes`, if the dist step is not.

    What failed goes in any case: to the dist step, a file that it did not publish is none.

    Raises:
        StepError: what an artifact was made from is not known.
        OSError: dist/ cannot be written.
    """
    touched = {name for name in outcomes if name.startswith("quantize:")}
    for name in touched:
        if not outcomes[name].done:
            _withdraw(name, workspace)
    if not touched or "dist" in outcomes:
        return
    known = {**outcomes, **_behind(sorted(touched), workspace.root, steps, outcomes)}
    step = _of_variants(touched, closing.dist_step(workspace, steps, known, verdicts()))
    dist_action.publish(workspace.root, step.parameters, input_paths(step), partial=True)


def _withdraw(name: str, workspace: Workspace) -> None:
    """Take what a quantize step that failed had published out of dist/."""
    model, _, variant = name.removeprefix("quantize:").partition("/")
    for path in dist.files_of(model, variant, workspace.models[model].shipped()):
        (workspace.root / path).unlink(missing_ok=True)


def _of_variants(touched: set[str], step: Step) -> Step:
    """Return the dist step `step` for the variants of some quantize steps alone."""
    artifacts = [a for a in step.parameters["artifacts"] if f"quantize:{a['name']}" in touched]
    models = {artifact["name"].partition("/")[0] for artifact in artifacts}
    ship = {model: shipped for model, shipped in step.parameters["ship"].items() if model in models}
    return msgspec.structs.replace(step, parameters={**step.parameters, "artifacts": artifacts, "ship": ship})


def _behind(names: Iterable[str], root: Path, steps: Steps, outcomes: Outcomes) -> dict[str, Outcome]:
    """Return what came of the steps behind `names` that this build was told not to look at (-s), by their records.

    Raises:
        StepError: a record is not there, or is not of the very file that the next step was made from.
    """
    found: dict[str, Outcome] = {}
    for name in names:
        waiting = [name] if outcomes[name].done else []
        while waiting:
            step = steps[waiting.pop()]
            for needed in step.needs:
                if needed not in outcomes:
                    recorded = _recorded(root, steps[needed], step, outcomes.get(step.id) or found[step.id])
                    if recorded is None:
                        artifact = name.removeprefix("quantize:")
                        raise StepError(f"{artifact}: what {needed} made it from is not known; leave out -s")
                    found[needed] = recorded
                waiting.append(needed)
    return found


def _recorded(root: Path, needed: Step, step: Step, outcome: Outcome) -> Outcome | None:
    """Return what came of `needed`, None where its record is not of the very files that `step` was made from."""
    record = read_record(root / record_path(needed))
    result = record.result if record is not None else None
    made = {output.path: output.sha256 for output in result.outputs.values()} if result is not None else {}
    used = outcome.result.preimage["inputs"] if outcome.result is not None else {}
    if any(made.get(given.path) != used[role] for role, given in step.inputs.items() if given.step == needed.id):
        return None
    return Outcome(step=needed.id, status="up_to_date", result=result)
