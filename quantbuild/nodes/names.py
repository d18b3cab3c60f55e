"""From a tensor's name to the layers that its op belongs to, as the model's author named them.

TensorFlow names a tensor by the scopes it was traced in, ``digits_1/stem_relu_1/Relu6``, and joins the names of what it
fused with ``;``. Keras opens each layer's scope anew, so that every one ends in a number that nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_TRACED = re.compile(r"(.+)_\d+$")


class Scopes:
    """What all names of one model have in common."""

    def __init__(self, names: Iterable[str]) -> None:
        paths = [part.split("/") for name in names for part in parts(name) if "/" in part]
        roots = {path[0] for path in paths}
        self._root = roots.pop() if len(roots) == 1 else None
        """The model's own scope, which every name begins with; None where there is none."""
        first = {path[1] for path in paths if len(path) > 2}
        self._traced = bool(
            self._root is not None and first and all(_TRACED.match(name) for name in (self._root, *first))
        )

    def scopes(self, part: str) -> tuple[str, ...]:
        """Return the layers' scopes in one name, outermost first, as they are written in it."""
        path = part.split("/")
        return tuple(path[1:-1] if path[0] == self._root else path[:-1])

    def layers(self, part: str) -> tuple[str, ...]:
        """Return every name one part of a tensor's name gives its op.

        The path of layers first, ``block/conv``; then with the op itself, ``block/conv/Relu``, then each layer or run
        of layers in it. An op that stands in no layer has its own name, ``Add``; one outside all scopes none.
        """
        path = [self._written(scope) for scope in self.scopes(part)]
        if not path:  # an op that stands in the model itself
            root, _, op = part.rpartition("/")
            return (op,) if root and root == self._root else ()
        runs = [
            "/".join(path[start:end])
            for start in range(len(path))
            for end in range(len(path), start, -1)
            if (start, end) != (0, len(path))
        ]
        whole = "/".join(path)
        return (whole, f"{whole}/{part.rpartition('/')[2]}", *runs)

    def _written(self, scope: str) -> str:
        found = _TRACED.match(scope) if self._traced else None
        return found.group(1) if found else scope


def parts(name: str) -> tuple[str, ...]:
    """Return the names that a tensor's name joins, each once; the name itself where it joins none."""
    return tuple(dict.fromkeys(part for part in name.split(";") if part))
