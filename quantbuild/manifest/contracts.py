"""What a plug-in of each kind must have, and what is said of one that lacks a part of it."""

from __future__ import annotations

from types import ModuleType
from typing import Literal

import msgspec

PluginKind = Literal["schemes", "sources", "datasets", "runners"]

# Names with " or " between them stand for each other.
REQUIRED: dict[PluginKind, tuple[str, ...]] = {
    "schemes": ("Options", "TOOLS", "WORKER or worker", "needs", "quantize or driver"),
    "sources": ("TOOLS", "WORKER", "files", "convert"),
    "datasets": ("Options", "TOOLS", "files", "open_samples"),
    "runners": ("Options", "TOOLS", "EXCLUSIVE", "fingerprint", "identity", "benchmark"),
}
"""The names by kind, as docs/adding.md explains them."""

_SECTIONS: dict[PluginKind, str] = {
    "schemes": "A scheme",
    "sources": "A source",
    "datasets": "A loader",
    "runners": "A runner",
}


def lacking(kind: PluginKind, name: str, module: ModuleType) -> str | None:
    """Return what is wrong with the plug-in `name`, and what to do about it; None where it has all it must."""
    missing = [names for names in REQUIRED[kind] if not any(hasattr(module, each) for each in names.split(" or "))]
    place = f"quantbuild/{kind}/{name}.py"
    remedy = f'as docs/adding.md says under "{_SECTIONS[kind]}"'
    if missing:
        return f"the plug-in {place} lacks {', '.join(missing)}; add {'it' if len(missing) == 1 else 'them'} {remedy}"
    if "Options" in REQUIRED[kind] and not _is_struct(module.Options):
        return f"Options of the plug-in {place} is no msgspec.Struct; write it {remedy}"
    return None


def _is_struct(options: object) -> bool:
    return isinstance(options, type) and issubclass(options, msgspec.Struct)
