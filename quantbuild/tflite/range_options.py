"""The range methods as a manifest names them: their options and defaults. Plain data, for the parent process too.

The formulas are in ``sample_ranges.py``, ``histogram_ranges.py`` and ``entropy_ranges.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta, Struct

Name: TypeAlias = Literal[
    "minmax", "sample_mean", "median", "quantile", "moving_average", "percentile", "mse", "kl"
]  # fmt: skip
"""A method with its default options."""


class _Method(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="method"):
    """What the methods have in common: the key ``method`` names them."""


class MinMax(_Method, frozen=True, tag="minmax"):
    """The smallest and largest value of all calibration samples: nothing is clipped."""


class SampleMean(_Method, frozen=True, tag="sample_mean"):
    """The mean of the samples' own minima, and of their own maxima."""


class Median(_Method, frozen=True, tag="median"):
    """The median of the samples' own minima, and of their own maxima: ``quantile`` at 0.5."""


class Quantile(_Method, frozen=True, tag="quantile"):
    """A quantile of the samples' own maxima, and the opposite one of their own minima."""

    quantile: Annotated[
        float, Meta(ge=0.5, le=1, description="q of the samples' maxima and 1 − q of their minima; 1 is minmax.")
    ] = 0.9


class MovingAverage(_Method, frozen=True, tag="moving_average"):
    """The exponential moving average of the samples' own minima and maxima; depends on the samples' order."""

    momentum: Annotated[
        float, Meta(ge=0, lt=1, description="Weight of what was averaged before, against each further sample.")
    ] = 0.95


class Percentile(_Method, frozen=True, tag="percentile"):
    """A percentile of all values, and the opposite one."""

    percentile: Annotated[
        float, Meta(gt=50, le=100, description="Of all values, this part lies below the upper end; 100 is minmax.")
    ] = 99.99


class MeanSquaredError(_Method, frozen=True, tag="mse"):
    """The range with the smallest squared error of all values, rounded and clipped."""


class Entropy(_Method, frozen=True, tag="kl"):
    """The range whose quantized distribution diverges least (Kullback-Leibler) from the values' own."""

    bins: Annotated[
        Literal[512, 1024, 2048], Meta(description="Bins of the histogram that the divergence is computed from.")
    ] = 2048


Method: TypeAlias = MinMax | SampleMean | Quantile | MovingAverage | Percentile | MeanSquaredError | Entropy
"""A method in its one normal form."""

Table: TypeAlias = Method | Median
"""A method as a table, defaults filled in."""

Choice: TypeAlias = Annotated[
    Name | Table,
    Meta(
        extra={
            "words": ", ".join(f'"{name}"' for name in get_args(Name)) + ", or a table with method and its options",
            "known": get_args(Name),
        }
    ),
]
"""What a manifest may say: a name, or a table with `method` and that method's options."""


DEFAULT_CANDIDATES: tuple[Choice, ...] = ("minmax", "sample_mean", Quantile(quantile=0.75))
"""What `auto` tries where a manifest does not say: all follow from the statistics. Measured in docs/quality.md."""


class Auto(_Method, frozen=True, tag="auto"):
    """Every candidate is tried, and the one with the highest SQNR on the selection samples is taken."""

    candidates: Annotated[tuple[Choice, ...], Meta(min_length=1, description="The methods to try.")] = (
        DEFAULT_CANDIDATES
    )


AutoChoice: TypeAlias = Annotated[
    Literal["auto", "minmax", "sample_mean", "median", "quantile", "moving_average", "percentile", "mse", "kl"]
    | Table
    | Auto,
    Meta(
        extra={
            "words": ", ".join(f'"{name}"' for name in ("auto", *get_args(Name)))
            + ", or a table with method and its options",
            "known": ("auto", *get_args(Name)),
        }
    ),
]
"""What a manifest may say where the choice may be left to measurement."""


def is_auto(choice: AutoChoice) -> bool:
    """Return whether the choice is left to measurement."""
    return choice == "auto" or isinstance(choice, Auto)


def settled(choice: AutoChoice) -> Choice:
    """Return a choice that is left to no measurement: what one artifact is made by."""
    assert choice != "auto", "auto is settled by a driver"
    assert not isinstance(choice, Auto), "auto is settled by a driver"
    return choice


def canonical_auto(choice: AutoChoice) -> AutoChoice:
    """Return what a key is made of, as `canonical` does; auto with its default candidates is its name alone."""
    if choice != "auto" and not isinstance(choice, Auto):
        return canonical(choice)
    given = choice if isinstance(choice, Auto) else Auto()
    candidates = tuple(dict.fromkeys(map(canonical, given.candidates)))
    return "auto" if candidates == Auto().candidates else Auto(candidates=candidates)


def canonical(choice: Choice) -> Choice:
    """Return what a key is made of, the same for equal meaning: a table with every default filled in.

    A method that has no options is its name alone.
    """
    method = normalize(choice)
    return method if method.__struct_fields__ else msgspec.convert(method.__struct_config__.tag, Name)


def normalize(choice: Choice) -> Method:
    """Return the method with its defaults filled in.

    A name is its table without options; median is quantile 0.5; quantile 1 and percentile 100 are minmax.
    Raises msgspec.ValidationError for an unknown name.
    """
    method = msgspec.convert({"method": choice}, Table) if isinstance(choice, str) else choice
    if isinstance(method, Median):
        return Quantile(quantile=0.5)
    whole = (isinstance(method, Quantile) and method.quantile == 1) or (
        isinstance(method, Percentile) and method.percentile == 100
    )
    return MinMax() if whole else method


def needs_histograms(choice: AutoChoice) -> bool:
    """Return whether the method (of auto, any candidate) reads histograms, a second pass, beside the statistics."""
    if choice == "auto" or isinstance(choice, Auto):
        return isinstance(choice, Auto) and any(map(needs_histograms, choice.candidates))
    return isinstance(normalize(choice), Percentile | MeanSquaredError | Entropy)


def words(choice: Choice) -> str:
    """Return the method for people: ``minmax``, ``percentile 99.99``."""
    fields = msgspec.to_builtins(normalize(choice))
    return " ".join([fields.pop("method"), *(f"{value:.10g}" for value in fields.values())])
