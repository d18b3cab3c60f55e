"""What a build came to, for its last lines and files: counts, gates, rows, the verdicts at their lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from quantbuild import closing, sarif
from quantbuild.outcome import Outcomes, Status


class Summary:
    """Reads a build's outcomes and those of its trials, which may go on growing.

    `manifests` are path and sha256 of each.
    """

    def __init__(
        self, root: Path, manifests: Sequence[tuple[str, str]], *, outcomes: Outcomes, trials: Outcomes
    ) -> None:
        self._root = root
        self._manifests = manifests
        self._outcomes = outcomes
        self._trials = trials

    def counts(self) -> dict[str, int]:
        """Return how many steps came to what, by each status that there is."""
        counts: dict[str, int] = dict.fromkeys(get_args(Status), 0)
        for outcome in self._outcomes.values():
            counts[outcome.status] += 1
        return counts

    def gates(self, verdict: Literal["failed", "undecided"]) -> tuple[dict[str, Any], ...]:
        """Return the gates that this build's check found so, none where it was not asked for."""
        outcome = self._outcomes.get("check")
        return () if outcome is None or outcome.result is None else tuple(outcome.result.values[verdict])

    def write_sarif(self) -> None:
        """Bring results.sarif in line with the check, where this build asked for it; without verdicts there is none.

        Raises:
            OSError: it could not be written.
        """
        outcome = self._outcomes.get("check")
        if outcome is not None and outcome.done:
            verdicts = msgspec.json.decode((self._root / closing.CHECK_PATH).read_bytes())
            sarif.write(self._root, closing.SARIF_PATH, verdicts, self._manifests)
        elif outcome is not None:
            (self._root / closing.SARIF_PATH).unlink(missing_ok=True)

    def rows(self) -> list[dict[str, Any]]:
        """Return each step's fate as build/last_run.json holds it, sorted by id."""
        return _rows(self._outcomes)

    def trial_rows(self) -> list[dict[str, Any]]:
        """Return the same of the steps that drivers had made."""
        return _rows(self._trials)


def _rows(outcomes: Outcomes) -> list[dict[str, Any]]:
    return [
        {
            "id": outcome.step,
            "status": outcome.status,
            "reasons": outcome.reasons if outcome.status != "up_to_date" else (),
            "message": outcome.message,
            "log": outcome.log,
            "seconds": round(outcome.seconds, 3),
        }
        for outcome in sorted(outcomes.values(), key=lambda outcome: outcome.step)
    ]
