"""The size–accuracy plot of one model as a Vega-Lite specification: document in, plain data out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild import units
from quantbuild.report import wording

Json = dict[str, Any]

# Verdict kind, Vega's shape, and the sign that stands for it in the legend.
SHAPES = (
    ("reference", "diamond", "◆"),
    ("pass", "circle", "●"),
    ("undecided", "triangle-up", "▲"),
    ("fail", "cross", "✚"),
    ("none", "square", "■"),
)
# Points nearer than this share of the plot's width and height have their labels placed together: alone, each would
# lie on its neighbour's.
_NEAR_WIDTH, _NEAR_HEIGHT = 0.12, 0.08
# Points nearer than this share of the width are one place to the eye: int8 with and without integer inputs and
# outputs differ by a few bytes.
_SAME_WIDTH = 0.02
# How much of the width a label needs beside its point.
_ROOM_LEFT, _ROOM_RIGHT = 0.25, 0.4
_LINE_HEIGHT, _LABEL_GAP = 14, 6


def specification(model: Mapping[str, Any]) -> Json | None:
    """Return the specification, or None where fewer than two variants have a size and a figure.

    A colour reads ``css:--NAME``: the page puts the style sheet's value there, so that one
    specification serves the light and the dark scheme.
    """
    points = _points(model)
    if len(points) < 2:
        return None
    title = wording.metric_title(model["metric"])
    unit = " (%)" if model["metric"] in units.FRACTION_METRICS else ""
    limit = _limit(model, points)
    _label(points, limit)
    size, figure = _size_axis(points), _figure_axis(f"{title}{unit}", points, limit)
    # Every layer names its own axes: Vega-Lite merges a shared encoding into a layer's key by key, and a constant
    # merged with a field is neither.
    place = {"x": size, "y": figure}
    return {
        "width": "container",
        "height": 320,
        "autosize": {"type": "fit", "contains": "padding"},
        "background": None,
        # What fails is drawn last, above what lies at the same place.
        "data": {"values": sorted(points, key=lambda point: point["verdict"] == "fail")},
        "layer": [
            *_line(points[0]["figure"], "float32", "css:--reference", [6, 4], figure, below=True),
            *([] if limit is None else _limit_line(limit, points[0]["figure"], figure)),
            {
                "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.6},
                "encoding": {"x": size, "y": {**figure, "field": "low"}, "y2": {"field": "high"}, **_coloured()},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 130, "opacity": 0.9},
                "encoding": {**place, **_coloured(), "shape": _scale(1), "tooltip": _tooltip(title)},
            },
            *_labels(place),
        ],
        "config": {"view": {"stroke": None}, "font": "css:--font", "axis": {"labelFontSize": 12, "titleFontSize": 12}},
    }


def legend(model: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return kind, sign and word of every verdict in the plot."""
    words = {point["verdict"]: point["verdict_word"] for point in _points(model)}
    return [(kind, sign, words[kind]) for kind, _, sign in SHAPES if kind in words]


def _points(model: Mapping[str, Any]) -> list[Json]:
    scale = 100 if model["metric"] in units.FRACTION_METRICS else 1
    points = []
    for variant in model["variants"]:
        artifact, accuracy = variant["artifact"], variant["accuracy"]
        if artifact is None or accuracy is None or accuracy["value"] is None:
            continue
        low, high = _interval(accuracy)
        points.append(
            {
                "variant": variant["name"],
                "kilobytes": artifact["size_bytes"] / 1e3,
                "figure": accuracy["value"] * scale,
                "low": low * scale,
                "high": high * scale,
                "verdict": wording.variant_mark(variant).kind,
                "size": units.size(artifact["size_bytes"]),
                "value": units.metric_value(model["metric"], accuracy["value"]),
                "loss": units.metric_difference(model["metric"], accuracy["loss"]),
                "verdict_word": wording.variant_mark(variant).word,
            }
        )
    return points


def _interval(accuracy: Mapping[str, Any]) -> tuple[float, float]:
    """Return the variant's figure at either end of the loss's interval; the figure itself where there is none."""
    if accuracy["loss_low"] is None or accuracy["loss_high"] is None or accuracy["baseline"] is None:
        return accuracy["value"], accuracy["value"]
    sign = 1 if accuracy.get("higher_is_better") is False else -1
    ends = (accuracy["baseline"] + sign * accuracy[end] for end in ("loss_low", "loss_high"))
    low, high = sorted(ends)
    return low, high


def _limit(model: Mapping[str, Any], points: list[Json]) -> float | None:
    """Return the figure below which the loss breaks its limit, where one limit holds for every variant."""
    limits = set()
    sign, baseline = -1, None
    for variant in model["variants"]:
        accuracy = variant["accuracy"]
        if accuracy is not None and accuracy["baseline"] is not None:
            sign, baseline = (1 if accuracy.get("higher_is_better") is False else -1), accuracy["baseline"]
        limits |= {gate["limit"] for gate in variant["gates"] if gate["name"] == "max_accuracy_loss"}
    if len(limits) != 1 or baseline is None:
        return None
    scale = 100 if model["metric"] in units.FRACTION_METRICS else 1
    return float((baseline + sign * limits.pop()) * scale)


def _label(points: list[Json], limit: float | None) -> None:
    """Give each point its label, its side and its height: those of near points are stacked, the highest on top.

    Of near points the smallest is named on its left and the others on their right, where there is room for both.
    """
    width = max(point["kilobytes"] for point in points)
    lowest, highest = _extent(points, limit)
    height = highest - lowest or 1
    groups: list[list[Json]] = []
    for point in points:
        point.update(label="", side="left", lift=0)
        group = next((group for group in groups if _near(group[0], point, width, height)), None)
        if group is None:
            groups.append([point])
        else:
            group.append(point)
    for group in groups:
        place = sorted(group, key=lambda point: point["kilobytes"])
        smallest, largest = place[0]["kilobytes"], place[-1]["kilobytes"]
        first = [point for point in place if point["kilobytes"] - smallest < _SAME_WIDTH * width]
        others = place[len(first) :]
        room_left, room_right = smallest > _ROOM_LEFT * width, largest < (1 - _ROOM_RIGHT) * width
        if room_left and not others and any(0 < other["kilobytes"] - largest < _NEAR_WIDTH * width for other in points):
            room_right = False  # a bar of another height stands there
        if others and room_left and room_right:
            _stack(first, first[0], "right")
            _stack(others, others[-1], "left")
        elif room_right and not (others and room_left):
            _stack(place, place[-1], "left")
        else:
            _stack(place, place[0], "right")


def _stack(group: list[Json], holder: Json, side: str) -> None:
    """Let `holder` carry the labels of a group, one above the other. Vega names the side that its point is at."""
    label = "\n".join(point["variant"] for point in sorted(group, key=lambda point: -point["figure"]))
    holder.update(label=label, side=side, lift=-_LABEL_GAP - _LINE_HEIGHT * (len(group) - 1))


def _near(one: Json, other: Json, width: float, height: float) -> bool:
    return bool(
        abs(one["kilobytes"] - other["kilobytes"]) < _NEAR_WIDTH * width
        and abs(one["figure"] - other["figure"]) < _NEAR_HEIGHT * height
    )


def _size_axis(points: list[Json]) -> Json:
    return {
        "field": "kilobytes",
        "type": "quantitative",
        "title": "File size (kB): further left is smaller",
        "scale": {"domain": [0, max(point["kilobytes"] for point in points) * 1.05]},
        "axis": {"grid": False, **_axis_colours(), "tickCount": 6},
    }


def _extent(points: list[Json], limit: float | None) -> tuple[float, float]:
    """Return the lowest and the highest figure drawn: every interval, and the limit."""
    ends = [end for point in points for end in (point["low"], point["high"])]
    ends += [] if limit is None else [limit]
    return min(ends), max(ends)


def _figure_axis(title: str, points: list[Json], limit: float | None) -> Json:
    lowest, highest = _extent(points, limit)
    margin = (highest - lowest) * 0.12 or abs(highest) * 0.01 or 1
    return {
        "field": "figure",
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [lowest - margin, highest + margin], "nice": False},
        "axis": {"gridColor": "css:--line", **_axis_colours(), "tickCount": 6},
    }


def _axis_colours() -> Json:
    muted = "css:--muted"
    return {"labelColor": muted, "titleColor": muted, "tickColor": "css:--line", "domainColor": "css:--line"}


def _limit_line(limit: float, reference: float, figure: Json) -> list[Json]:
    # Away from float32's line, however near that is.
    return _line(limit, "limit", "css:--fail", [2, 3], figure, below=limit < reference)


def _line(value: float, name: str, colour: str, dash: list[int], figure: Json, *, below: bool) -> list[Json]:
    """Return two layers: a horizontal line across the plot, and its name at the left end.

    `below` is where the labels of points are not: they stand above their points.
    """
    level = {key: each for key, each in figure.items() if key != "field"} | {"datum": value}
    rule = {"type": "rule", "color": colour, "strokeDash": dash, "opacity": 0.8}
    baseline, dy = ("top", 4) if below else ("bottom", -3)
    text = {"type": "text", "text": name, "color": colour, "align": "left", "baseline": baseline, "fontSize": 11}
    return [
        {
            "data": {"values": [{}]},
            "mark": rule,
            "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y": level},
        },
        {
            "data": {"values": [{}]},
            "mark": {**text, "dx": 4, "dy": dy},
            "encoding": {"x": {"value": 0}, "y": level},
        },
    ]


def _coloured() -> Json:
    return {"color": _scale(0)}


def _scale(part: int) -> Json:
    """Return the encoding of a verdict by colour (0) or shape (1). The legend is the page's own."""
    values = [(f"css:--{kind}", shape)[part] for kind, shape, _ in SHAPES]
    domain = [kind for kind, _, _ in SHAPES]
    return {"field": "verdict", "type": "nominal", "scale": {"domain": domain, "range": values}, "legend": None}


def _tooltip(title: str) -> list[Json]:
    shown = (("variant", "Variant"), ("size", "Size"), ("value", title), ("loss", "Loss"), ("verdict_word", "Verdict"))
    return [{"field": field, "type": "nominal", "title": heading} for field, heading in shown]


def _labels(place: Json) -> list[Json]:
    """Return two layers: the labels' outline in the page's colour, so that a bar behind them is no part of a letter."""
    mark = {
        "type": "text", "baseline": "bottom", "lineBreak": "\n", "lineHeight": _LINE_HEIGHT,
        "dy": {"expr": "datum.lift"}, "fontSize": 12, "fontWeight": 600,
        "align": {"expr": "datum.side"}, "dx": {"expr": "datum.side === 'left' ? 9 : -9"}, "color": "css:--text",
    }  # fmt: skip
    outline = {"stroke": "css:--card", "strokeWidth": 4, "strokeJoin": "round", "color": "css:--card"}
    encoding = {**place, "text": {"field": "label", "type": "nominal"}}
    return [{"mark": {**mark, **outline}, "encoding": encoding}, {"mark": mark, "encoding": encoding}]
