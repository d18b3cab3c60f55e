"""How this process answers signals, and writes what the terminal lacks a letter for."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable


def answer_signals(end: Callable[[], None]) -> None:
    """On Ctrl-C and SIGTERM call `end` and end the process: finished steps have their records, that in flight none."""

    def interrupted(number: int, _frame: object) -> None:
        end()
        os.write(2, f"\nquantbuild: interrupted by {signal.Signals(number).name}; finished steps are kept\n".encode())
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)


def print_whatever_the_terminal_knows() -> None:
    """Write what the terminal's encoding lacks (an arrow, a name) as an escape: no line of text may end a build."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
