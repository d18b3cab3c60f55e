"""The figures of one variant as cells of its model's table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import wording

Json = Mapping[str, Any]
FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the table of variants: its heading again (for narrow screens), the figure, and small print."""

    heading: str
    text: str
    notes: tuple[str, ...] = ()

    @property
    def missing(self) -> bool:
        """Whether there is no figure to show."""
        return self.text == units.NOT_MEASURED


def figures(model: Json, variant: Json) -> tuple[Cell, ...]:
    """Return size, figure, loss, agreement and SQNR."""
    metric, reference = model["metric"], variant["scheme"] == FLOAT32
    artifact, accuracy = variant["artifact"] or {}, variant["accuracy"] or {}
    ratio = artifact.get("size_ratio")
    loss = units.metric_difference(metric, accuracy.get("loss"))
    notes: tuple[str, ...] = ()
    if accuracy.get("loss_low") is not None:
        interval = units.metric_interval(metric, accuracy["loss_low"], accuracy["loss_high"])
        notes = (interval.removesuffix(" points"), f"at {wording.confidence(accuracy)} confidence")
    cells = [
        _cell("File size", units.size(artifact.get("size_bytes")), f"{units.ratio(ratio)} of float32" if ratio else ""),
        _cell(
            wording.metric_title(metric),
            units.metric_value(metric, accuracy.get("value")),
            f"n = {units.count(accuracy['n'])}" if accuracy else "",
        ),
        Cell(heading="Loss", text=loss, notes=notes),
        _cell("Agreement", units.percent(accuracy.get("agreement")), ""),
        _cell("SQNR", _sqnr(accuracy), ""),
    ]
    if reference and accuracy:
        # float32 against itself: a figure would be true and say nothing.
        cells[2:] = [_cell(cell.heading, "–", "") for cell in cells[2:]]
    return tuple(cells)


def _sqnr(accuracy: Json) -> str:
    identical = accuracy.get("sqnr_db") is None and accuracy.get("agreement") == 1
    return "identical" if identical else units.decibels(accuracy.get("sqnr_db"))


def device(place: Json, variant: Json) -> Cell:
    """Return latency and memory on one device."""
    found = variant["devices"][place["name"]]
    latency = found["latency_ms"]
    notes: list[str] = []
    if latency is None:
        text = "failed" if found["status"] == "failed" else units.NOT_MEASURED
        return Cell(heading=f"On {place['name']}", text=text, notes=tuple(notes))
    if latency["min"] is not None or latency["p90"] is not None:
        parts = [f"{name} {units.milliseconds(latency[name])}" for name in ("min", "p90") if latency[name] is not None]
        notes.append(", ".join(parts))
    if found["latency_ratio"] is not None:
        notes.append(f"{units.ratio(found['latency_ratio'])} of float32")
    notes.append(f"{units.size(found['peak_memory_bytes'])} peak memory")
    notes.append(f"{units.counted(latency['n'], 'run')}" if latency["n"] is not None else "number of runs unknown")
    if found["status"] == "unstable":
        notes.append("unstable, even measured again")
    return Cell(heading=f"On {place['name']}", text=units.milliseconds(latency["p50"]), notes=tuple(notes))


def _cell(heading: str, text: str, note: str) -> Cell:
    return Cell(heading=heading, text=text, notes=(note,) if note else ())
