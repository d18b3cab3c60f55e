"""What the user reads of a build: a line for each step that was done, and the lines at its end."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from quantbuild.watcher import Watcher

if TYPE_CHECKING:
    from quantbuild.outcome import Outcome
    from quantbuild.progress import Display
    from quantbuild.session import Ending

REPORT_PAGE = "build/report/index.html"
MOST_REASONS_TOLD = 2
LONG_SECONDS = 10.0
"""From here on a step's start is worth a line where no display shows it."""
TOLD_COUNTS = ("executed", "restored", "up_to_date", "failed")


class Terminal(Watcher):
    """Tells the user what a build does: a line for each step that was done, and a display where there is a terminal."""

    def __init__(self, line: Callable[[str], None], display: Display | None) -> None:
        self._line = line
        self._display = display
        self._begun: set[str] = set()

    def planned(self, steps: Collection[str], usual_seconds: Callable[[str], float | None]) -> None:
        """Give the display its total, and what its estimate is made of."""
        if self._display is not None:
            self._display.planned(steps, usual_seconds)

    def started(self, step: str, usual_seconds: float | None) -> None:
        """Show what runs; without a display say of a long step how long it took last time, where that is known."""
        if self._display is not None:
            self._display.started(step, usual_seconds)
        elif step not in self._begun and usual_seconds is not None and usual_seconds >= LONG_SECONDS:
            from quantbuild.progress import duration

            self._begun.add(step)
            self._line(f"  {step}  begun; it took {duration(usual_seconds)} last time")

    def paused(self, step: str) -> None:
        """Show that it runs no more."""
        if self._display is not None:
            self._display.paused(step)

    def progressed(self, step: str, done: int, total: int) -> None:
        """Show how far it is."""
        if self._display is not None:
            self._display.progressed(step, done, total)

    def closed(self, outcome: Outcome) -> None:
        """Say what became of a step that was not up to date."""
        if self._display is not None:
            self._display.closed(outcome.step, outcome.seconds if outcome.status == "executed" else None)
        if outcome.status == "restored":
            self._line(f"  {outcome.step}  restored from the cache")
        elif outcome.status == "executed":
            self._line(f"  {outcome.step}  {outcome.seconds:.1f} s  ({_told(outcome.reasons)})")
        elif not outcome.done:
            log = f"; log: {outcome.log}" if outcome.log else ""
            status = {"failed": "failed: ", "not_measured": "not measured: "}.get(outcome.status, "")
            self._line(f"  {outcome.step}  {status}{outcome.message}{log}")
        if outcome.status in ("executed", "restored"):
            for warning in _warnings(outcome):
                self._line(f"    {warning}")

    def warned(self, text: str) -> None:
        """Say it."""
        self._line(text)


def _warnings(outcome: Outcome) -> list[str]:
    """Return what the step's lint found, a line each; what is only worth knowing is on the page."""
    found = [] if outcome.result is None else outcome.result.values.get("lint", [])
    return [f"{each['severity']}: {each['message']} [{each['rule']}]" for each in found if each["severity"] != "info"]


def ending_lines(ending: Ending) -> Iterator[str]:
    """Yield what is said when a run is complete; the counts come last."""
    for gate in ending.undecided_gates:
        yield f"gate undecided: {gate['model']}/{gate['variant']}: {gate['message']}"
    for gate in ending.failed_gates:
        yield f"gate failed: {gate['model']}/{gate['variant']}: {gate['message']}"
    if ending.reported:
        yield f"report: {REPORT_PAGE}"
    counts = (f"{ending.counts[name]} {name.replace('_', ' ')}" for name in TOLD_COUNTS)
    yield f"quantbuild: {', '.join(counts)}"


def _told(reasons: Sequence[str]) -> str:
    """Return the first few reasons; `quantbuild explain` and build/last_run.json hold them all."""
    more = len(reasons) - MOST_REASONS_TOLD
    told = "; ".join(reasons[:MOST_REASONS_TOLD])
    return f"{told}; and {more} more" if more > 0 else told
