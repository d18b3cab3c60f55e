"""Where a variant's noise comes from, as text: the ops that cause most of it and the tensors that carry most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quantbuild import units
from quantbuild.report import contents

Json = Mapping[str, Any]

SHOWN = 10
_NEAR = 1.5
"""Up to this ratio, what the ops cause one by one adds up to the outputs' noise."""
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """One op: its share of the outputs' noise, as text and as the length of a bar in per cent."""

    op: str
    name: str
    share: str
    bar: str
    noise: str
    own: str


@dataclass(frozen=True, kw_only=True)
class TensorRow:
    """One tensor with the noise that has gathered in it."""

    name: str
    dtype: str
    sqnr: str
    error: str
    step: str


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The ops and tensors that are worst, and what is left out."""

    summary: str
    ops: tuple[OpRow, ...]
    ops_caption: str
    tensors: tuple[TensorRow, ...]
    tensors_caption: str
    notes: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    """What a file for Model Explorer has, and its path."""


def view(found: Json | None) -> Sensitivity | None:
    """Return the view of a variant's sensitivity; None where it was not asked for, or failed."""
    if found is None:
        return None
    causing = [op for op in found["ops"] if op["noise"]]
    noisy = [tensor for tensor in found["tensors"] if tensor["error_rms"] > 0]
    return Sensitivity(
        summary=_summary(found, causing),
        ops=tuple(_op(op) for op in causing[:SHOWN]),
        ops_caption=_caption("operations that cause noise at the outputs", len(causing)),
        tensors=tuple(_tensor(tensor) for tensor in noisy[:SHOWN]),
        tensors_caption=_caption("tensors with noise in them", len(noisy)),
        notes=tuple(_notes(found, causing)),
        files=(
            ("Each tensor's SQNR", found["node_data"]["sqnr_db"]),
            ("Each operation's share", found["node_data"]["noise"]),
        ),
    )


def _summary(found: Json, causing: list[Json]) -> str:
    samples = units.counted(found["samples"], "selection sample")
    if not causing:
        return f"On {samples} no operation causes any noise at the outputs."
    worst = causing[0]
    return (
        f"On {samples} the noise of the outputs is {_power(found['noise'])} of their power. "
        f"{_named(worst)} alone causes {_power(worst['noise'])}."
    )


def _notes(found: Json, causing: list[Json]) -> list[str]:
    notes = []
    total, noise = found["noise_sum"], found["noise"]
    if causing and noise and not 1 / _NEAR <= total / noise <= _NEAR:
        how = "against each other" if total > noise else "together"
        notes.append(
            f"One by one the operations cause {_power(total)}, all at once {_power(noise)}: their errors work {how}, "
            "so the shares rank the operations and do not tell what sparing one would save."
        )
    before = [output for output in found["outputs"] if output["before"]]
    if before:
        named = [f"{output['name']} before its {output['before']}" for output in before]
        notes.append(
            f"Measured at {_list(named)}: where that saturates, it hides what came before. "
            "Its own rounding comes on top."
        )
    floats = sum(op["noise"] is None for op in found["ops"])
    if floats:
        none = "computes in float and adds none" if floats == 1 else "compute in float and add none"
        notes.append(f"{units.counted(floats, 'operation')} {none}.")
    if found["unmatched_ops"]:
        named = [f"{op['op']} {contents.short(op['name'])}" for op in found["unmatched_ops"]]
        notes.append(
            f"Not matched with float32's operations: {_list(named)}. What they add counts with the next one that is."
        )
    if found["unmatched_tensors"]:
        named = [contents.short(name) for name in found["unmatched_tensors"]]
        notes.append(f"Tensors of float32 not matched, so not measured: {_list(named)}.")
    return notes


def _list(named: list[str]) -> str:
    more = len(named) - _NAMED
    return ", ".join(named[:_NAMED]) + (f", and {units.count(more)} more" if more > 0 else "")


def _caption(what: str, number: int) -> str:
    count = units.count(number)
    return f"The {SHOWN} worst of {count} {what}" if number > SHOWN else f"All {count} {what}"


def _op(op: Json) -> OpRow:
    return OpRow(
        op=op["op"],
        name=op["layer"] or contents.short(op["name"]),
        share=units.percent(op["share"], 1),
        bar=f"{op['share'] * 100:.1f}",
        noise=_power(op["noise"]),
        own=units.decibels(op["own_sqnr_db"]),
    )


def _named(op: Json) -> str:
    return f"{op['op']} {op['layer'] or contents.short(op['name'])}"


def _tensor(tensor: Json) -> TensorRow:
    return TensorRow(
        name=contents.short(tensor["name"]),
        dtype=tensor["dtype"],
        sqnr=units.decibels(tensor["sqnr_db"]),
        error=f"{units.significant(tensor['error_rms'], 3)} of {units.significant(tensor['rms'], 3)}",
        step="–" if tensor["step"] is None else units.significant(tensor["step"], 3),
    )


def _power(share: float) -> str:
    """Return a share of power as per cent; three digits, since int16's is far below a hundredth."""
    return "below 0.0001 %" if share < 1e-6 else f"{units.significant(share * 100, 3)} %"
