"""The static shape that each input of a model is converted with: batch 1, and what `input_shapes` pins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantbuild.errors import StepError

Declared = Sequence[int | None] | None
"""A shape as the model declares it: None for a free dimension, or for a shape of unknown rank."""


def pin(declared: Mapping[str, Declared], pinned: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Return input name to static shape, in the order of `declared`.

    A free first dimension becomes 1. Raises StepError, for every input at fault at once, where another
    dimension is free and not pinned, or where a pinned shape does not fit.
    """
    problems = [_unknown(name, declared) for name in pinned if name not in declared]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in declared.items():
        if name in pinned:
            problems += _misfit(name, shape, pinned[name])
            shapes[name] = tuple(pinned[name])
        elif shape is None or None in shape[1:]:
            problems.append(_free(name, shape))
        else:
            shapes[name] = tuple(1 if size is None else size for size in shape)
    if problems:
        raise StepError("; ".join(problems))
    return shapes


def text(shape: Declared) -> str:
    """Return a shape as a reader knows it, ``[?, 28, 28, 1]``."""
    if shape is None:
        return "of unknown rank"
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def _free(name: str, shape: Declared) -> str:
    sizes = ["1"] if shape is None else ["1", *("…" if size is None else str(size) for size in shape[1:])]
    return (
        f'input "{name}" has the shape {text(shape)} with a free dimension; '
        f"pin it with input_shapes = {{ {name} = [{', '.join(sizes)}] }}"
    )


def _misfit(name: str, shape: Declared, pinned: Sequence[int]) -> list[str]:
    if any(size < 1 for size in pinned):
        return [f"input_shapes.{name} = {text(pinned)} is no static shape; give every dimension a size of 1 or more"]
    if shape is None:
        return []
    fits = len(shape) == len(pinned) and all(own in (None, size) for own, size in zip(shape, pinned, strict=True))
    return [] if fits else [f"input_shapes.{name} = {text(pinned)} does not fit the model's {text(shape)}; change it"]


def _unknown(name: str, declared: Mapping[str, Declared]) -> str:
    return f'input_shapes names "{name}", which is no input; the model has {", ".join(declared) or "none"}'
