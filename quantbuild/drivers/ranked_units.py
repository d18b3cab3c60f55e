"""The activations that could leave int8, the noisiest first, as the rank step lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from quantbuild.drivers import candidates
from quantbuild.drivers.driven import Make, made
from quantbuild.drivers.int8_throughout import Throughout
from quantbuild.drivers.search import Ranking
from quantbuild.drivers.trials import Trials


class Unit(NamedTuple):
    """One line of the ranking: the activation tensor, its expected noise, the nodes that keep it from int8."""

    tensor: str
    noise: float
    nodes: tuple[str, ...]
    cost_bytes: int


def ranked(base: Throughout, trials: Trials, make: Make, root: Path) -> list[Unit]:
    """Rank the activations of what `base` is made from, by its ranges. Raises StepError."""
    options = base.best.candidate.options
    label = "equalized" if options.get("equalize") else "float32"
    step = trials.ranking(
        base.given.inputs, {"ranges": options["ranges"]}, f"{label}-{candidates.method_of(options['ranges'])}"
    )
    made(make([step])[0])
    listed = msgspec.json.decode((root / step.outputs["ranking"]).read_bytes())
    return [Unit(each["tensor"], each["noise"], tuple(each["nodes"]), each["cost_bytes"]) for each in listed["units"]]


def ranking(units: Sequence[Unit]) -> Ranking:
    """Return units as a search takes them."""
    return Ranking([unit.nodes for unit in units], nodes=len({node for unit in units for node in unit.nodes}))
