"""What the calibrate step looks for: in its samples, and in what they did to the model's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.lint import model_rules, set_rules
from quantbuild.lint.facts import SetFacts
from quantbuild.lint.findings import Finding, kept
from quantbuild.lint.fingerprint import Fingerprint, Port
from quantbuild.tflite import graph, lint_view
from quantbuild.tflite.statistics_file import Statistics


class Observer:
    """Sees each sample as the model is fed it, by tensor index."""

    def __init__(self, model: graph.ModelT, dataset: str, count: int) -> None:
        names, _ = graph.signature_maps(model)
        tensors = {name: graph.main(model).tensors[index] for name, index in names.items()}
        ports = [
            Port(name, graph.shape(tensor), graph.dtype(tensor) or np.dtype(np.void))
            for name, tensor in tensors.items()
        ]
        self._names = names
        self._fingerprint = Fingerprint(dataset, ports, count)

    def add(self, number: int, feed: Mapping[int, NDArray[Any]]) -> None:
        """Note a sample that ranges are taken from."""
        self._fingerprint.add(number, self._named(feed))

    def add_held_back(self, number: int, feed: Mapping[int, NDArray[Any]]) -> None:
        """Note a sample of the set that shapes no range: that it is there, no more."""
        self._fingerprint.add_digest(number, self._named(feed))

    def facts(self) -> SetFacts:
        """Return what is known so far."""
        return self._fingerprint.facts()

    def _named(self, feed: Mapping[int, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {name: feed[index] for name, index in self._names.items()}


def findings(
    model: graph.ModelT,
    facts: SetFacts,
    statistics: Statistics,
    labels: NDArray[Any] | None,
    ignored: Iterable[str],
) -> list[Finding]:
    """Return all that is found; `labels` are the calibrated samples', `ignored` the rules that are silent."""
    inputs, _ = graph.signature_maps(model)
    found = [*set_rules.findings(facts), *set_rules.few_samples(facts)]
    for each in facts.inputs:
        found += model_rules.first_layers(facts.dataset, each, lint_view.scaling(model, inputs[each.name]))
    found += _missing_classes(model, facts, labels)
    found += _of_tensors(model, facts.dataset, statistics)
    return kept(found, ignored)


def observed(observer: Observer | None, feed: Callable[[int, Any], Any]) -> Callable[[int, Any], Any]:
    """Return `feed`, seen by the observer where there is one."""
    if observer is None:
        return feed

    def seen(number: int, sample: Any) -> Any:
        fed = feed(number, sample)
        observer.add(number, fed)
        return fed

    return seen


def _missing_classes(model: graph.ModelT, facts: SetFacts, labels: NDArray[Any] | None) -> list[Finding]:
    classes = lint_view.classes(model)
    if classes is None or labels is None or labels.ndim != 1 or labels.dtype.kind not in "iu":
        return []
    numbers = [int(label) for label in labels]
    return set_rules.missing_classes(facts, numbers, classes) if all(0 <= n < classes for n in numbers) else []


def _of_tensors(model: graph.ModelT, dataset: str, statistics: Statistics) -> list[Finding]:
    rows = lint_view.ranged_rows(model, statistics.tensor_indices.tolist())
    if not rows:
        return []
    extremes = model_rules.Extremes(
        dataset=dataset,
        names=tuple(statistics.tensor_names[row] for row in rows),
        numbers=statistics.sample_indices.tolist(),
        low=statistics.sample_min[:, rows],
        high=statistics.sample_max[:, rows],
    )
    found = [*model_rules.unstable(extremes), *model_rules.bimodal(extremes)]
    if len(statistics.power):
        found += model_rules.coarse_step(extremes, statistics.power[rows])
    if len(statistics.channel_max):
        magnitudes = [(statistics.tensor_names[row], statistics.magnitudes(row)) for row in rows]
        found += model_rules.uneven_channels(dataset, magnitudes)
    return found
