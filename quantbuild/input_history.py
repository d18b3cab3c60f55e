"""How a step's inputs differ from those it was last made from: by path, and of a folder file by file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from quantbuild.digests import Digests
from quantbuild.freshness import InputChange, Reason, input_change
from quantbuild.record import Result
from quantbuild.step import Step
from quantbuild.trees import Trees, file_changes, parse


class InputHistory:
    """The inputs of one build's steps, now and before."""

    def __init__(self, digests: Digests, trees: Trees) -> None:
        self._digests = digests
        self._trees = trees

    def change(self, step: Step) -> InputChange:
        """Return what says how an input of `step` changed: by its path, and of a folder file by file."""

        def told(role: str, old: str | None, new: str | None) -> Iterable[Reason]:
            given = step.inputs.get(role)
            path = role if given is None else given.path
            yield from input_change(path, old, new)
            listing = self._digests.tree_listing(path) if given is not None and old is not None else None
            before = self._trees.listing(old) if listing is not None and old is not None else None
            if listing is not None and before is not None:
                yield from file_changes(path, before, parse(listing))

        return told

    def keep(self, step: Step, result: Result) -> None:
        """Keep what the folders among a step's inputs held, for whoever asks later what changed."""
        for role, given in step.inputs.items():
            listing = self._digests.tree_listing(given.path) if given.step is None else None
            digest = self._digests.digest(given.path) if listing is not None else None
            if listing is not None and digest is not None and digest.sha256 == result.preimage["inputs"][role]:
                with contextlib.suppress(OSError):
                    self._trees.keep(digest.sha256, listing)
