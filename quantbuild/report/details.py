"""The page's lower half as text: artifacts and their operations, where it was measured, the steps of the build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import contents, search, sensitivity, wording
from quantbuild.report.search import Search
from quantbuild.report.sensitivity import Sensitivity
from quantbuild.report.wording import Mark

Json = Mapping[str, Any]
Facts = tuple[tuple[str, str], ...]

FLOAT_OPS_SHOWN = 20
FLOAT_SCHEMES = ("float32", "float16", "dynamic", "weight_only")
"""Schemes whose operations take and give floats: naming each of them would say nothing."""

_OUTCOMES = {
    "done": Mark(sign="✓", word="done", kind="pass"),
    "failed": Mark(sign="✗", word="failed", kind="fail"),
    "blocked": Mark(sign="–", word="blocked", kind="undecided"),
    "not_measured": wording.NOT_MEASURED,
}


@dataclass(frozen=True, kw_only=True)
class Detail:
    """What is known of one variant's file."""

    variant: str
    anchor: str
    error: str
    facts: Facts
    tensors: tuple[tuple[str, str, str, str, str], ...]
    """Direction, name, shape, type, quantization of every input and output."""
    ops: tuple[tuple[str, str], ...] | None
    float_ops: tuple[str, ...]
    float_ops_text: str
    search: Search | None
    sensitivity: Sensitivity | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """One device: what was the same for every variant, and what was not."""

    device: str
    common: Facts
    variants: tuple[tuple[str, str, Facts], ...]
    """Variant, status in words, and its own facts."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the build."""

    id: str
    mark: Mark
    reason: str
    message: str


def detail(model: Json, variant: Json) -> Detail:
    """Return what is known of a variant's file."""
    artifact = variant["artifact"] or {}
    float_ops = artifact.get("float_ops")
    listed = [] if variant["scheme"] in FLOAT_SCHEMES else (float_ops or [])[:FLOAT_OPS_SHOWN]
    return Detail(
        variant=variant["name"],
        anchor=f"detail-{model['name']}-{variant['name']}",
        error=variant["error"] or "",
        facts=_facts(variant, artifact),
        tensors=tuple(
            _tensor(direction, tensor)
            for direction, key in (("input", "inputs"), ("output", "outputs"))
            for tensor in artifact.get(key) or ()
        ),
        ops=contents.ops(artifact),
        float_ops=tuple(_float_op(op) for op in listed),
        float_ops_text=_float_ops_text(variant, float_ops),
        search=search.view(model["metric"], variant["search"]),
        sensitivity=sensitivity.view(variant.get("sensitivity")),
    )


def _facts(variant: Json, artifact: Json) -> Facts:
    accuracy = variant["accuracy"] or {}
    pairs = accuracy.get("pairs")
    made = "How it was made" if variant["scheme"] == "float32" else "How it was quantized"
    facts = {
        "Scheme": f"{variant['scheme']}: {wording.SCHEMES.get(variant['scheme'], 'a scheme of this workspace')}",
        "File": artifact.get("path"),
        "SHA-256": artifact.get("sha256"),
        "Options": text_of({key: value for key, value in variant["options"].items() if value not in (None, [], {})}),
        made: _described(artifact.get("quantized_by") or {}),
        "Kept in float": _nodes(artifact.get("kept_float") or []),
        "Kept at 16 bits": _nodes(artifact.get("kept_int16") or []),
        **contents.facts(artifact, accuracy),
        "Against float32": _pairs(pairs) if pairs and variant["scheme"] != "float32" else None,
        "Samples with another answer": _flipped(accuracy),
        "Samples with a tie for first": units.count(accuracy["tied"]) if accuracy.get("tied") else None,
    }
    return tuple((name, value) for name, value in facts.items() if value)


def _nodes(kept: list[Json]) -> str:
    """Return operations as a reader knows them, by layer where they have one."""
    shown = [f"{node['op']} {node['layer'] or contents.short(node['name'])}" for node in kept[:FLOAT_OPS_SHOWN]]
    more = len(kept) - len(shown)
    return ", ".join([*shown, f"and {units.count(more)} more"] if more else shown)


def _described(values: Json) -> str:
    """Return what a step said of its work, tables within opened out: ``quantized float16 tensors 14; …``."""
    return "; ".join(_leaves(values))


def _leaves(value: Any, words: tuple[str, ...] = ()) -> list[str]:
    if isinstance(value, Mapping):
        return [leaf for key, each in value.items() for leaf in _leaves(each, (*words, key.replace("_", " ")))]
    if words[-1:] == ("size bytes",) or value in (None, []):
        return []  # the table has the size already
    text = units.count(value) if isinstance(value, int) and not isinstance(value, bool) else text_of(_shortened(value))
    return [" ".join((*words, text))]


def _shortened(value: Any) -> Any:
    """Return the names of fused tensors by the first of them, alone or in a list; all else as it is."""
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    return contents.short(value) if isinstance(value, str) else value


def _flipped(accuracy: Json) -> str:
    """Return which samples a variant and float32 disagree on; the evaluation keeps the first of many."""
    shown = accuracy.get("flipped") or []
    if not shown:
        return ""
    number = accuracy["n"] - accuracy["agreed"]
    some = f" (the first {units.count(len(shown))} of them)" if len(shown) < number else ""
    return f"{units.count(number)}, counted from 0 in the data set{some}: {', '.join(map(str, shown))}"


def _pairs(pairs: Json) -> str:
    return (
        f"both right on {units.count(pairs['both_right'])}, "
        f"only float32 on {units.count(pairs['only_float32_right'])}, "
        f"only this variant on {units.count(pairs['only_variant_right'])}, "
        f"neither on {units.count(pairs['both_wrong'])}"
    )


def _tensor(direction: str, tensor: Json) -> tuple[str, str, str, str, str]:
    scale = tensor.get("scale")
    quantization = "–" if scale is None else f"scale {text_of(scale)}, zero point {text_of(tensor.get('zero_point'))}"
    return direction, tensor["name"], text_of(tensor["shape"]), tensor["dtype"], quantization


def _float_ops_text(variant: Json, float_ops: list[Json] | None) -> str:
    if float_ops is None:
        return units.NOT_MEASURED
    if not float_ops:
        return "none: every operation computes in integers"
    text = f"{units.count(len(float_ops))}"
    if variant["scheme"] in FLOAT_SCHEMES:
        return f"{text}: this scheme leaves activations in float"
    return f"{text}, the first {FLOAT_OPS_SHOWN} of them:" if len(float_ops) > FLOAT_OPS_SHOWN else f"{text}:"


def _float_op(found: Json) -> str:
    text = f"{found['op']} {contents.short(found['name'])}"
    return f"{text} (in {found['subgraph']})" if found.get("subgraph") else text


def places(model: Json) -> tuple[Place, ...]:
    """Return every device with its facts, those that all variants share told once."""
    return tuple(_place(device, model["variants"]) for device in model["devices"])


def _place(device: Json, variants: list[Json]) -> Place:
    found = {variant["name"]: variant["devices"][device["name"]] for variant in variants}
    flat = {name: _flat(result) for name, result in found.items()}
    told = [set(facts.items()) for facts in flat.values() if facts]
    common = set.intersection(*told) if told else set()
    first = next((facts for facts in flat.values() if facts), {})
    own = {"runner": device["runner"]} | ({} if device["required"] else {"required": "no"})
    return Place(
        device=device["name"],
        common=(*own.items(), *(fact for fact in first.items() if fact in common)),
        variants=tuple(
            (name, _status(found[name]), tuple(fact for fact in facts.items() if fact not in common))
            for name, facts in flat.items()
        ),
    )


def _status(result: Json) -> str:
    word = result["status"].replace("_", " ")
    return f"{word}: {result['message']}" if result.get("message") else word


def _flat(result: Json) -> dict[str, str]:
    facts = {f"runtime {key}": value for key, value in result["runtime"].items()} | result["provenance"]
    if "load" in facts:
        facts["load average"] = facts.pop("load")
    return {key.replace("_", " "): text_of(value) for key, value in facts.items() if value is not None}


def steps(found: list[Json]) -> tuple[Step, ...]:
    """Return the steps, what failed, was blocked or not measured first."""
    order = {"failed": 0, "blocked": 1, "not_measured": 2, "done": 3}
    return tuple(
        Step(
            id=step["id"],
            mark=_OUTCOMES[step["outcome"]],
            reason=step["reason"] or "",
            message=step["message"] or "",
        )
        for step in sorted(found, key=lambda step: order[step["outcome"]])
    )


def steps_summary(found: list[Json]) -> str:
    """Return how many steps came to what."""
    outcomes = [step["outcome"] for step in found]
    parts = [
        f"{units.count(outcomes.count(outcome))} {outcome.replace('_', ' ')}"
        for outcome in ("failed", "blocked", "not_measured")
        if outcome in outcomes
    ]
    return ", ".join([units.counted(len(found), "step"), *parts])


def failures_elsewhere(found: list[Json]) -> list[str]:
    """Return the failures of steps that belong to no single variant, such as a model's calibration.

    What they block is told there too, but the cause comes first.
    """
    return [
        f"{step['id']}: {step['message'] or 'failed'}"
        for step in found
        if step["outcome"] == "failed" and "/" not in step["id"]
    ]


def text_of(value: Any) -> str:
    """Return any JSON value as short text: lists with commas, tables as ``key = value``."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return units.significant(value, 6).rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {text_of(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(text_of(each) for each in value) + "]" if value else ""
    return str(value).replace("-", units.MINUS) if isinstance(value, int) else str(value)
