"""What a file holds, in words: the runtime it needs, conversions, custom ops, its largest tensors, its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quantbuild import units

Json = Mapping[str, Any]
SHOWN = 10


def facts(artifact: Json, accuracy: Json) -> dict[str, str | None]:
    """Return heading → text; None or empty where there is nothing to tell."""
    return {
        "Oldest TFLite runtime": _runtime(artifact),
        "Custom ops": _custom_ops(artifact.get("custom_ops") or ()),
        "Conversions inside the graph": _conversions(artifact.get("conversions")),
        "Bytes": _bytes(artifact.get("sizes")),
        "Largest tensors": _largest(artifact.get("sizes")),
        "Outputs on the evaluation set": "; ".join(map(_output, accuracy.get("outputs") or ())),
        "Outputs that made-up inputs do not move": ", ".join(artifact.get("constant_outputs") or ()),
    }


def ops(artifact: Json) -> tuple[tuple[str, str], ...] | None:
    """Return every op with its count, the most frequent first, the version it needs behind its name."""
    if artifact.get("ops") is None:
        return None
    versions: dict[str, list[str]] = {}
    for found in artifact.get("op_versions") or ():
        versions.setdefault(found["op"], []).append(str(found["version"] or "?"))
    counted = sorted(artifact["ops"].items(), key=lambda item: -item[1])
    return tuple((_with_version(op, versions.get(op)), units.count(number)) for op, number in counted)


def _with_version(op: str, versions: list[str] | None) -> str:
    return op if not versions else f"{op} v{', v'.join(versions)}"


def _runtime(artifact: Json) -> str | None:
    needed, unknown = artifact.get("minimal_runtime"), artifact.get("runtime_unknown") or ()
    if needed is None:
        return f"not known: {', '.join(unknown)}" if unknown else None
    deciding = [f"{op['op']} v{op['version']}" for op in artifact.get("op_versions") or () if op["runtime"] == needed]
    return f"{needed}, for {', '.join(deciding[:SHOWN])}" if deciding else str(needed)


def _custom_ops(found: Any) -> str:
    return ", ".join(
        f"{units.count(op['count'])} × {op['op']}" + (" (needs TensorFlow's kernels)" if op["flex"] else "")
        for op in found
    )


def _conversions(found: Json | None) -> str | None:
    if found is None or not found["ops"]:
        return None
    named = [f"{op['op']} to {op['to']} {short(op['name'])}" for op in found["ops"][:SHOWN]]
    more = len(found["ops"]) - len(named)
    stretches = units.counted(found["pairs"], "stretch", "stretches")
    around = f", around {stretches} of float ops" if found["pairs"] else ""
    text = f"{units.count(len(found['ops']))}{around}: {', '.join(named)}"
    return f"{text}, and {units.count(more)} more" if more > 0 else text


def _bytes(found: Json | None) -> str | None:
    if found is None:
        return None
    constants, others = units.size(found["constant_bytes"]), units.size(found["other_bytes"])
    return f"{constants} of weights and other constants, {others} of all else"


def _largest(found: Json | None) -> str | None:
    if found is None:
        return None
    return ", ".join(map(_tensor, found["largest"][:SHOWN]))


def _tensor(found: Json) -> str:
    name, share = short(found["name"]), units.percent(found["share"], 1)
    return f"{name} ({found['dtype']}, {units.size(found['bytes'])}, {share})"


def _output(found: Json) -> str:
    """Return what one output did: how much of it never changed, and how much sat at the ends of its range."""
    parts = []
    if found["constant_elements"]:
        text = (
            f"{units.count(found['constant_elements'])} of {units.counted(found['elements'], 'element')} never changed"
        )
        stuck = found["stuck_elements"]
        parts.append(f"{text}, {units.count(stuck)} of which do in float32" if stuck else text)
    if found["at_low"] is not None:
        ends = f"{units.percent(found['at_low'], 1)} of the values at the lower end of the range"
        parts.append(f"{ends} and {units.percent(found['at_high'], 1)} at the upper")
    if found["clipped"]:
        parts.append(f"{units.percent(found['clipped'])} clipped")
    return f"{found['name']}: {', '.join(parts)}" if parts else ""


def short(name: str) -> str:
    """Return the first of the names that a converter joins with ``;`` where it fused several operations."""
    first, *others = name.split(";")
    return f"{first} (fused with {units.count(len(others))} more)" if others else first
