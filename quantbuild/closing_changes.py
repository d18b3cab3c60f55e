"""What changed for the steps that close a build, in words: their parameters tell of other steps, and are no options."""

from __future__ import annotations

from typing import Any

VALUES_TOLD = frozenset({"verdict changed", "tool changed", "step came to another end", "failure changed"})
"""Kinds of which old and new are told: of the others they are digests, or as long as a page."""

_TOLD_LAST = ("step is new", "step is gone", "tool changed", "step done for another reason")
_OF_ARTIFACT = frozenset({"artifact_path", "sha256", "size_bytes", "values"})


def closing_change(action: Any, path: tuple[str, ...], before: Any) -> tuple[str, str] | None:
    """Return kind and subject of a change at `path` in the parameters of check, dist or report.

    None where it is an option of the manifest, as everything is for the other actions.
    """
    if action not in ("check", "dist", "report") or len(path) < 2:
        return None
    found: tuple[str, str] | None = None
    match path:
        case ("tools", *tool):
            found = "tool changed", ".".join(tool)
        case ("steps", step, *rest):
            found = _of_step(step, rest, before)
        case ("artifacts", artifact, *rest):
            found = _of_published(artifact, rest, before)
        case ("models", model, "variants", variant, part, *_):
            found = _of_variant(f"{model}/{variant}", part)
        case ("models", model, "variants", variant):
            found = _came_or_went("variant", f"{model}/{variant}", before)
        case ("models", model, "calibration", *_):
            found = "calibration changed", model
        case ("models", model):
            found = _came_or_went("model", model, before)
    return found


def told_at(kind: str) -> int:
    """Return a number that sorts changes of one part: what a reader looks for before what follows from it."""
    return 1 + _TOLD_LAST.index(kind) if kind in _TOLD_LAST else 0


def _of_step(step: str, rest: list[str], before: Any) -> tuple[str, str]:
    if not rest:
        return _came_or_went("step", step, before)
    kinds = {"reason": "step done for another reason", "message": "failure changed"}
    return kinds.get(rest[0], "step came to another end"), step


def _of_published(artifact: str, rest: list[str], before: Any) -> tuple[str, str] | None:
    if not rest:
        return _came_or_went("artifact", artifact, before)
    if rest[0] == "contract":
        return None
    return ("verdict changed" if rest[0] == "verdict" else "artifact changed"), artifact


def _of_variant(variant: str, part: str) -> tuple[str, str] | None:
    if part in _OF_ARTIFACT:
        return "artifact changed", variant
    return {"error": ("failure changed", variant), "cause": ("cause of the failure changed", variant)}.get(part)


def _came_or_went(what: str, name: str, before: Any) -> tuple[str, str]:
    return f"{what} {'is new' if before is None else 'is gone'}", name
