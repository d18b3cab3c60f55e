"""What the page shows, as text and marks alone: report.json in, plain data out. Templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import details, plot, wording
from quantbuild.report.details import Detail, Place, Step
from quantbuild.report.wording import Mark

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


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant in the table of its model."""

    name: str
    anchor: str
    scheme: str
    meaning: str
    cells: tuple[Cell, ...]
    mark: Mark
    remark: str
    """Why it failed or is undecided, in one sentence; empty where there is nothing to add."""


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """One limit of one variant."""

    variant: str
    title: str
    limit: str
    value: str
    mark: Mark


@dataclass(frozen=True, kw_only=True)
class ModelView:
    """One model's part of the page. `plot` is a Vega-Lite specification, None where there is nothing to plot."""

    name: str
    anchor: str
    summary: tuple[str, ...]
    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    plot: dict[str, Any] | None
    plot_text: str
    gates: tuple[GateRow, ...]
    details: tuple[Detail, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number of the summary, with what it counts."""

    number: str
    caption: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole page."""

    title: str
    headline: str
    mark: Mark
    tiles: tuple[Tile, ...]
    failures: tuple[str, ...]
    doubts: tuple[str, ...]
    models: tuple[ModelView, ...]
    steps: tuple[Step, ...]
    steps_summary: str
    tools: tuple[tuple[str, str], ...]


def page(report: Json) -> Page:
    """Return the page of a report.json."""
    rows = [(model, variant) for model in report["models"] for variant in _judged(model)]
    marks = [wording.variant_mark(variant) for _, variant in rows]
    kinds = [mark.kind for mark in marks]
    failing, undecided, passing = (kinds.count(kind) for kind in ("fail", "undecided", "pass"))
    unjudged = len(kinds) - failing - undecided - passing
    other = details.failures_elsewhere(report["steps"])
    failures = [_reason(model, variant) for (model, variant), kind in zip(rows, kinds, strict=True) if kind == "fail"]
    doubts = [
        _reason(model, variant) for (model, variant), kind in zip(rows, kinds, strict=True) if kind == "undecided"
    ]
    tiles = (
        Tile(number=units.count(len(report["models"])), caption=_noun(len(report["models"]), "model"), kind="none"),
        Tile(number=units.count(passing), caption=_noun(passing, "variant passes", "variants pass"), kind="pass"),
        Tile(number=units.count(failing), caption=_noun(failing, "variant fails", "variants fail"), kind="fail"),
        Tile(number=units.count(undecided), caption="undecided", kind="undecided"),
        Tile(number=units.count(unjudged), caption="without a verdict", kind="none"),
    )
    return Page(
        title="quantbuild report",
        headline=_headline(failing + len(other), undecided, passing, len(kinds)),
        mark=wording.FAIL if failing or other else wording.UNDECIDED if undecided else wording.PASS,
        tiles=tuple(tile for tile in tiles if tile.number != "0" or tile.kind in ("pass", "fail")),
        failures=tuple(failures + other),
        doubts=tuple(doubts),
        models=tuple(_model(model) for model in report["models"]),
        steps=details.steps(report["steps"]),
        steps_summary=details.steps_summary(report["steps"]),
        tools=tuple(sorted(report["tools"].items())),
    )


def _judged(model: Json) -> list[Json]:
    """Return the variants that count: float32 is the reference, unless it could not be made or measured."""
    return [variant for variant in model["variants"] if variant["scheme"] != FLOAT32 or variant["error"] is not None]


def _headline(failing: int, undecided: int, passing: int, total: int) -> str:
    if failing:
        return f"{units.counted(failing, 'failure')}: not everything here can be shipped."
    if undecided:
        doubt = units.counted(undecided, "variant is", "variants are")
        return f"Nothing fails, but {doubt} undecided: there are too few samples to tell."
    if passing and passing == total:
        return "Every variant holds its limits."
    if passing:
        return "Every variant that has limits holds them."
    return "Everything was built; no limits are set, so nothing was judged."


def _reason(model: Json, variant: Json) -> str:
    """Return in one sentence what is wrong with a variant, with its name."""
    return f"{model['name']}/{variant['name']}: {_remark(model, variant)}"


def _remark(model: Json, variant: Json) -> str:
    if variant["error"] is not None:
        what = "could not be built" if variant["artifact"] is None else "was built, but not everything was measured"
        return f"{what}. {variant['error']}"
    wrong = [gate for gate in variant["gates"] if gate.get("fails") or gate["verdict"] == "fail"]
    doubtful = [gate for gate in variant["gates"] if gate["verdict"] == "undecided"]
    return "; ".join(_gate_sentence(gate, model, variant) for gate in wrong or doubtful)


def _gate_sentence(gate: Json, model: Json, variant: Json) -> str:
    value = wording.gate_value(gate, model["metric"], variant)
    limit = wording.gate_limit(gate, model["metric"])
    return f"{wording.gate_title(gate)}: {value}, allowed: {limit}"


def _model(model: Json) -> ModelView:
    specification = plot.specification(model)
    rows = tuple(_row(model, variant) for variant in model["variants"])
    return ModelView(
        name=model["name"],
        anchor=f"model-{model['name']}",
        summary=_summary(model),
        headings=("Variant", *(cell.heading for cell in rows[0].cells), "Verdict"),
        rows=rows,
        plot=specification,
        plot_text=_plot_text(model) if specification is not None else "",
        gates=tuple(
            GateRow(
                variant=variant["name"],
                title=wording.gate_title(gate),
                limit=wording.gate_limit(gate, model["metric"]),
                value=wording.gate_value(gate, model["metric"], variant),
                mark=wording.gate_mark(gate),
            )
            for variant in model["variants"]
            for gate in variant["gates"]
        ),
        details=tuple(details.detail(model, variant) for variant in model["variants"]),
        places=details.places(model),
    )


def _summary(model: Json) -> tuple[str, ...]:
    """Return the model in a few sentences: what it is measured by, float32's figures, the smallest that passes."""
    metric, reference = model["metric"], model["variants"][0]
    sentences = [f"Judged by {wording.metric_title(metric)}: {wording.metric_meaning(metric)}."]
    accuracy, artifact = reference["accuracy"], reference["artifact"]
    if artifact is not None:
        text = f"float32, the reference, is {units.size(artifact['size_bytes'])}"
        if accuracy is not None and accuracy["value"] is not None:
            text += f" and gets {units.metric_value(metric, accuracy['value'])}"
            text += f" on {units.counted(accuracy['n'], 'sample')}"
        sentences.append(f"{text}.")
    passing = [variant for variant in _judged(model) if variant["verdict"] == "pass" and variant["artifact"]]
    if passing:
        best = min(passing, key=lambda variant: variant["artifact"]["size_bytes"])
        size, ratio = units.size(best["artifact"]["size_bytes"]), units.ratio(best["artifact"]["size_ratio"])
        sentences.append(f"The smallest variant that holds its limits is {best['name']}: {size}, {ratio} of float32.")
    return tuple(sentences)


def _row(model: Json, variant: Json) -> Row:
    mark = wording.variant_mark(variant)
    return Row(
        name=variant["name"],
        anchor=f"detail-{model['name']}-{variant['name']}",
        scheme=variant["scheme"],
        meaning=wording.SCHEMES.get(variant["scheme"], ""),
        cells=(*_figures(model, variant), *(_device(device, variant) for device in model["devices"])),
        mark=mark,
        remark=_remark(model, variant) if mark.kind in ("fail", "undecided") else "",
    )


def _figures(model: Json, variant: Json) -> tuple[Cell, ...]:
    metric, reference = model["metric"], variant["scheme"] == FLOAT32
    artifact, accuracy = variant["artifact"] or {}, variant["accuracy"] or {}
    ratio = artifact.get("size_ratio")
    loss = units.metric_difference(metric, accuracy.get("loss"))
    notes: tuple[str, ...] = ()
    if accuracy.get("loss_low") is not None:
        interval = units.metric_interval(metric, accuracy["loss_low"], accuracy["loss_high"])
        notes = (f"{wording.confidence(accuracy)}: {interval}",)
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


def _device(device: Json, variant: Json) -> Cell:
    found = variant["devices"][device["name"]]
    latency = found["latency_ms"]
    notes: list[str] = []
    if latency is None:
        text = "failed" if found["status"] == "failed" else units.NOT_MEASURED
        return Cell(heading=f"On {device['name']}", text=text, notes=tuple(notes))
    if latency["p90"] is not None or latency["min"] is not None:
        notes.append(f"min {units.milliseconds(latency['min'])}, p90 {units.milliseconds(latency['p90'])}")
    if found["latency_ratio"] is not None:
        notes.append(f"{units.ratio(found['latency_ratio'])} of float32")
    notes.append(f"peak memory {units.size(found['peak_memory_bytes'])}")
    notes.append(f"{units.counted(latency['n'], 'run')}" if latency["n"] is not None else "number of runs unknown")
    if found["status"] == "unstable":
        notes.append("unstable: measured again, still varied")
    return Cell(heading=f"On {device['name']}", text=units.milliseconds(latency["p50"]), notes=tuple(notes))


def _plot_text(model: Json) -> str:
    """Return the plot in words, for who cannot see it."""
    parts = [
        f"{variant['name']} {units.size(variant['artifact']['size_bytes'])}, "
        f"{units.metric_value(model['metric'], variant['accuracy']['value'])}"
        for variant in model["variants"]
        if variant["artifact"] is not None and variant["accuracy"] is not None
    ]
    return f"File size against {wording.metric_title(model['metric'])}: " + "; ".join(parts)


def _cell(heading: str, text: str, note: str) -> Cell:
    return Cell(heading=heading, text=text, notes=(note,) if note else ())


def _noun(number: int, one: str, many: str | None = None) -> str:
    return one if number == 1 else many or f"{one}s"
