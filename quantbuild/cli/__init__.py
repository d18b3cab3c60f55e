"""The command line `quantbuild`: one module for each command, which adds itself to the parser and performs it."""

from __future__ import annotations

from quantbuild.cli.command_line import main

__all__ = ["main"]
