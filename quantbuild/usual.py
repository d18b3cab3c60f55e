"""What steps took when they were last done here, by their records: for the display, and for what fits into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from quantbuild.execution import worker_kind
from quantbuild.plan import record_path
from quantbuild.record import Record, read_record
from quantbuild.step import Step
from quantbuild.workers import Kind


class Usual:
    """What each planned step usually takes."""

    def __init__(self, root: Path, steps: Mapping[str, Step]) -> None:
        self._root = root
        self._steps = steps

    def seconds(self, step_id: str) -> float | None:
        """Return what a step took when it was last done here; None where that is not known, as of the closing steps."""
        step = self._steps.get(step_id)
        return usual_of(self._record(step))[0] if step is not None else None

    def peaks(self, action: str, kind: Kind) -> Iterable[int]:
        """Yield the peaks, in bytes, that records hold of the steps of an action, done by a kind of worker."""
        for step in self._steps.values():
            if step.action == action and worker_kind(step) == kind:
                peak_bytes = usual_of(self._record(step))[1]
                if peak_bytes is not None:
                    yield peak_bytes

    def _record(self, step: Step) -> Record | None:
        return read_record(self._root / record_path(step))


def usual_of(record: Record | None) -> tuple[float | None, int | None]:
    """Return the seconds and the bytes that a step took when it was last done here, None where that is not known."""
    return (None, None) if record is None else (record.usual_seconds, record.run.peak_bytes)
