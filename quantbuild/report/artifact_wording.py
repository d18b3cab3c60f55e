"""The words for gates on what a file is made of, and on the data behind it: they limit no single number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild import units

Json = Mapping[str, Any]

TITLES = {
    "fully_integer": "Operations left in float",
    "allow_ops": "Operations",
    "min_runtime": "TFLite runtime needed",
    "lint": "Ruinous findings about the samples",
}


def limit(gate: Json) -> str:
    """Return what is allowed."""
    if gate["name"] == "allow_ops":
        return f"only {', '.join(gate['limit'])}"
    return f"at most {gate['limit']}" if gate["name"] == "min_runtime" else "none"


def value(gate: Json, variant: Json) -> str:
    """Return what was found."""
    found = gate["value"]
    if found is None:
        return "not known" if gate["verdict"] == "undecided" else units.NOT_MEASURED
    if gate["name"] == "allow_ops":
        return ", ".join(found) or "no other"
    if gate["name"] == "min_runtime":
        return str(found)
    if gate["name"] == "lint":
        return str(gate["message"]).removeprefix("lint: ")
    left = (variant["artifact"] or {}).get("float_ops") or []
    return "none" if found else f"{len(left)}: " + ", ".join(sorted({op["op"] for op in left}))


def sentence(gate: Json, variant: Json) -> str:
    """Return what broke a limit, or leaves it open, as the end of a sentence about the variant."""
    found = value(gate, variant)
    if gate["verdict"] == "undecided":
        unknown = ", ".join(variant["artifact"]["runtime_unknown"])
        return f"needs a TFLite runtime that is not known ({unknown}), where it must run on {gate['limit']}"
    if gate["value"] is None:
        return f"{TITLES[gate['name']]}: not measured"
    if gate["name"] == "allow_ops":
        return f"holds operations that are not allowed: {found}"
    if gate["name"] == "min_runtime":
        return f"needs TFLite {found}, where it must run on {gate['limit']}"
    if gate["name"] == "lint":
        return f"cannot be trusted: {found}"
    return f"still computes in float ({found}), where every operation must be an integer one"
