"""The table that `quantbuild nodes` prints, from the list that a step left beside its artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quantbuild.units import size

_HEADINGS = ("#", "op", "layer", "shape", "type", "weights", "name")
_RIGHT = ("#", "weights")


def table(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line of headings and a line for each node, in columns.

    ``#`` is what ``first:N`` and ``last:N`` count. Of names that were joined, the first one is given: any of them will
    do as a pattern.
    """
    rows = [_HEADINGS, *(_row(node) for node in nodes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return ["  ".join(map(_padded, row, widths, _HEADINGS)).rstrip() for row in rows]


def _row(node: Mapping[str, Any]) -> tuple[str, ...]:
    first, *others = node["name"].split(";")
    return (
        "" if node["number"] is None else str(node["number"]),
        node["op"],
        node["layer"],
        "×".join(map(str, node["shape"])) or "scalar",
        node["dtype"],
        size(node["weight_bytes"]) if node["weight_bytes"] else "",
        f"{first} (+{len(others)})" if others else first,
    )


def _padded(cell: str, width: int, heading: str) -> str:
    return cell.rjust(width) if heading in _RIGHT else cell.ljust(width)
