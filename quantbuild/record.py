"""The record beside each artifact: the keyed, deterministic result apart from the facts of one run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantbuild import aside

RECORD_SCHEMA = 1
PROVISIONAL = "provisional"
"""The value that says why a result stands for one build alone."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One file that a step made: path relative to the root, content digest, size in bytes."""

    path: str
    sha256: str
    size_bytes: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a step made and the key it was made under. Holds no time, place or duration."""

    key: str
    preimage: dict[str, Any]
    outputs: dict[str, Output]
    values: dict[str, Any]

    @property
    def provisional(self) -> str | None:
        """Why it stands for one build alone, as a driver says it; None where it stands as long as its key does."""
        found: str | None = self.values.get(PROVISIONAL)
        return found


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a step was not done, in one line, and where its log is (relative to the root)."""

    message: str
    log: str | None = None
    unreachable: bool = False
    """Whether it was not done because a device that is not required did not answer."""


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """When, how long and why a step last ran. Enters no key and no deterministic output."""

    started: str
    seconds: float
    reasons: tuple[str, ...]
    worker: str
    peak_bytes: int | None = None
    """The most memory that the worker held; None where the system does not tell, and where no worker did the step."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A step's outcome as kept on disk; exactly one of `result` and `failure` is set."""

    schema: int
    step: str
    result: Result | None
    failure: Failure | None
    run: RunFacts

    @property
    def usual_seconds(self) -> float | None:
        """What the step took when it was last done here; None where it failed, or was restored and not done."""
        return self.run.seconds if self.result is not None and self.run.seconds > 0 else None


_decoder = msgspec.json.Decoder(Record)


def read_record(path: str | Path) -> Record | None:
    """Return the record at `path`; None where there is none or it is not a record of this schema.

    A damaged record counts as none: the step is then done again, which is always right.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - the hot path of a null build
            record = _decoder.decode(file.read())
    except (
        FileNotFoundError,
        NotADirectoryError,
        ValueError,
    ):  # of a text that is no UTF-8 msgspec raises no DecodeError
        return None
    return record if record.schema == RECORD_SCHEMA else None


def write_record(path: Path, record: Record) -> None:
    """Write `record` aside and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(record, order="sorted"), indent=1)
    aside.replace(path, encoded + b"\n")
