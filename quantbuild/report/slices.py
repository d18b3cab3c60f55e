"""The slices of a model's evaluation set as a table: how much each variant loses on each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import wording
from quantbuild.report.wording import Mark

Json = Mapping[str, Any]
FLOAT32 = "float32"


@dataclass(frozen=True, kw_only=True)
class SliceCell:
    """One variant's loss on one slice; `mark` is None where no limit is set."""

    loss: str
    interval: str
    mark: Mark | None


@dataclass(frozen=True, kw_only=True)
class SliceRow:
    """One slice: its samples, float32's figure on them, and every variant's loss."""

    name: str
    samples: str
    baseline: str
    cells: tuple[SliceCell, ...]


@dataclass(frozen=True, kw_only=True)
class SliceTable:
    """The table; `figure` is the metric's name, `note` says what the intervals mean."""

    figure: str
    variants: tuple[str, ...]
    rows: tuple[SliceRow, ...]
    summary: str
    note: str
    unfold: bool
    """Whether some slice does not simply hold its limit."""


def table(model: Json) -> SliceTable | None:
    """Return the table of a model, None where its evaluation set has no slices."""
    reference = model["variants"][0]["accuracy"] or {}
    compared = [
        variant
        for variant in model["variants"]
        if variant["scheme"] != FLOAT32 and variant["accuracy"] and variant["accuracy"]["slices"]
    ]
    if not compared:
        return None
    slices = compared[0]["accuracy"]["slices"]
    rows = tuple(_row(model["metric"], found["name"], compared) for found in slices)
    marks = [cell.mark for row in rows for cell in row.cells if cell.mark is not None]
    wrong = {kind: sum(mark.kind == kind for mark in marks) for kind in ("fail", "undecided")}
    told = [f"{units.counted(number, 'verdict')} {word}" for word, number in wrong.items() if number]
    level = wording.confidence(reference or compared[0]["accuracy"])
    return SliceTable(
        figure=wording.metric_title(model["metric"]),
        variants=tuple(variant["name"] for variant in compared),
        rows=rows,
        summary=", ".join([f"{units.counted(len(rows), 'slice')} of the evaluation set", *told]),
        note=f"Loss against float32. At {level} confidence all intervals of a variant hold together: the error is "
        "divided among the slices.",
        unfold=bool(told),
    )


def _row(metric: str, name: str, variants: list[Json]) -> SliceRow:
    found = [next(each for each in variant["accuracy"]["slices"] if each["name"] == name) for variant in variants]
    return SliceRow(
        name=name,
        samples=units.count(found[0]["n"]),
        baseline=units.metric_value(metric, found[0]["baseline"]),
        cells=tuple(_cell(metric, each) for each in found),
    )


def _cell(metric: str, found: Json) -> SliceCell:
    judged = found["verdict"] != "not_measured"
    return SliceCell(
        loss=units.metric_difference(metric, found["loss"]),
        interval=wording.slice_interval(found, metric),
        mark=wording.verdict_mark(found["verdict"]) if judged else None,
    )
