"""Datasets that a Python function of the user's yields; it reads declared files only."""

from __future__ import annotations

import random
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from quantbuild.datasets.spool import Spool
from quantbuild.declared_files import (
    REFERENCE_PATTERN,
    fixed_part,
    import_function,
    module_file,
    only_declared,
    pattern_problem,
)
from quantbuild.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOOLS = ("numpy",)


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a dataset with ``loader = "python"``."""

    path: Annotated[str, Meta(pattern=REFERENCE_PATTERN, extra={"words": 'a text such as "package.module:function"'})]
    """The function, in a module under the root."""
    inputs: list[str] = []
    """Every file under the root that it reads, other modules included: files, folders, or patterns."""

    def __post_init__(self) -> None:
        """Refuse patterns that name no folder."""
        for pattern in self.inputs:
            problem = pattern_problem(pattern)
            if problem is not None:
                raise ValueError(f"inputs: {problem}")


class PythonSamples:
    """What the function yielded, kept on disk; labels and slices in memory."""

    def __init__(self, samples: Spool, labels: NDArray[Any] | None, slices: list[str] | None) -> None:
        self._samples = samples
        self.labels = labels
        self.slices = slices

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int, /) -> dict[str, NDArray[Any]]:
        return self._samples[index]


def files(options: Options, root: Path) -> list[str]:
    """Return the module's file and what each of `inputs` begins with: ``data/clips/**`` gives ``data/clips``.

    The plan follows from the manifest alone and is not made again when a folder's contents change; a folder as
    an input is digested whole, so an added or removed file is still noticed.
    """
    del root
    return list(dict.fromkeys([module_file(options.path), *(fixed_part(pattern) for pattern in options.inputs)]))


def open_samples(options: Options, root: Path) -> PythonSamples:
    """Run the function to its end and keep what it yields.

    It yields ``(inputs, label)`` or ``(inputs, label, slice)``: inputs are an array with a batch axis of 1, or a
    dict of them by signature input name; a label is None where there is none. The global random numbers of
    ``random`` and ``numpy.random`` are seeded first: every step must see the same samples.

    Raises StepError: it cannot be imported, raises, reads an undeclared file, or yields something else.
    """
    import numpy as np

    place = options.path
    random.seed(0)
    np.random.seed(0)
    samples, labels, slices = Spool(root), [], []
    with only_declared(root, [module_file(options.path), *options.inputs], place=place):
        for number, item in enumerate(_yielded(options, root)):
            inputs, label, name = _parts(f"{place}: sample {number}", item)
            samples.append(inputs)
            labels.append(label)
            slices.append(name)
    samples.finish()
    return PythonSamples(samples, _labels(place, labels), _slices(place, slices))


def _yielded(options: Options, root: Path) -> Iterable[Any]:
    """Import and run the user's function. What it raises becomes a StepError, with its traceback in the log."""
    try:
        yield from import_function(options.path, root, place=options.path)()
    except StepError:
        raise
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())
        raise StepError(f"{options.path} raised {type(error).__name__}: {text}; see the step's log") from error


def _parts(place: str, item: Any) -> tuple[dict[str, NDArray[Any]], Any, str | None]:
    """Return a sample's inputs by name, its label and its slice's name."""
    import numpy as np

    if not isinstance(item, tuple) or len(item) not in (2, 3):
        raise StepError(f"{place}: is {type(item).__name__}, no pair; yield (inputs, label), label None without one")
    inputs, label, *rest = item
    by_name = inputs if isinstance(inputs, dict) else {"": inputs}
    arrays = {str(name): np.asarray(value) for name, value in by_name.items()}
    for name, value in arrays.items():
        which = f"input {name!r}" if name else "its input"
        if value.dtype.kind not in "fiub":
            raise StepError(f"{place}: {which} has dtype {value.dtype}; yield numbers")
        if value.ndim == 0 or value.shape[0] != 1:
            raise StepError(f"{place}: {which} has shape {list(value.shape)}; yield one sample with a batch axis of 1")
    return arrays, label, None if not rest or rest[0] is None else str(rest[0])


def _labels(place: str, labels: list[Any]) -> NDArray[Any] | None:
    import numpy as np

    _check_all_or_none(place, labels, "label")
    if not labels or labels[0] is None:
        return None
    try:
        found = np.array(labels)
    except ValueError as error:
        raise StepError(f"{place}: labels differ in shape; yield one shape") from error
    if found.dtype.kind not in "fiubUS":
        raise StepError(f"{place}: labels are {type(labels[0]).__name__}; yield numbers, texts or arrays of them")
    return found


def _slices(place: str, slices: list[str | None]) -> list[str] | None:
    _check_all_or_none(place, slices, "slice")
    names = [name for name in slices if name is not None]
    return names or None


def _check_all_or_none(place: str, values: list[Any], what: str) -> None:
    absent = [value is None for value in values]
    if any(absent) and not all(absent):
        number = absent.index(True)
        raise StepError(f"{place}: sample {number} has no {what} while others have one; yield it for all or none")
