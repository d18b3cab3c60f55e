"""What a terminal shows while a build runs: steps done, what runs now, samples per second, time left (by rich).

rich is imported when the first step starts: a build with nothing to do never pays for it.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple, TextIO

from quantbuild.machine import processors

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live

REFRESH_SECONDS = 0.25
# There is one of each, they take about a second, and nothing before them tells how long: an estimate leaves them out.
CLOSING = ("check", "dist", "report")
BENCHMARK = "benchmark"


class Samples(NamedTuple):
    """How far a step's loop over samples is, and where and when it was first heard of (monotonic seconds)."""

    first: int
    first_at: float
    done: int
    done_at: float
    total: int

    @property
    def rate(self) -> float | None:
        """Samples per second since the loop was first heard of, imports and loading left out; None at the start."""
        seconds = self.done_at - self.first_at
        return (self.done - self.first) / seconds if seconds > 0 and self.done > self.first else None


class Display:
    """A few lines at the foot of the terminal.

    One lock guards all of it, rich included, and its own thread draws: rich's would take rich's lock first and then
    this one, the reverse of a printing thread, and the two would wait for each other for ever.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.RLock()
        self._open: dict[str, None] = {}
        self._closed: set[str] = set()
        self._earlier: Callable[[str], float | None] = lambda step: None
        self._usual: dict[str, float | None] = {}
        self._took: dict[str, list[float]] = {}
        self._running: dict[str, float] = {}
        self._spent: dict[str, float] = {}
        self._samples: dict[str, Samples] = {}
        self._live: Live | None = None
        self._over = threading.Event()

    def planned(self, steps: Collection[str], usual_seconds: Callable[[str], float | None]) -> None:
        """Note the steps that the run has to settle; `usual_seconds` tells what one took when it was last done here."""
        with self._lock:
            self._open = {step: None for step in steps if step not in self._closed}
            self._earlier = usual_seconds

    def started(self, step: str, usual_seconds: float | None) -> None:
        """Show that `step` runs, or goes on."""
        with self._lock:
            if step in self._closed:  # it was up to date, and is forced
                self._closed.discard(step)
                self._open[step] = None
            self._usual[step] = usual_seconds
            self._running.setdefault(step, self._clock() - self._spent.get(step, 0.0))
            self._start()

    def paused(self, step: str) -> None:
        """Show that no worker is at `step` for now."""
        with self._lock:
            since = self._running.pop(step, None)
            self._samples.pop(step, None)
            if since is not None:
                self._spent[step] = self._clock() - since

    def progressed(self, step: str, done: int, total: int) -> None:
        """Show how far `step` is."""
        now = self._clock()
        with self._lock:
            before = self._samples.get(step)
            if before is None or done < before.done:  # a second loop over the samples counts for itself
                before = Samples(done, now, done, now, total)
            self._samples[step] = before._replace(done=done, done_at=now, total=total)

    def closed(self, step: str, seconds: float | None) -> None:
        """Take a settled step away; `seconds` is what it took where it was executed."""
        with self._lock:
            self._running.pop(step, None)
            self._samples.pop(step, None)
            self._open.pop(step, None)
            self._closed.add(step)
            if seconds is not None:
                self._took.setdefault(_action(step), []).append(seconds)

    def line(self, text: str) -> bool:
        """Print a line above the display; False where nothing is displayed, so that the caller prints it."""
        with self._lock:
            if self._live is None:
                return False
            self._live.console.print(text, soft_wrap=True)
            return True

    def stop(self) -> None:
        """Take the display away for good."""
        with self._lock:
            self._over.set()
            live, self._live = self._live, None
            if live is not None:
                live.stop()

    # Drawing -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._live is not None or self._over.is_set():
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, markup=False, emoji=False, highlight=False)
        # doit puts a stream of its own into sys.stdout and takes it out again: rich must not do that in between.
        self._live = Live(
            self, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        atexit.register(self.stop)  # however the process ends, the cursor is shown again
        threading.Thread(target=self._draw, name="display", daemon=True).start()

    def _draw(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            with self._lock:
                if self._live is None:
                    return
                try:
                    self._live.refresh()
                except OSError:
                    return  # the terminal is gone; the build's own lines will say so, or SIGHUP ends it

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        for text in self.lines():
            yield Text(text, no_wrap=True, overflow="ellipsis")

    def lines(self) -> list[str]:
        """Return the lines to show now."""
        with self._lock:
            now = self._clock()
            head = f"{len(self._closed)} of {len(self._closed) + len(self._open)} steps done"
            left = self._seconds_left(now)
            if left is not None and left >= 1:
                head += f", about {duration(left)} left"
            return [head, *(self._line_of(step, now - since) for step, since in self._running.items())]

    def _line_of(self, step: str, seconds: float) -> str:
        text = f"  {step}  {duration(seconds)}"
        samples = self._samples.get(step)
        if samples is not None and samples.rate is not None:
            text += f"  {samples.done} of {samples.total} samples, {_rate(samples.rate)} a second"
        return text

    # Time left -----------------------------------------------------------------------------------------------------

    def _seconds_left(self, now: float) -> float | None:
        """Return how long the open steps will take, None where there is one of which nothing is known.

        Steps share the processors; benchmarks come after, one at a time.
        """
        shared, alone = [0.0], 0.0
        for step in self._open:
            seconds = self._step_left(step, now)
            if seconds is None:
                return None
            if _action(step) == BENCHMARK:
                alone += seconds
            else:
                shared.append(seconds)
        return max(*shared, sum(shared) / processors()) + alone

    def _step_left(self, step: str, now: float) -> float | None:
        expected = self._expected(step)
        if expected is None:
            samples = self._samples.get(step)
            rate = samples.rate if samples is not None else None
            return (samples.total - samples.done) / rate if samples is not None and rate is not None else None
        since = self._running.get(step)
        return max(0.0, expected - (now - since if since is not None else self._spent.get(step, 0.0)))

    def _expected(self, step: str) -> float | None:
        """Return what a step took last time, else what such steps took in this run, None where neither is known."""
        if step not in self._usual:
            self._usual[step] = self._earlier(step)
        usual = self._usual[step]
        if usual is not None:
            return usual
        took = self._took.get(_action(step))
        if took:
            return sum(took) / len(took)
        return 0.0 if step in CLOSING else None


def duration(seconds: float) -> str:
    """Return a duration in the words of a clock: 8 s, 2 min 05 s, 1 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _rate(per_second: float) -> str:
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.2g}"


def _action(step: str) -> str:
    return step.partition(":")[0]
