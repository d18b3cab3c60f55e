"""The patterns of `keep_float` and `keep_int16`: their grammar, and the nodes they mean. Pure; no model is read here.

==================  ===================================================================================================
``NAME``            the node of that tensor name; else of a name that was joined in it; else the op that writes the
                    output of that name; else the ops of the layer of that name
``GLOB``            (``*``, ``?``, ``[…]``) every node of which a name matches as a whole
``re:REGEX``        every node of which a name contains a match (Python's `re.search`)
``op:TYPE``         every op of that type
``first:N``         the first N nodes that compute
``last:N``          the last N
``node:INDEX``      the op at that place in execution order, for a model whose tensors have no names of their own
``tensor:PATTERN``  the activation that such a node writes, or the input of that name, kept whole: the ops that make it
                    and the ops that read it
==================  ===================================================================================================
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from quantbuild.errors import StepError
from quantbuild.nodes.islands import island
from quantbuild.nodes.node import Node

_COUNTED = re.compile(r"(first|last):(.*)", re.DOTALL)
_PLACED = re.compile(r"node:(.*)", re.DOTALL)
_GLOB = re.compile(r"[*?\[]")
_PREFIXED = re.compile(r"(re|op|first|last|node|tensor):")
_NEAREST = 3


def problem(pattern: str) -> str | None:
    """Return what is wrong with how a pattern is written, ``problem; remedy``; None where nothing is."""
    inner = pattern.removeprefix("tensor:")
    if not inner:
        return f'"{pattern}" names nothing; write a name, a glob, "re:…", "op:TYPE", "first:N" or "last:N"'
    counted = _COUNTED.fullmatch(inner)
    if counted and not (counted[2].isascii() and counted[2].isdigit() and int(counted[2]) > 0):
        return f'"{pattern}": "{counted[2]}" is no count; write a whole number of at least 1, as in "{counted[1]}:2"'
    placed = _PLACED.fullmatch(inner)
    if placed and not (placed[1].isascii() and placed[1].isdigit()):
        return f'"{pattern}": "{placed[1]}" is no place; write a whole number, as in "node:12"'
    if inner == "op:":
        return f'"{pattern}" names no type; write one, as in "op:SOFTMAX"'
    if inner.startswith("re:"):
        try:
            re.compile(inner.removeprefix("re:"))
        except re.error as error:
            return f'"{pattern}" is no regular expression ({error}); correct it'
    return None


def check(key: str, patterns: Iterable[str]) -> None:
    """Raise ValueError for the first pattern that is badly written, led by the manifest's key."""
    for pattern in patterns:
        found = problem(pattern)
        if found is not None:
            raise ValueError(f"{key}: {found}")


def resolve(
    key: str, patterns: Sequence[str], nodes: Sequence[Node], inputs: Mapping[str, int] | None = None
) -> list[Node]:
    """Return the nodes that any of `patterns` means, each once, in execution order.

    `inputs` are the model's inputs, signature name → tensor index. Raises StepError for a pattern that means none,
    with the names nearest to it.
    """
    found: set[int] = set()
    for pattern in patterns:
        found |= _meant(key, pattern, nodes, inputs or {})
    return [node for node in nodes if node.index in found]


def _meant(key: str, pattern: str, nodes: Sequence[Node], inputs: Mapping[str, int]) -> set[int]:
    if not pattern.startswith("tensor:"):
        return {node.index for node in _nodes(key, pattern, pattern, nodes)}
    inner = pattern.removeprefix("tensor:")
    if inner in inputs:
        return set(island(nodes, {inputs[inner]}))
    writers = _nodes(key, pattern, inner, nodes, also=inputs)
    return set(island(nodes, {tensor for node in writers for tensor in node.writes}))


def _nodes(key: str, pattern: str, text: str, nodes: Sequence[Node], also: Iterable[str] = ()) -> list[Node]:
    """Return the nodes that `text` means; `pattern` is how the manifest wrote it, `also` names a message may offer."""
    counted = _COUNTED.fullmatch(text)
    if counted:
        return _counted(key, pattern, counted[1], int(counted[2]), nodes)
    placed = _PLACED.fullmatch(text)
    if placed:
        known = [f"node:{node.index}" for node in nodes]
        return _some(key, pattern, text, _where(nodes, lambda node: node.index == int(placed[1])), known)
    if text.startswith("op:"):
        wanted = text.removeprefix("op:").casefold()
        return _some(key, pattern, text, _where(nodes, lambda node: node.op.casefold() == wanted), _ops(nodes))
    if text.startswith("re:"):
        search = re.compile(text.removeprefix("re:")).search
        matching = _where(nodes, lambda node: any(search(name) for name in names(node)))
        return _some(key, pattern, text.removeprefix("re:"), matching, _all_names(nodes))
    exact = _exact(text, nodes)
    if not exact and _GLOB.search(text):
        exact = _where(nodes, lambda node: any(fnmatch.fnmatchcase(name, text) for name in names(node)))
    return _some(key, pattern, text, exact, [*_all_names(nodes), *also, *_ops(nodes)])


def reference(node: Node, nodes: Sequence[Node]) -> str:
    """Return a pattern that means `node` of `nodes` alone: its name, or its place where that would mean another."""
    by_name = bool(node.name) and problem(node.name) is None and _exact(node.name, nodes) == [node]
    return node.name if by_name and not _PREFIXED.match(node.name) else f"node:{node.index}"


def _counted(key: str, pattern: str, side: str, count: int, nodes: Sequence[Node]) -> list[Node]:
    computing = [node for node in nodes if node.number is not None]
    if count > len(computing):
        raise StepError(f'{key}: "{pattern}": the model has {len(computing)} nodes that compute; write a smaller count')
    return computing[:count] if side == "first" else computing[-count:]


def _exact(text: str, nodes: Sequence[Node]) -> list[Node]:
    """Return the nodes with that name in the first kind of names in which there is one."""
    for kind in ("tensors", "parts", "ports", "layers", "scopes"):
        found = _where(nodes, lambda node, kind=kind: text in getattr(node, kind))  # type: ignore[misc]
        if found:
            return found
    return []


def names(node: Node) -> tuple[str, ...]:
    """Return every name that globs and regular expressions look at."""
    return (*node.tensors, *node.parts, *node.ports, *node.layers)


def _where(nodes: Sequence[Node], holds: Callable[[Node], bool]) -> list[Node]:
    return [node for node in nodes if holds(node)]


def _ops(nodes: Sequence[Node]) -> list[str]:
    return sorted({f"op:{node.op}" for node in nodes})


def _all_names(nodes: Sequence[Node]) -> list[str]:
    """Return the names a message may offer: the short ones first, since they are the ones people write."""
    short = [name for node in nodes for name in (*node.layers, *node.ports)]
    return list(dict.fromkeys([*short, *(name for node in nodes for name in (*node.tensors, *node.parts))]))


def _some(key: str, pattern: str, wanted: str, found: list[Node], known: Sequence[str]) -> list[Node]:
    if found:
        return found
    by_lower = {name.casefold(): name for name in reversed(known)}
    near = difflib.get_close_matches(wanted.casefold(), by_lower, n=_NEAREST, cutoff=0.5)
    offered = ", ".join(f'"{by_lower[name]}"' for name in near or list(by_lower)[-_NEAREST:][::-1])
    raise StepError(
        f'{key}: "{pattern}" means no node of the model; {"the nearest names are" if near else "it has names such as"} '
        f"{offered}, and `quantbuild nodes MODEL` lists all"
    )
