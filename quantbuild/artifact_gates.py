"""Judges what an artifact is made of: its ops, and the oldest runtime that has them all. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild.release import numbers
from quantbuild.statistics import Verdict

Row = dict[str, Any]
NOT_MEASURED = "not measured"


def row(name: str, limit: Any, value: Any, judged: Verdict, message: str, *, device: str | None = None) -> Row:
    """Return what is written of one gate; the message is led by the gate's name."""
    return {
        "name": name,
        "device": device,
        "limit": limit,
        "value": value,
        "verdict": judged,
        "message": f"{name}{f' on {device}' if device else ''}: {message}",
    }


def judge(gate: Mapping[str, Any], description: Mapping[str, Any] | None) -> list[Row]:
    """Return a row for ``allow_ops`` and ``min_runtime`` where they are set.

    `description` is the probe's of the artifact, None where there is none.
    """
    rows = []
    if gate.get("allow_ops") is not None:
        rows.append(_ops_row(list(gate["allow_ops"]), description))
    if gate.get("min_runtime") is not None:
        rows.append(_runtime_row(gate["min_runtime"], description))
    return rows


def _ops_row(allowed: list[str], description: Mapping[str, Any] | None) -> Row:
    """The value is the ops that are not allowed, by name."""
    name = "allow_ops"
    if description is None:
        return row(name, allowed, None, "not_measured", NOT_MEASURED)
    others = sorted(set(description["ops"]) - set(allowed))
    if not others:
        return row(name, allowed, [], "pass", "no other op is in it")
    counted = ", ".join(f"{description['ops'][op]} × {op}" for op in others)
    return row(name, allowed, others, "fail", f"{counted}, which the gate does not allow")


def _runtime_row(limit: str, description: Mapping[str, Any] | None) -> Row:
    name = "min_runtime"
    if description is None:
        return row(name, limit, None, "not_measured", NOT_MEASURED)
    needed = description["minimal_runtime"]
    culprits = [found for found in description["op_versions"] if _is_newer(found["runtime"], limit)]
    if culprits:  # whatever is unknown of the others
        newest = max((found["runtime"] for found in culprits), key=numbers)
        named = ", ".join(f"{found['op']} {found['version']} ({found['runtime']})" for found in culprits)
        return row(name, limit, needed or newest, "fail", f"needs TFLite {newest}, newer than {limit}: {named}")
    if needed is None:
        named = ", ".join(description["runtime_unknown"]) or "it has no op"
        return row(name, limit, None, "undecided", f"which TFLite has it is not known: {named}")
    return row(name, limit, needed, "pass", f"runs on TFLite {needed} and newer, {limit} among them")


def _is_newer(runtime: str | None, limit: str) -> bool:
    return runtime is not None and numbers(runtime) > numbers(limit)
