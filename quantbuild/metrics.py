"""What a model's outputs are worth: one score per sample, and how near a variant is to float32."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.declared_files import code_path, import_function, only_declared
from quantbuild.errors import StepError

RELATIVE = ("agreement", "sqnr")
"""Metrics that compare with float32 and need no label."""


class Outputs(dict[str, NDArray[Any]]):
    """A sample's outputs by name, each with its batch axis; a single one also reads as the array itself.

    So a metric for a one-output model may write ``outputs[0]`` or ``numpy.argmax(outputs)``.
    """

    def __missing__(self, key: Any) -> Any:
        if isinstance(key, str):
            raise KeyError(key)
        return self.__array__()[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return np.asarray(sole(self), dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the manifest. The figure is the mean of `score` (outputs, label) over the samples.

    `score` is None for the two that compare with float32 instead.
    """

    name: str
    higher_is_better: bool
    score: Callable[[Outputs, Any], float] | None

    @property
    def needs_labels(self) -> bool:
        """Whether it cannot be computed without labels; a user's own function sees None instead."""
        return self.score is not None and ":" not in self.name


def find(name: str, root: Path) -> Metric:
    """Return the metric of that name, or the user's ``package.module:function`` under `root`. Raises StepError."""
    if ":" in name:
        return _custom(name, root)
    if name in RELATIVE:
        return Metric(name=name, higher_is_better=True, score=None)
    scores = {"top1": _top(1), "top5": _top(5), "mae": _mean_absolute, "mse": _mean_squared}
    if name not in scores:
        known = ", ".join([*scores, *RELATIVE])
        raise StepError(f'metric {name}: unknown; it is one of {known}, or "package.module:function"')
    return Metric(name=name, higher_is_better=name.startswith("top"), score=scores[name])


def sole(outputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the array of a single output. Raises StepError where there are several."""
    if len(outputs) != 1:
        raise StepError(
            f"the metric reads one output, the model has {', '.join(outputs)}; "
            'write a metric "package.module:function" that picks'
        )
    return next(iter(outputs.values()))


def rank(scores: NDArray[Any], label: int) -> int:
    """Return how many classes come before `label`: those that score more and, of equal ones, lower numbers.

    Integer outputs tie often; counting by class number makes top-k the same everywhere and never
    counts one sample for several classes.
    """
    return int(np.count_nonzero(scores > scores[label]) + np.count_nonzero(scores[:label] == scores[label]))


def agreement(first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]]) -> float | None:
    """Return the share of positions where both choose the same class, over every output with classes.

    Classes are the last axis where it is longer than 1: one position for a classifier [1, classes]
    (so 0.0 or 1.0), many for a map. None where no output has classes, unless all are equal.
    """
    same = total = 0
    for name, values in first.items():
        if has_classes(values):
            equal = values.argmax(axis=-1) == second[name].argmax(axis=-1)
            same, total = same + int(np.count_nonzero(equal)), total + equal.size
    if total:
        return same / total
    return 1.0 if all(np.array_equal(values, second[name]) for name, values in first.items()) else None


def has_classes(values: NDArray[Any]) -> bool:
    """Whether the last axis of an output holds more than one number."""
    return values.ndim > 0 and values.shape[-1] > 1


def powers(reference: NDArray[Any], values: NDArray[Any]) -> tuple[float, float]:
    """Return (signal, noise) power: the sums of reference² and (reference − values)², in float64."""
    exact = reference.astype(np.float64)
    return float((exact**2).sum()), float(((exact - values) ** 2).sum())


def sqnr_db(signal: float, noise: float) -> float | None:
    """Return 10·log10(signal / noise), in dB. None where they are identical. `signal` is not 0 unless `noise` is."""
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise)


def _top(k: int) -> Callable[[Outputs, Any], float]:
    def score(outputs: Outputs, label: Any) -> float:
        classes = sole(outputs).reshape(-1)
        if len(classes) < 2:
            raise StepError(
                f"top{k} needs a score per class, the output has one number; "
                'write a metric "package.module:function" with its threshold'
            )
        return float(rank(classes, _class_number(label, len(classes))) < k)

    return score


def _class_number(label: Any, classes: int) -> int:
    """Return a label as a class number below `classes`. Raises StepError."""
    value = np.asarray(label)
    if value.dtype.kind in "US" and value.ndim == 0:
        raise StepError(f'label "{value}" is a text; number the classes from 0, in the order of the model\'s output')
    if value.ndim != 0 or value.dtype.kind not in "iu":
        raise StepError(f"label is {value.dtype}{list(value.shape)}; give one class number per sample")
    number = int(value)
    if not 0 <= number < classes:
        raise StepError(f"label {number} is no class of an output of {classes}; number classes from 0")
    return number


def _mean_absolute(outputs: Outputs, label: Any) -> float:
    return float(np.abs(_errors(outputs, label)).mean())


def _mean_squared(outputs: Outputs, label: Any) -> float:
    return float((_errors(outputs, label) ** 2).mean())


def _errors(outputs: Outputs, label: Any) -> NDArray[np.float64]:
    """Return output − label, as one flat float64 array."""
    values, target = sole(outputs), np.asarray(label)
    if values.size != target.size or target.dtype.kind not in "fiub":
        raise StepError(
            f"output has shape {list(values.shape)}, the label {target.dtype}{list(target.shape)}; "
            "give one number per output number"
        )
    return values.astype(np.float64).reshape(-1) - target.astype(np.float64).reshape(-1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _custom(name: str, root: Path) -> Metric:
    """Import the user's metric from under the workspace root."""
    function_name = name.partition(":")[2]
    place = f"metric {name}"
    code = code_path(name)

    def guarded() -> AbstractContextManager[None]:
        return only_declared(root, [code], place=place, remedy=f'put what it needs of "{{}}" into {code}')

    with guarded():
        try:
            function = import_function(name, root, place=place)
        except StepError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise StepError(f"{place}: cannot be imported ({_first_line(error)}); see the step's log") from error
    higher_is_better = getattr(function, "higher_is_better", None)
    if not isinstance(higher_is_better, bool):
        raise StepError(
            f"metric {name}: has no attribute higher_is_better; set {function_name}.higher_is_better = True or False"
        )

    def score(outputs: Outputs, label: Any) -> float:
        try:
            with guarded():
                value = float(function(outputs, label))
        except StepError:
            raise
        except Exception as error:
            # The user's code, which may raise anything: its traceback goes to the step's log.
            traceback.print_exc()
            raise StepError(f"metric {name} raised {type(error).__name__}: {error}; see the step's log") from error
        if not math.isfinite(value):
            raise StepError(f"metric {name} returned {value}; return a finite number")
        return value

    return Metric(name=name, higher_is_better=higher_is_better, score=score)
