"""What is kept of a set of samples for the lint: a few numbers for each input, and a digest of each sample."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from quantbuild.lint.findings import Finding

SCHEMA = 1

Kind = Literal["image_nhwc", "image_nchw", "numbers", "integers"]


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of an input whose neighbours mean something; pixels are looked at in the picture's middle."""

    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    first_minus_last: float
    """Mean over the samples of the first channel's mean less the last one's; 0 with one channel."""
    first_minus_last_std: float
    """Its standard deviation over the samples."""
    down: float
    """Correlation of a pixel with the one below it, over all samples; 0 where all is constant."""
    across: float
    """The same with the one to the right."""


class InputFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One input over the samples looked at; figures are of all its values, in its own unit, None where it has none."""

    name: str
    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    mean: float | None
    std: float | None
    low: float | None
    high: float | None
    column_mean: tuple[float, ...]
    """Of the last axis, at most `fingerprint.COLUMNS` of its entries, evenly spread; empty for an image."""
    column_std: tuple[float, ...]
    constant: tuple[int, ...]
    """Numbers of the samples with one value throughout, of all samples."""
    zero: tuple[int, ...]
    """Numbers of those with nothing but zeros."""
    from_uniform: float | None
    """Largest distance of the values' distribution from the uniform one over their range (Kolmogorov, Smirnov)."""
    from_normal: float | None
    """The same from the normal one with their mean and standard deviation."""
    image: Image | None


class SetFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A set of samples as the model was fed it."""

    dataset: str
    """Name and path, as messages begin."""
    samples: int
    """How many it was fed; of the others, held back, there are digests alone."""
    looked_at: int
    """How many of them the figures are of; constants are of all."""
    inputs: tuple[InputFacts, ...]
    numbers: tuple[int, ...]
    """Each sample's number in the dataset, those held back included."""
    digests: tuple[str, ...]
    """Of each sample's arrays, 16 hexadecimal digits."""


class SetFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a step writes beside its result: the facts, and what it found itself."""

    schema: int
    facts: SetFacts
    findings: tuple[Finding, ...] = ()


def write(path: str, facts: SetFacts, findings: list[Finding]) -> None:
    """Write both as JSON."""
    content = SetFile(schema=SCHEMA, facts=facts, findings=tuple(findings))
    Path(path).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n")


def read(path: str) -> SetFile:
    """Read what `write` wrote."""
    return msgspec.json.decode(Path(path).read_bytes(), type=SetFile)
