"""The whole rebuild policy: a pure function of a step's key, its record and digests; every reason is a value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from quantbuild.closing_changes import VALUES_TOLD, closing_change, told_at
from quantbuild.digests import Digest, sha256_of_bytes
from quantbuild.record import PROVISIONAL, Record, Result

KEY_SCHEMA = 1
_encoder = msgspec.json.Encoder(order="deterministic")
_ABSENT = "absent"
# A value longer than this says less than its beginning.
MOST_SHOWN = 80


class Reason(msgspec.Struct, frozen=True):
    """Why a step must run: the kind, what it is about, and old and new where both are known.

    `detail` is for whoever asks: it is longer than a word, and no part of what a record keeps.
    """

    kind: str
    what: str = ""
    old: str | None = None
    new: str | None = None
    detail: str = ""

    def text(self) -> str:
        """Return the reason in a few words."""
        head = f"{self.kind}: {self.what}" if self.what else self.kind
        if self.old is None and self.new is None:
            return head
        return f"{head}: {self.old} → {self.new}"

    def explained(self) -> str:
        """Return the reason with its detail."""
        return f"{self.text()}: {self.detail}" if self.detail else self.text()


InputChange = Callable[[str, str | None, str | None], Iterable[Reason]]
"""Says what changed of the input of a role, from its old digest to its new one; None where it was or is no input."""

NEVER_BUILT = Reason("never built")
FORCED = Reason("forced")
FORGOTTEN = Reason("forgotten")
FAILED_BEFORE = "failed before"
NOT_MEASURED_BEFORE = "not measured before"


def key_of(preimage: Mapping[str, Any]) -> str:
    """Return the sha256 of the canonical JSON (sorted keys, no spaces) of a key's pre-image."""
    return sha256_of_bytes(_encoder.encode(preimage))


def input_change(role: str, old: str | None, new: str | None) -> Iterable[Reason]:
    """Say that an input changed, by its role."""
    return (Reason("input changed", role, _shown(old), _shown(new)),)


def why_not_fresh(
    key: str,
    preimage: Mapping[str, Any],
    record: Record | None,
    digest: Callable[[str], Digest | None],
    input_change: InputChange = input_change,
) -> tuple[Reason, ...]:
    """Return the reasons to run a step, empty when its outputs stand as its record says.

    `digest` gives the digest of a path relative to the root, None where there is no file.
    """
    if record is None or record.result is None:
        return (_no_result(record),)
    if record.result.key != key:
        changed = tuple(changes(record.result.preimage, preimage, input_change))
        return changed or (Reason("key changed"),)
    return tuple(_not_standing(record.result, digest))


def known_reasons(
    preimage: Mapping[str, Any],
    unknown: Collection[str],
    record: Record | None,
    digest: Callable[[str], Digest | None],
    input_change: InputChange = input_change,
) -> tuple[Reason, ...]:
    """Return the reasons to run a step that are known while the digests of its inputs of the roles `unknown` are not.

    `preimage` is without these inputs.
    """
    if record is None or record.result is None:
        return (_no_result(record),)
    old = record.result.preimage
    inputs = {role: sha256 for role, sha256 in old["inputs"].items() if role not in unknown}
    changed = changes({**old, "inputs": inputs}, preimage, input_change)
    return (*changed, *_not_standing(record.result, digest))


def _no_result(record: Record | None) -> Reason:
    failure = None if record is None else record.failure
    if failure is None:
        return NEVER_BUILT
    if failure.message == FORGOTTEN.kind:
        return FORGOTTEN
    log = f"; log: {failure.log}" if failure.log else ""
    kind = NOT_MEASURED_BEFORE if failure.unreachable else FAILED_BEFORE
    return Reason(kind, detail=f"{failure.message}{log}")


def _not_standing(result: Result, digest: Callable[[str], Digest | None]) -> Iterator[Reason]:
    if result.provisional is not None:
        yield Reason(PROVISIONAL, detail=result.provisional)
    for output in result.outputs.values():
        found = digest(output.path)
        if found is None:
            yield Reason("output missing", output.path)
        elif found.sha256 != output.sha256:
            yield Reason("output altered", output.path, short(output.sha256), short(found.sha256))


_LABELS = {
    "schema": "key schema changed",
    "action": "action changed",
    "code": "quantbuild's code changed",
    "parameters": "option changed",
    "tools": "tool changed",
    "cpu": "CPU changed",
    "device": "device changed",
}


def changes(
    old: Mapping[str, Any], new: Mapping[str, Any], input_change: InputChange = input_change
) -> Iterator[Reason]:
    """Yield a reason for each component in which two pre-images differ, old → new."""
    action = new.get("action")
    told: dict[Reason, None] = {}
    for part in sorted(set(old) | set(new), key=_told_at):
        if part == "inputs":
            told |= dict.fromkeys(_input_changes(old.get(part, {}), new.get(part, {}), input_change))
            continue
        # The outer ones first: a scheme comes before those of its options that another scheme has not.
        leaves = sorted(_leaves(old.get(part), new.get(part)), key=lambda leaf: len(leaf[0]))
        found = [_change(action, part, *leaf) for leaf in leaves]
        told |= dict.fromkeys(sorted(found, key=lambda reason: told_at(reason.kind)))
    yield from told


def _told_at(part: str) -> tuple[int, str]:
    """Return where a part's changes are told: what the user wrote first, what follows from that after."""
    order = ("parameters", "inputs", "device", "cpu", "tools", "code")
    return (order.index(part) if part in order else len(order), part)


def _change(action: Any, part: str, path: tuple[str, ...], before: Any, after: Any) -> Reason:
    made = closing_change(action, path, before) if part == "parameters" else None
    if made is None:
        return Reason(_LABELS.get(part, part), ".".join(path), _shown(before), _shown(after))
    kind, what = made
    values = kind in VALUES_TOLD
    return Reason(kind, what, _shown(before) if values else None, _shown(after) if values else None)


def _input_changes(old: Mapping[str, str], new: Mapping[str, str], input_change: InputChange) -> Iterator[Reason]:
    for role in sorted(set(old) | set(new)):
        if old.get(role) != new.get(role):
            yield from input_change(role, old.get(role), new.get(role))


def _leaves(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    old, new = _by_name(old), _by_name(new)
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(set(old) | set(new)):
            yield from _leaves(old.get(key), new.get(key), (*path, str(key)))
        return
    yield path, old, new


def _by_name(value: Any) -> Any:
    """Return a list of named tables (models, variants, steps) as a table of them, so that what differs is named."""
    if isinstance(value, tuple):  # as planned; as read back from a record it is a list
        value = list(value)
    if isinstance(value, list) and value and all(isinstance(entry, Mapping) for entry in value):
        names = [entry.get("name", entry.get("id")) for entry in value]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return dict(zip(names, value, strict=True))
    return value


def _shown(value: Any) -> str:
    if value is None:
        return _ABSENT
    text = value if isinstance(value, str) else _encoder.encode(value).decode()
    if _is_digest(text):
        return short(text)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(character in "0123456789abcdef" for character in text)


def short(sha256: str) -> str:
    """Return the first twelve digits of a digest, as people quote it."""
    return sha256[:12]
