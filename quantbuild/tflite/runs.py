"""Runs one model on many samples: side by side where a run takes longer than to hand it over, in the samples' order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from quantbuild.tflite import graph
from quantbuild.tflite.runtime import Binding, open_interpreter
from quantbuild.tflite.streaming import read_in_order, usable_interpreters

Values = dict[str, NDArray[Any]]
"""Arrays by signature name."""

LEAST_SECONDS = 0.0005
"""A run that takes less gains nothing from a second interpreter: Python's own work for a sample takes a tenth of a
millisecond, one thread at a time."""
TIMED = 2
"""The first run of an interpreter may prepare what later ones find."""


class Runs:
    """A model ready to run, `binding`, that opens further interpreters of itself as it needs them."""

    def __init__(self, model: bytes, signature: str | None = None, *, interpreters: int | None = None) -> None:
        """Open `model`, a flatbuffer. Raises StepError where LiteRT refuses it.

        How many `interpreters` there may be changes no result: by default one a core, and one alone for a model whose
        runs depend on earlier ones.
        """
        self.binding = Binding(open_interpreter(model), signature)
        self._model = model
        self._signature = signature
        self._interpreters = usable_interpreters(graph.read(model), interpreters)

    def __call__(self, feeds: Iterable[tuple[int, Values]]) -> Iterator[tuple[int, Values]]:
        """Yield (number, outputs) of each (number, what `Binding.feed` returned), in order.

        Raises SampleError for a sample that does not run or whose outputs are not finite, after those before it.
        """
        left = iter(feeds)
        seconds = 0.0
        for number, feed in islice(left, TIMED):
            start = time.perf_counter()
            outputs = self.binding.run_fed(feed, number)
            seconds = time.perf_counter() - start
            yield number, outputs
        interpreters = self._interpreters if seconds >= LEAST_SECONDS else 1
        opened = [self.binding]

        def make() -> _Reader:
            return _Reader(opened.pop() if opened else Binding(open_interpreter(self._model), self._signature))

        numbered = ((number, (number, feed)) for number, feed in left)
        if interpreters == 1:
            yield from ((number, self.binding.run_fed(feed, number)) for number, (_, feed) in numbered)
            return
        for number, _, outputs in read_in_order(make, numbered, interpreters):
            yield number, outputs


class _Reader:
    def __init__(self, binding: Binding) -> None:
        self._binding = binding

    def read(self, feed: tuple[int, Values]) -> Values:
        number, values = feed
        return self._binding.run_fed(values, number)
