"""Who is told what a build does: the terminal, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantbuild.outcome import Outcome


class Watcher:
    """Hears of everything and says nothing; the shell's watcher speaks. Called from any thread."""

    def planned(self, steps: Collection[str], usual_seconds: Callable[[str], float | None]) -> None:
        """The build proper begins, and these steps are to be settled.

        `usual_seconds` tells what one of them took when it was last done here, None where that is not known.
        """

    def started(self, step: str, usual_seconds: float | None) -> None:
        """A worker has begun with `step`, or goes on with it: the look at what it made is a worker's too.

        `usual_seconds` is what it took when it was last done here, None where that is not known.
        """

    def paused(self, step: str) -> None:
        """The worker is done with `step`: it is about to be closed, or waits for its next worker."""

    def progressed(self, step: str, done: int, total: int) -> None:
        """`done` of the `total` samples of `step` are done."""

    def closed(self, outcome: Outcome) -> None:
        """A step is settled."""

    def warned(self, text: str) -> None:
        """Something went wrong that the build goes on without."""
