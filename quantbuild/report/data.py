"""What the page says of a model's samples: how it was calibrated, and what the lint found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report.wording import Mark

Json = Mapping[str, Any]

_MARKS = {
    "error": Mark(sign="✗", word="error", kind="fail"),
    "warning": Mark(sign="?", word="warning", kind="undecided"),
    "info": Mark(sign="–", word="note", kind="none"),
}


@dataclass(frozen=True, kw_only=True)
class FindingRow:
    """One finding of the lint."""

    mark: Mark
    rule: str
    message: str


@dataclass(frozen=True, kw_only=True)
class DataView:
    """A model's samples. `unfold` says that something is worth reading."""

    calibration: str
    """Empty where the model has none."""
    summary: str
    unfold: bool
    findings: tuple[FindingRow, ...]


def data(model: Json) -> DataView | None:
    """Return what there is to say; None for a model that was neither calibrated nor linted."""
    findings = tuple(
        FindingRow(mark=_MARKS[found["severity"]], rule=found["rule"], message=found["message"])
        for found in model.get("lint") or ()
    )
    calibration = _calibration(model.get("calibration"))
    if not calibration and not findings:
        return None
    return DataView(
        calibration=calibration,
        summary=_summary(findings),
        unfold=any(found.mark.kind != "none" for found in findings),
        findings=findings,
    )


def _calibration(found: Json | None) -> str:
    if found is None:
        return ""
    held = f", {units.count(found['held_back'])} held back to choose by" if found["held_back"] else ""
    how = (
        "inside the graph"
        if found["route"] == "in-graph"
        else f"with every tensor kept, because {found['route_reason']}"
    )
    tensors = units.counted(found["tensors"], "tensor")
    return f"Ranges of {tensors} come from {units.counted(found['samples'], 'sample')}{held}; measured {how}."


def _summary(findings: tuple[FindingRow, ...]) -> str:
    if not findings:
        return "Nothing was found to be wrong with the samples"
    words = [found.mark.word for found in findings]
    return ", ".join(units.counted(words.count(word), word) for word in dict.fromkeys(words))
