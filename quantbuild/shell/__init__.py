"""The doit shell: tasks, order, selection and parallelism by doit; correctness by us. Only this package imports doit.

A task never fails in doit's eyes: its steps' outcomes are data, so that one failed step stops only what needs it, and
the exit code is settled when the run is complete. doit's database decides nothing.
"""

from __future__ import annotations

from quantbuild.shell.namespace import tasks

__all__ = ["tasks"]
