"""What the page shows, as text and marks alone: report.json in, plain data out. Templates only lay it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from quantbuild import units
from quantbuild.dist import shipped_file
from quantbuild.report import artifact_wording, cells, details, plot, slices, wording
from quantbuild.report.cells import Cell
from quantbuild.report.data import DataView, data
from quantbuild.report.details import Detail, Place, Step
from quantbuild.report.slices import SliceTable
from quantbuild.report.wording import Mark

Json = Mapping[str, Any]
FLOAT32 = "float32"
DOUBT = "guessing"
"""The rule of the lint that is about the model and no sample: it is told at the top of the page."""
ROUNDING_ACTIVATIONS = ("int8", "int16x8")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant in the table of its model."""

    name: str
    anchor: str
    scheme: str
    meaning: str
    options: str
    """What it has otherwise than the model's other variants of its scheme; empty where there is none."""
    found: str
    """What trials came to, in a few words; empty where none were made."""
    ships: tuple[str, ...]
    """The names under which it ships."""
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
    legend: tuple[tuple[str, str, str], ...]
    """Kind, sign and word of every verdict in the plot."""
    gates: tuple[GateRow, ...]
    gates_summary: str
    gates_open: bool
    """Whether some limit does not simply hold, so that the list is worth unfolding."""
    slices: SliceTable | None
    data: DataView | None
    details: tuple[Detail, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number of the summary, with what it counts."""

    number: str
    caption: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """One file that an app takes, with the variant that it is and how that was judged."""

    path: str
    variant: str
    anchor: str
    mark: Mark
    figures: str
    """Size and loss; empty where it could not be built."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole page."""

    title: str
    headline: str
    mark: Mark
    tiles: tuple[Tile, ...]
    shipments: tuple[Shipment, ...]
    failures: tuple[str, ...]
    failures_remedy: str
    """What may mend a loss that is too large; empty where no variant fails by one, or a search was made for it."""
    doubts: tuple[str, ...]
    doubts_remedy: str
    """What would settle the doubts; empty where each is of another kind."""
    warnings: tuple[str, ...]
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
    # What could not be made comes before what was made and judged: it may be the cause.
    failed = [row for row, kind in zip(rows, kinds, strict=True) if kind == "fail"]
    failures = [_reason(*row) for row in sorted(failed, key=lambda row: row[1]["error"] is None)]
    undecided_reasons = [
        _reason(model, variant) for (model, variant), kind in zip(rows, kinds, strict=True) if kind == "undecided"
    ]
    few_samples = any(
        gate["verdict"] == "undecided" and gate["name"] not in artifact_wording.TITLES
        for _, variant in rows
        for gate in variant["gates"]
    )
    tiles = (
        Tile(number=units.count(len(report["models"])), caption=_noun(len(report["models"]), "model"), kind="none"),
        _tile(passing, _noun(passing, "variant passes", "variants pass"), "pass"),
        _tile(failing, _noun(failing, "variant fails", "variants fail"), "fail"),
        Tile(number=units.count(undecided), caption="undecided", kind="undecided"),
        Tile(number=units.count(unjudged), caption="without a verdict", kind="none"),
    )
    return Page(
        title="quantbuild report",
        headline=_headline(failing + len(other), undecided, passing, len(kinds), few_samples=few_samples),
        mark=wording.FAIL if failing or other else wording.UNDECIDED if undecided else wording.PASS,
        tiles=tuple(tile for number, tile in enumerate(tiles) if tile.number != "0" or number in (1, 2)),
        shipments=tuple(each for model in report["models"] for each in _shipments(model)),
        failures=tuple(other + failures),
        failures_remedy=_failures_remedy(report["models"]),
        doubts=tuple(undecided_reasons),
        doubts_remedy="More evaluation samples narrow the interval." if few_samples else "",
        warnings=tuple(
            found["message"]
            for model in report["models"]
            for found in model.get("lint") or ()
            if found["rule"] == DOUBT
        ),
        models=tuple(_model(model) for model in report["models"]),
        steps=details.steps(report["steps"]),
        steps_summary=details.steps_summary(report["steps"]),
        tools=tuple(sorted(report["tools"].items())),
    )


def _failures_remedy(models: list[Json]) -> str:
    """Return what to try where rounding loses more than a model's limit and nobody has searched."""
    for model in models:
        judged = _judged(model)
        lossy = any(
            gate["name"] == "max_accuracy_loss" and gate["verdict"] == "fail"
            for variant in judged
            if variant["scheme"] in ROUNDING_ACTIVATIONS
            for gate in variant["gates"]
        )
        if lossy and not any(variant["scheme"] == "mixed" for variant in judged):
            return (
                f'{model["name"]}: a variant of scheme = "mixed" looks for ranges, channel scales and the activations '
                "that must leave int8 so that a limit is kept; read what was found about the samples first."
            )
    return ""


def _tile(number: int, caption: str, kind: str) -> Tile:
    """Return a tile in its verdict's colour, or in none where there is nothing of that kind."""
    return Tile(number=units.count(number), caption=caption, kind=kind if number else "none")


def _judged(model: Json) -> list[Json]:
    """Return the variants that count: float32 is the reference, unless it could not be made or measured."""
    return [variant for variant in model["variants"] if variant["scheme"] != FLOAT32 or variant["error"] is not None]


def _headline(failing: int, undecided: int, passing: int, total: int, *, few_samples: bool) -> str:
    if failing:
        return f"{units.counted(failing, 'failure')}: not everything here can be shipped."
    if undecided:
        doubt = units.counted(undecided, "variant is", "variants are")
        return f"Nothing fails, but {doubt} undecided{': there are too few samples to tell' if few_samples else ''}."
    if passing and passing == total:
        return "Every variant holds its limits."
    if passing:
        return "Every variant that has limits holds them."
    return "Everything was built; no limits are set, so nothing was judged."


def _reason(model: Json, variant: Json) -> str:
    """Return in one sentence what is wrong with a variant, with its name."""
    return f"{model['name']}/{variant['name']} {_remark(model, variant)}"


def _remark(model: Json, variant: Json) -> str:
    if variant["error"] is not None:
        what = "could not be built" if variant["artifact"] is None else "was built, but not everything was measured"
        return f"{what}: {variant['error']}"
    wrong = [gate for gate in variant["gates"] if gate.get("fails") or gate["verdict"] == "fail"]
    doubtful = [gate for gate in variant["gates"] if gate["verdict"] == "undecided"]
    return "; ".join(wording.gate_sentence(gate, model["metric"], variant) for gate in wrong or doubtful) + "."


def _model(model: Json) -> ModelView:
    specification = plot.specification(model)
    rows = rows_of(model)
    gates = _gates(model)
    return ModelView(
        name=model["name"],
        anchor=f"model-{model['name']}",
        summary=_summary(model),
        headings=("Variant", "Verdict", *(cell.heading for cell in rows[0].cells)),
        rows=rows,
        plot=specification,
        plot_text=_plot_text(model) if specification is not None else "",
        legend=tuple(plot.legend(model)),
        gates=gates,
        gates_summary=_gates_summary(gates),
        gates_open=any(gate.mark.kind != "pass" for gate in gates),
        slices=slices.table(model),
        data=data(model),
        details=tuple(details.detail(model, variant) for variant in model["variants"]),
        places=details.places(model),
    )


def rows_of(model: Json) -> tuple[Row, ...]:
    """Return a row for each variant, float32 first."""
    return tuple(_row(model, variant) for variant in model["variants"])


def _gates(model: Json) -> tuple[GateRow, ...]:
    return tuple(
        GateRow(
            variant=variant["name"],
            title=wording.gate_title(gate),
            limit=wording.gate_limit(gate, model["metric"]),
            value=wording.gate_value(gate, model["metric"], variant),
            mark=wording.gate_mark(gate),
        )
        for variant in model["variants"]
        for gate in variant["gates"]
    )


def _gates_summary(gates: tuple[GateRow, ...]) -> str:
    """Return how many limits there are and how many do not simply hold."""
    words = [gate.mark.word for gate in gates]
    parts = [f"{units.count(words.count(word))} {word}" for word in dict.fromkeys(words)]
    return f"{units.counted(len(gates), 'limit')}: {', '.join(parts)}"


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
    variants = {variant["name"]: variant for variant in model["variants"]}
    better = best["name"] if passing else ""
    sentences += [
        _shipping(variants[name], shipped_file(model["name"], purpose), better)
        for purpose, name in model["ship"].items()
    ]
    return tuple(sentences)


def _shipping(variant: Json, path: str, better: str) -> str:
    """Return what the app gets at `path`, and which variant would hold the limits where that one fails."""
    if variant["artifact"] is None:
        return f"{variant['name']}, which is to ship as {path}, could not be built."
    doubt = {"fail": ", although it fails", "undecided": ", although it is undecided"}
    kind = wording.variant_mark(variant).kind
    instead = f"; {better} would hold the limits" if better and kind == "fail" else ""
    return f"{variant['name']} ships{doubt.get(kind, '')}: {path}{instead}."


def _shipments(model: Json) -> list[Shipment]:
    variants = {variant["name"]: variant for variant in model["variants"]}
    return [
        Shipment(
            path=shipped_file(model["name"], purpose),
            variant=f"{model['name']}/{name}",
            anchor=_anchor(model, variants[name]),
            mark=wording.variant_mark(variants[name]),
            figures=_shipped_figures(model["metric"], variants[name]),
        )
        for purpose, name in model["ship"].items()
    ]


def _shipped_figures(metric: str, variant: Json) -> str:
    """Return size and loss, as far as they are known."""
    artifact, accuracy = variant["artifact"], variant["accuracy"]
    if artifact is None:
        return ""
    size = units.size(artifact["size_bytes"])
    if variant["scheme"] == FLOAT32 or accuracy is None or accuracy["loss"] is None:
        return size
    loss = f"loss {units.metric_difference(metric, accuracy['loss'])}"
    if accuracy["loss_high"] is not None:
        interval = units.metric_interval(metric, accuracy["loss_low"], accuracy["loss_high"])
        loss += f" ({wording.confidence(accuracy)}: {interval})"
    return f"{size}, {loss} on {units.counted(accuracy['n'], 'sample')}"


def _anchor(model: Json, variant: Json) -> str:
    return f"detail-{model['name']}-{variant['name']}"


def _row(model: Json, variant: Json) -> Row:
    mark = wording.variant_mark(variant)
    return Row(
        name=variant["name"],
        anchor=_anchor(model, variant),
        scheme=variant["scheme"],
        meaning=wording.SCHEMES.get(variant["scheme"], ""),
        options=_own_options(model, variant),
        found=_found(variant),
        ships=tuple(
            PurePosixPath(shipped_file(model["name"], purpose)).name
            for purpose, name in model["ship"].items()
            if name == variant["name"] and variant["artifact"] is not None
        ),
        cells=(*cells.figures(model, variant), *(cells.device(place, variant) for place in model["devices"])),
        mark=mark,
        remark=_remark(model, variant) if mark.kind in ("fail", "undecided") else "",
    )


def _own_options(model: Json, variant: Json) -> str:
    """Return the options that tell a variant from the others of its scheme."""
    others = [other["options"] for other in model["variants"] if other["scheme"] == variant["scheme"]]
    own = {key: value for key, value in variant["options"].items() if any(other.get(key) != value for other in others)}
    return details.text_of({key: value for key, value in own.items() if value not in (None, [], {})})


def _found(variant: Json) -> str:
    """Return what the trials of a variant came to: its ranges, whether channels were scaled, what left int8."""
    search, artifact = variant["search"], variant["artifact"]
    if search is None or artifact is None:
        return ""
    made, islands = artifact.get("quantized_by") or {}, search.get("islands") or ()
    parts = [
        f"ranges {made['ranges']}" if made.get("ranges") else "",
        "channels equalized" if made.get("equalized_groups") else "",
        "biases corrected" if made.get("bias_correction") else "",
        f"{units.counted(len(islands), 'activation')} out of int8" if islands else "",
    ]
    told = ", ".join(part for part in parts if part)
    return f"found: {told}" if told else ""


def _plot_text(model: Json) -> str:
    """Return the plot in words, for who cannot see it."""
    parts = [
        f"{variant['name']} {units.size(variant['artifact']['size_bytes'])}, "
        f"{units.metric_value(model['metric'], variant['accuracy']['value'])}"
        for variant in model["variants"]
        if variant["artifact"] is not None and variant["accuracy"] is not None
    ]
    return f"File size against {wording.metric_title(model['metric'])}: " + "; ".join(parts)


def _noun(number: int, one: str, many: str | None = None) -> str:
    return one if number == 1 else many or f"{one}s"
