"""Action: judge what an evaluation found against one limit, for a search that confirms its winner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

WORKER = "light"


def run(job: Job) -> dict[str, Any]:
    """Judge ``inputs["evaluation"]`` with ``inputs["samples"]`` (what an evaluate step wrote).

    Parameters: ``limit`` (loss in the metric's unit) and ``confidence`` (two-sided). Writes ``judgement`` (JSON) and
    returns it: loss, its interval, the verdict, and whether so few samples could pass the limit at all, were nothing
    lost on any of them.
    """
    from quantbuild.gates import accuracy
    from quantbuild.sample_file import read
    from quantbuild.statistics import verdict

    evaluation = msgspec.json.decode(Path(job.inputs["evaluation"]).read_bytes())
    samples = read(job.inputs["samples"])
    gate = {"max_accuracy_loss": job.parameters["limit"], "confidence": job.parameters["confidence"]}
    found = accuracy(evaluation, samples, gate, reference=False)
    even = accuracy(evaluation, {**samples, **_nothing_lost(samples)}, gate, reference=False)
    judgement = {name: found[name] for name in ("loss", "loss_low", "loss_high", "n", "confidence", "verdict")}
    judgement["could_pass"] = verdict(even["loss_low"], even["loss_high"], job.parameters["limit"]) == "pass"
    Path(job.outputs["judgement"]).write_bytes(msgspec.json.format(msgspec.json.encode(judgement), indent=1) + b"\n")
    return judgement


def _nothing_lost(samples: Any) -> dict[str, Any]:
    """Return scores that are float32's own."""
    return {} if "score" not in samples else {"score": samples["baseline_score"]}
