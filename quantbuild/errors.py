"""Every error a user can meet, with the exit code it leads to."""

from __future__ import annotations

import errno

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


class QuantbuildError(Exception):
    """A user's error: one clear message (place, problem, remedy), no traceback."""

    exit_code = EXIT_USAGE


class UsageError(QuantbuildError):
    """The command line or the workspace cannot be used as given."""


class ManifestErrors(QuantbuildError):  # noqa: N818 - it holds all of them
    """Every problem found in the manifests, one line each: ``FILE:LINE: key: problem; remedy``."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        super().__init__("\n".join(lines))


class StepError(QuantbuildError):
    """A step cannot be done for a reason in the user's model, data, machine or tools."""

    exit_code = EXIT_FAILED


class UnreachableError(StepError):
    """A device cannot be reached: a failure where the manifest requires it, else its figures are not measured."""


class MachineError(StepError):
    """The machine failed the step and not its inputs: time, memory or room ran out. Done again, it may succeed."""


class WorkerDied(StepError):  # noqa: N818 - a cause of failure, told as any other
    """The process that did a step ended before it answered."""


class WorkerKilled(WorkerDied, MachineError):  # noqa: N818 - as above
    """Its process was killed from outside, as a system without memory does."""


_REMEDIES = {
    errno.ENOSPC: "make room and build again",
    errno.EDQUOT: "make room and build again",
    errno.EFBIG: "raise the limit on the size of a file and build again",
}


def told(error: OSError) -> str:
    """Return what the system refused in one line, with the file, and the remedy where there is but one."""
    text = error.strerror or " ".join(str(error).split())
    place = f": {error.filename}" if error.filename is not None else ""
    remedy = _REMEDIES.get(error.errno) if error.errno is not None else None
    return f"{text}{place}; {remedy}" if remedy else f"{text}{place}"
