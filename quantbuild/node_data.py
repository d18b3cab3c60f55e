"""Figures by node, as Model Explorer overlays them on a graph: its node data format.

Source: google-ai-edge/model-explorer, ``node_data_builder.py`` (ModelNodeData): ``{graph id: {"results": {node:
{"value"}}, "gradient"}}``. A node goes by the name of a tensor that it makes, or by its id, which for a ``.tflite`` is
the op's place in its subgraph; the graph's id is the subgraph's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

GOOD, MIDDLE, BAD = "#1a9850", "#fee08b", "#d73027"
"""Colours of the ends and the middle; each is told by its figure too."""


def encode(graph: str, values: Mapping[str, float], *, higher_is_better: bool) -> bytes:
    """Return the file's bytes: one value for each node, coloured from the worst to the best of them."""
    colours = (BAD, MIDDLE, GOOD) if higher_is_better else (GOOD, MIDDLE, BAD)
    gradient = [{"stop": stop, "bgColor": colour} for stop, colour in zip((0, 0.5, 1), colours, strict=True)]
    results = {node: {"value": value} for node, value in values.items()}
    document = {graph: {"results": results, "gradient": gradient}}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def sqnr_by_tensor(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the SQNR in dB by the artifact's own tensor names, without tensors that are exact or share their name."""
    found = [(row["tensor"], row["sqnr_db"]) for row in rows]
    counted = Counter(name for name, _ in found)
    return {name: value for name, value in found if value is not None and name and counted[name] == 1}


def noise_by_op(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return each op's share of the noise at the outputs in per cent, by its place in the artifact."""
    return {
        str(row["index"]): row["share"] * 100 for row in rows if row["index"] is not None and row["share"] is not None
    }
