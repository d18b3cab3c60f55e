"""Writes whole lines to the true standard output, above a display where there is one."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quantbuild.progress import Display


class Printer:
    """Prints from any thread, until it is ended. `display` is None where there is no terminal to show one on."""

    def __init__(self) -> None:
        self.display = _display()
        self._printing = threading.Lock()
        self._ended = False

    def line(self, text: str) -> None:
        """Print a line."""
        # doit replaces sys.stdout while an action runs; the true one is written to, whole lines at a time.
        if not self._ended and self.display is not None and self.display.line(text):
            return
        with self._printing:
            if self._ended:
                return
            assert sys.__stdout__ is not None
            try:
                sys.__stdout__.write(text + "\n")
                sys.__stdout__.flush()
            except OSError:
                # The reader (head, less) has had enough, the log's disk is full, the terminal is gone. The build goes
                # on: what it is for are files and the exit code.
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), sys.__stdout__.fileno())

    def take_display_away(self) -> None:
        """Show no display from here on; lines are printed still."""
        if self.display is not None:
            self.display.stop()

    def end(self) -> None:
        """Print nothing from here on, whoever asks for it."""
        self._ended = True


def _display() -> Display | None:
    """Return a display where the true standard output is a terminal that can move its cursor."""
    stream = sys.__stdout__
    if stream is None or not stream.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return None
    from quantbuild.progress import Display

    return Display(stream)
