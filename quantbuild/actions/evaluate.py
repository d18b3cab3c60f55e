"""Runs float32 or a variant over the evaluation samples and keeps each sample's result, so that losses are paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from quantbuild.datasets.samples import Samples, hold_back, load, place
from quantbuild.errors import StepError
from quantbuild.reporting import progress
from quantbuild.step import Job

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from quantbuild.lint.fingerprint import Fingerprint
    from quantbuild.metrics import Metric, Outputs
    from quantbuild.sample_file import Rows
    from quantbuild.tflite.outputs import OutputTally
    from quantbuild.tflite.runtime import Binding

WORKER = "litert"
TOOLS = ("numpy", "ai-edge-litert")

FLIPPED_SHOWN = 50
"""How many samples of a changed prediction evaluation.json names."""


def run(job: Job) -> dict[str, Any]:
    """Evaluate ``inputs["model"]``, against ``inputs["baseline"]`` (float32's samples.npz) when it is given.

    Parameters: ``dataset``, ``metric``, and optionally ``hold_back`` ({"fraction", "seed"}: only the
    part held back, the selection samples), ``metric_without_labels`` and ``signature``. Writes
    ``evaluation`` (JSON: counts and figures) and ``samples`` (npz, see `_arrays`); with the parameter
    ``fingerprint``, of float32 alone, ``inputs``, too: what the lint compares with the calibration set's. With
    ``logits`` a classifier's logits are one more output whose SQNR is measured (see `tflite.logits`). Raises StepError.
    """
    from quantbuild.metrics import find
    from quantbuild.tflite.feeding import SampleError
    from quantbuild.tflite.outputs import OutputTally
    from quantbuild.tflite.runtime import Binding, open_interpreter

    root = Path(job.root)
    samples, indices = _chosen(job.parameters, root)
    metric = find(job.parameters["metric"], root)
    if metric.needs_labels and samples.labels is None and "metric_without_labels" in job.parameters:
        metric = find(job.parameters["metric_without_labels"], root)
    if metric.needs_labels and samples.labels is None:
        raise StepError(
            f"dataset {job.parameters['dataset']['name']}: metric {metric.name} needs labels; "
            'set label in the dataset, or metric = "agreement" or "sqnr" in the model'
        )
    model, logits = _model(job)
    binding = Binding(open_interpreter(model), job.parameters.get("signature"))
    limits = _limits(job)
    names = [port.name for port in binding.outputs if port.name not in logits]
    tally = _Tally(metric=metric, outputs={name: OutputTally(limits.get(name)) for name in names})
    kept: dict[str, Rows] = {}
    try:
        if "baseline" in job.inputs:
            _compare(job, binding, samples, indices, tally)
        else:
            kept = _keep(job, binding, samples, indices, tally)
    except SampleError as error:
        raise StepError(f"{place(job.parameters['dataset'])}: {error}") from error
    return _write(job, samples, indices, tally, kept)


@dataclass(kw_only=True)
class _Tally:
    """What one pass over the samples adds up to; lists hold one entry per sample.

    What the model gives beyond `outputs`, its logits, counts for signal and noise alone.
    """

    metric: Metric
    outputs: dict[str, OutputTally]
    scores: list[float] = field(default_factory=list)
    baseline_scores: list[float] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    agreements: list[float | None] = field(default_factory=list)
    tied: int = 0
    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def score(self, values: Outputs, samples: Samples, index: int) -> None:
        """Add one sample's score, prediction and tie."""
        from quantbuild.tflite.feeding import SampleError

        outputs = self.own(values)
        if self.metric.score is not None:
            label = None if samples.labels is None else samples.labels[index]
            try:
                self.scores.append(self.metric.score(outputs, label))
            except StepError as error:
                raise SampleError(f"sample {index}: {error}") from error
        classes = _class_scores(outputs)
        if classes is not None:
            self.predictions.append(int(classes.argmax()))
            self.tied += int((classes == classes.max()).sum() > 1)

    def compare(self, reference: dict[str, NDArray[Any]], outputs: Outputs) -> None:
        """Add how far one sample's outputs are from float32's."""
        from quantbuild.metrics import agreement, powers

        self.agreements.append(agreement(self.own(reference), self.own(outputs)))
        for name, tally in self.outputs.items():
            tally.add(outputs[name], reference[name])
        for name, expected in reference.items():
            signal, noise = powers(expected, outputs[name])
            self.signal[name] = self.signal.get(name, 0.0) + signal
            self.noise[name] = self.noise.get(name, 0.0) + noise

    def own(self, values: Mapping[str, NDArray[Any]]) -> Outputs:
        """Return the model's own outputs, without logits that were added to be measured."""
        from quantbuild.metrics import Outputs

        return Outputs({name: values[name] for name in self.outputs})


def _chosen(parameters: dict[str, Any], root: Path) -> tuple[Samples, list[int]]:
    samples, indices = load(parameters["dataset"], root)
    how = parameters.get("hold_back")
    if how is not None:
        _, indices = hold_back(indices, samples.labels, how["fraction"], how["seed"])
    return samples, indices


def _model(job: Job) -> tuple[str | bytes, frozenset[str]]:
    """Return the model to run, and which of its outputs are logits that were added."""
    from quantbuild.tflite import graph, logits

    path = job.inputs["model"]
    if not job.parameters.get("logits"):
        return path, frozenset()
    model = graph.read(Path(path).read_bytes())
    added = logits.expose(model)
    return (graph.write(model), frozenset(added)) if added else (path, frozenset())


def _limits(job: Job) -> dict[str, Any]:
    """Return what a variant's integer outputs can hold at most; float32 has none."""
    from quantbuild.tflite import graph, outputs

    if "baseline" not in job.inputs:
        return {}
    return dict(outputs.limits(graph.read(Path(job.inputs["model"]).read_bytes())))


def _keep(job: Job, binding: Binding, samples: Samples, indices: list[int], tally: _Tally) -> dict[str, Rows]:
    """Run float32 and keep its outputs, which every variant is compared with."""
    from quantbuild.sample_file import Rows

    rows = {port.name: Rows(Path(job.scratch) / f"output.{at}") for at, port in enumerate(binding.outputs)}
    fingerprint = _fingerprint(job, binding, len(indices))
    for index, outputs in _outputs(binding, samples, indices, fingerprint):
        tally.score(outputs, samples, index)
        tally.agreements.append(1.0)
        for name, values in outputs.items():
            rows[name].append(values)
        for name, output in tally.outputs.items():
            output.add(outputs[name])
    if fingerprint is not None:
        from quantbuild.lint import facts

        facts.write(job.outputs["inputs"], fingerprint.facts(), [])
    if tally.metric.name == "agreement":
        tally.scores = [1.0] * len(indices)
    tally.baseline_scores = tally.scores
    return rows


def _compare(job: Job, binding: Binding, samples: Samples, indices: list[int], tally: _Tally) -> None:
    """Run a variant beside float32's kept outputs of the same samples."""
    from quantbuild.sample_file import output_rows, read

    baseline = read(job.inputs["baseline"])
    assert baseline["index"].tolist() == indices, "float32 and its variants draw the same samples"
    reference_rows = output_rows(job.inputs["baseline"])
    for (index, outputs), reference in zip(_outputs(binding, samples, indices), reference_rows, strict=True):
        _check_outputs(reference, outputs)
        tally.score(outputs, samples, index)
        tally.compare(reference, outputs)
    tally.baseline_scores = baseline["score"].tolist() if "score" in baseline else []
    if tally.metric.name == "agreement":
        tally.scores = [_known(share) for share in tally.agreements]


def _fingerprint(job: Job, binding: Binding, count: int) -> Fingerprint | None:
    from quantbuild.lint.fingerprint import Fingerprint, Port

    if not job.parameters.get("fingerprint"):
        return None
    ports = [Port(port.name, port.shape, port.dtype) for port in binding.inputs]
    return Fingerprint(place(job.parameters["dataset"]), ports, count)


def _outputs(
    binding: Binding, samples: Samples, indices: list[int], fingerprint: Fingerprint | None = None
) -> Iterator[tuple[int, Outputs]]:
    from quantbuild.metrics import Outputs

    for done, index in enumerate(indices):
        progress(done, len(indices))
        fed = binding.feed(samples[index], index)
        if fingerprint is not None:
            fingerprint.add(index, fed)
        yield index, Outputs(binding.run_fed(fed, index))


def _check_outputs(reference: dict[str, NDArray[Any]], outputs: Outputs) -> None:
    """Raise StepError unless both models have the same outputs."""
    expected = {name: values.shape for name, values in reference.items()}
    found = {name: values.shape for name, values in outputs.items()}
    if expected != found:
        raise StepError(f"outputs {found} are not float32's {expected}; compare models of one source")


def _known(share: float | None) -> float:
    if share is None:
        raise StepError('metric agreement needs an output with classes; use "sqnr", "mae" or "mse"')
    return share


def _class_scores(outputs: Outputs) -> NDArray[Any] | None:
    """Return the scores [classes] of the first output that is a classifier's, [1, ..., classes]."""
    for values in outputs.values():
        if values.size > 1 and values.size == values.shape[-1]:
            return values.reshape(-1)
    return None


def _write(job: Job, samples: Samples, indices: list[int], tally: _Tally, kept: dict[str, Rows]) -> dict[str, Any]:
    from quantbuild import sample_file

    names = None if samples.slices is None else [samples.slices[index] for index in indices]
    arrays = _arrays(indices, tally, names)
    evaluation = _figures(indices, tally, arrays, names)
    sample_file.write(job.outputs["samples"], arrays, kept)
    text = msgspec.json.format(msgspec.json.encode(evaluation), indent=2)
    Path(job.outputs["evaluation"]).write_bytes(text + b"\n")
    from quantbuild.gates import loss_of

    told = {key: evaluation[key] for key in ("n", "value", "baseline", "agreement", "sqnr_db")}
    return {**told, "loss": loss_of(evaluation, evaluation)}


def _arrays(indices: list[int], tally: _Tally, slices: list[str] | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of samples.npz, each [n] in the order the samples were run.

    ``index`` int64 in the dataset; ``score`` and ``baseline_score`` float64 (absent for sqnr);
    ``prediction`` int64 (classifiers); ``agreement`` float64 (where outputs have classes); ``slice``
    int32 into evaluation.json's slices.
    """
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {"index": np.array(indices, dtype=np.int64)}
    if tally.scores:
        arrays["score"] = np.array(tally.scores, dtype=np.float64)
        arrays["baseline_score"] = np.array(tally.baseline_scores, dtype=np.float64)
    if tally.predictions:
        arrays["prediction"] = np.array(tally.predictions, dtype=np.int64)
    shares = [share for share in tally.agreements if share is not None]
    # An output without classes agrees only where it is equal: unless all are, there is no share to give.
    if len(shares) == len(indices):
        arrays["agreement"] = np.array(shares, dtype=np.float64)
    if slices is not None:
        arrays["slice"] = np.unique(np.array(slices), return_inverse=True)[1].astype(np.int32)
    return arrays


def _figures(
    indices: list[int], tally: _Tally, arrays: dict[str, NDArray[Any]], slices: list[str] | None
) -> dict[str, Any]:
    """Return evaluation.json: everything here is exact; intervals are the gates' (they have a confidence)."""
    from quantbuild.metrics import sqnr_db
    from quantbuild.tflite import outputs

    by_output = {}
    for name, noise in tally.noise.items():
        if noise and not tally.signal[name]:
            raise StepError(f"output {name!r}: float32 is 0 on every sample, so no SQNR exists; check the model")
        by_output[name] = sqnr_db(tally.signal[name], noise)
    worst = min((value for value in by_output.values() if value is not None), default=None)
    agreement = arrays.get("agreement")
    relative = tally.metric.name == "sqnr"
    flipped = [] if agreement is None else [at for at, same in zip(indices, agreement, strict=True) if same < 1]
    return {
        "metric": tally.metric.name,
        "higher_is_better": tally.metric.higher_is_better,
        "n": len(indices),
        "value": worst if relative else _mean(arrays["score"]),
        "baseline": None if relative else _mean(arrays["baseline_score"]),
        "pairs": None if relative else _pairs(arrays["baseline_score"], arrays["score"]),
        "agreement": None if agreement is None else _mean(agreement),
        "agreed": None if agreement is None else len(indices) - len(flipped),
        "sqnr_db": worst,
        "sqnr_db_by_output": by_output,
        "outputs": outputs.figures(tally.outputs),
        "tied": tally.tied,
        "flipped": flipped[:FLIPPED_SHOWN],
        "slices": [] if slices is None or relative else _slices(arrays, sorted(set(slices))),
    }


def _pairs(baseline: NDArray[Any], scores: NDArray[Any]) -> dict[str, int] | None:
    """Return how often both, one or neither model is right; None for scores that are not right or wrong."""
    from quantbuild.statistics import is_binary

    if not (is_binary(baseline) and is_binary(scores)):
        return None
    return {
        "both_right": int(((baseline == 1) & (scores == 1)).sum()),
        "only_float32_right": int((baseline > scores).sum()),
        "only_variant_right": int((scores > baseline).sum()),
        "both_wrong": int(((baseline == 0) & (scores == 0)).sum()),
    }


def _slices(arrays: dict[str, NDArray[Any]], names: list[str]) -> list[dict[str, Any]]:
    found = []
    for number, name in enumerate(names):
        inside = arrays["slice"] == number
        value, baseline = _mean(arrays["score"][inside]), _mean(arrays["baseline_score"][inside])
        found.append({"name": name, "n": int(inside.sum()), "value": value, "baseline": baseline})
    return found


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean())
