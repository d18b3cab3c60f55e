"""What a terminal shows while a build runs: steps done, what runs now, samples per second, time left (by rich).

rich is imported when the first step starts: a build with nothing to do never pays for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

REFRESH_PER_SECOND = 4
# Before so much of the work is done, an estimate says nothing.
LEAST_DONE_FOR_ESTIMATE = 0.5


class Display:
    """A few lines at the foot of the terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._usual: dict[str, float | None] = {}
        self._lock = threading.RLock()
        self._running: dict[str, float] = {}
        self._samples: dict[str, tuple[int, int]] = {}
        self._closed: set[str] = set()
        self._total = 0
        self._begun = time.monotonic()
        self._live: Live | None = None

    def planned(self, steps: int) -> None:
        """Note how many steps the run has to settle."""
        self._total = steps

    def started(self, step: str, usual_seconds: float | None) -> None:
        """Show that `step` runs."""
        with self._lock:
            self._usual[step] = usual_seconds
            self._running.setdefault(step, time.monotonic())
            self._start()

    def progressed(self, step: str, done: int, total: int) -> None:
        """Show how far `step` is."""
        with self._lock:
            self._samples[step] = (done, total)

    def closed(self, step: str) -> None:
        """Take a settled step away."""
        with self._lock:
            self._running.pop(step, None)
            self._samples.pop(step, None)
            self._closed.add(step)

    def line(self, text: str) -> bool:
        """Print a line above the display; False where nothing is displayed, so that the caller prints it."""
        with self._lock:
            if self._live is None:
                return False
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return True

    def stop(self) -> None:
        """Take the display away."""
        with self._lock:
            if self._live is not None:
                self._live.stop()
                self._live = None

    def _start(self) -> None:
        if self._live is None:
            from rich.console import Console
            from rich.live import Live

            console = Console(file=self._stream)
            self._live = Live(self, console=console, refresh_per_second=REFRESH_PER_SECOND, transient=True)
            self._live.start()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        # Called by rich's drawing thread under rich's own lock, which a thread that prints a line waits for while it
        # holds ours: taking ours here would be a deadlock. `lines` works on copies instead.
        for text in self.lines(time.monotonic()):
            yield Text(text, no_wrap=True, overflow="ellipsis")

    def lines(self, now: float) -> list[str]:
        """Return the lines to show at the time `now` (of the monotonic clock, seconds)."""
        head = f"{len(self._closed)} of {max(self._total, len(self._closed))} steps done"
        left = self._seconds_left(now)
        if left is not None:
            head += f", about {duration(left)} left"
        shown = [head]
        for step, since in list(self._running.items()):
            text = f"  {step}  {duration(now - since)}"
            done, total = self._samples.get(step, (0, 0))
            if done and now > since:
                text += f"  {done} of {total} samples, {done / (now - since):.0f} a second"
            shown.append(text)
        return shown

    def _seconds_left(self, now: float) -> float | None:
        """Estimate from what the running steps took when they last ran, else from the steps done so far."""
        running = dict(self._running)  # a copy: other threads add and remove steps meanwhile
        known = {step: self._usual.get(step) for step in running}
        done = len(self._closed)
        if self._total and done / self._total >= LEAST_DONE_FOR_ESTIMATE:
            return (now - self._begun) / done * max(self._total - done, 0)
        return remaining(known, running, now) if self._total - done <= len(running) else None


def remaining(known: Mapping[str, float | None], since: Mapping[str, float], now: float) -> float | None:
    """Return the seconds that the slowest running step still needs by what it took last, None where one is unknown."""
    left = [seconds - (now - since[step]) for step, seconds in known.items() if seconds is not None]
    return max(0.0, *left) if len(left) == len(known) and left else None


def duration(seconds: float) -> str:
    """Return a duration in the words of a clock: 8 s, 2 min 05 s, 1 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
