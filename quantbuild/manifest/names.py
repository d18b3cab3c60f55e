"""The rules of names: what one looks like, and that what it refers to is there."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.definitions import NAME_PATTERN, RESERVED_NAMES
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.problems import key_text, quoted, unknown

_NAME = re.compile(NAME_PATTERN)


def check_names(names: Iterable[str], section: KeyPath, context: Context) -> None:
    """Names match the pattern, are not reserved, and differ by more than case."""
    by_lower: dict[str, str] = {}
    for name in names:
        lower = name.lower()
        if _NAME.match(name) is None or name.endswith("\n"):
            text = f"{quoted(name)} is no name; use letters, digits, _ . - and begin with a letter or digit"
            context.add((*section, name), text)
        elif lower in RESERVED_NAMES:
            context.add((*section, name), f"{quoted(name)} is reserved; choose another name")
        elif lower in by_lower:
            other = key_text((*section, by_lower[lower]))
            context.add((*section, name), f"differs from {other} by case alone; choose another name")
        by_lower.setdefault(lower, name)


def check_reference(value: Any, what: str, known: Collection[str], path: KeyPath, context: Context) -> None:
    """A name refers to something that some manifest defines. What is no text is reported elsewhere."""
    if context.check_references and isinstance(value, str) and value not in known:
        context.add(path, unknown(what, value, known))


def check_measured(device: str, path: KeyPath, model: Mapping[str, Any], known: Known, context: Context) -> None:
    """A device refers to one that the model is measured on."""
    measured = model.get("devices")
    if device not in known.devices:
        check_reference(device, "device", known.devices, path, context)
    elif isinstance(measured, list) and device not in measured:
        context.add(path, f"this model is not measured there; add {quoted(device)} to its devices")
