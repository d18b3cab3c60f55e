"""Scheme: int8 with the fewest operations at higher precision that meet an accuracy limit, found by trials."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from quantbuild.schemes import int8

TOOLS = int8.TOOLS
WORKER = int8.WORKER
DEVICE_KEY = ("search", "device")
MAY_EQUALIZE = True
"""Whether the search may take an equalized model; the artifact tells whether it did."""


class Search(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked for, and how long."""

    max_accuracy_loss: Annotated[float, Meta(ge=0)]
    """Largest loss against float32, absolute, in the metric's unit; judged on the selection samples, and confirmed on
    the evaluation set at most three times."""
    trials: Annotated[int, Meta(ge=1)] = 16
    """Artifacts that may be judged in one search, whether they are made for it or known from an earlier one."""
    objective: Literal["size", "latency"] = "size"
    """What is least of those that meet the limit."""
    device: str | None = None
    """The device whose latencies count, for "latency"."""

    def __post_init__(self) -> None:
        """Refuse an objective without what it is measured on, and a device that nothing is measured on."""
        if self.objective == "latency" and self.device is None:
            raise ValueError('device: objective = "latency" needs one; add device = NAME')
        if self.objective == "size" and self.device is not None:
            raise ValueError('device: objective = "size" measures none; remove it or write objective = "latency"')


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A variant's own keys."""

    search: Search
    """The limit, and how it is looked for."""
    io: Literal["int8", "uint8", "float32"] = "float32"
    """What the model's float inputs and outputs become."""
    islands: Literal["float", "int16"] = "float"
    """The precision of what is not int8."""


def needs(options: Options) -> frozenset[str]:
    """Return which inputs it needs beside the float model."""
    return frozenset({"statistics", "calibration", "selection", "evaluation"})


def device(options: Options) -> str | None:
    """Return the device whose latencies decide; None where none do."""
    return options.search.device


def driver(options: Options) -> str:
    """Return the driver that makes it."""
    return "mixed"
