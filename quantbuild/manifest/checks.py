"""The rules between tables: names, references, files, gates, calibration sets."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import msgspec

from quantbuild.declared_files import REFERENCE_PATTERN, code_path, fixed_part, module_file, pattern_problem
from quantbuild.errors import QuantbuildError
from quantbuild.manifest.contracts import lacking
from quantbuild.manifest.definitions import LABEL_METRICS, NAME_PATTERN, RESERVED_NAMES
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.plugins import Plugins
from quantbuild.manifest.problems import Problem, key_text, leaves, quoted, unknown
from quantbuild.units import FRACTION_METRICS

LOSS_GATES = ("max_accuracy_loss", "max_slice_loss")
ACCURACY_GATES = (*LOSS_GATES, "min_agreement", "min_sqnr_db")
DEVICE_GATES = ("max_latency_ratio", "max_peak_memory_ratio")

_NAME = re.compile(NAME_PATTERN)


class Context(msgspec.Struct, kw_only=True):
    """What the checks know while manifests are read, and the problems found so far."""

    root: Path
    plugins: Plugins
    problems: list[Problem]
    check_files: bool
    check_references: bool
    """False where a manifest could not be parsed: what it defines would be reported as unknown."""
    existing: dict[str, bool] = {}

    def add(self, path: KeyPath, text: str) -> None:
        """Note a problem of one key."""
        self.problems.append(Problem(path, text))


class Known(msgspec.Struct, kw_only=True):
    """What a model can refer to: names as written, also those whose own table has problems."""

    datasets: Mapping[str, msgspec.Struct | None]
    """The loader's `Options` by name; None where they have problems."""
    devices: Collection[str]
    loaders: Mapping[str, object] = {}
    """Of each dataset, as written."""


def check_names(names: Iterable[str], section: KeyPath, context: Context) -> None:
    """Names match the pattern, are not reserved, and differ by more than case."""
    by_lower: dict[str, str] = {}
    for name in names:
        lower = name.lower()
        if _NAME.match(name) is None or name.endswith("\n"):
            text = f"{quoted(name)} is no name; use letters, digits, _ . - and begin with a letter or digit"
            context.add((*section, name), text)
        elif lower in RESERVED_NAMES:
            context.add((*section, name), f"{quoted(name)} is reserved; choose another name")
        elif lower in by_lower:
            other = key_text((*section, by_lower[lower]))
            context.add((*section, name), f"differs from {other} by case alone; choose another name")
        by_lower.setdefault(lower, name)


def check_reference(value: Any, what: str, known: Collection[str], path: KeyPath, context: Context) -> None:
    """A name refers to something that some manifest defines. What is no text is reported elsewhere."""
    if context.check_references and isinstance(value, str) and value not in known:
        context.add(path, unknown(what, value, known))


def check_path(value: Any, path: KeyPath, context: Context) -> None:
    """A path of the user's is relative and there."""
    if not isinstance(value, str) or not value:
        return
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).drive:
        context.add(path, f"{quoted(value)} is absolute; write it relative to the workspace root")
    elif context.check_files and not _exists(value, context):
        context.add(path, f"{quoted(value)} does not exist; correct the path or create it")


def check_dataset_files(table: Mapping[str, Any], options: msgspec.Struct, path: KeyPath, context: Context) -> None:
    """Every file that the loader will read is there."""
    if not context.check_files:
        return
    try:
        files = context.plugins.datasets[table["loader"]].files(options, context.root)
    except QuantbuildError as error:
        context.add(path, str(error))
        return
    for file in files:
        key = next((inner for inner, value in leaves(table) if value == file), ())
        check_path(file, (*path, *key), context)
    if not files:
        context.add(path, "no file matches; correct its paths or create the files")


def check_model(table: Mapping[str, Any], path: KeyPath, known: Known, context: Context) -> None:
    """What a model's own keys refer to."""
    source = table.get("source")
    if isinstance(source, str):
        _check_source(source, (*path, "source"), context)
    _check_source_files(table, path, context)
    check_path(table.get("labels"), (*path, "labels"), context)
    for key in ("calibration", "evaluation", "selection"):
        check_reference(table.get(key), "dataset", known.datasets, (*path, key), context)
    _check_devices(table.get("devices"), path, known, context)
    _check_metric(table, path, known, context)
    _check_ship(table, path, context)
    evaluation = table.get("evaluation")
    if evaluation is not None and evaluation == table.get("selection"):
        text = "is the evaluation set, on which nothing may be chosen; name another dataset or leave the key out"
        context.add((*path, "selection"), text)


def _check_source(source: str, path: KeyPath, context: Context) -> None:
    """A source is there, and has all that one must have."""
    known = context.plugins.sources
    problem = lacking("sources", source, known[source]) if source in known else unknown("source", source, known)
    if problem is not None:
        context.add(path, problem)


def _check_source_files(table: Mapping[str, Any], path: KeyPath, context: Context) -> None:
    """The files a model is read from are there; a function of the user's is named as one."""
    source, place, inputs = table.get("source"), table.get("path"), table.get("inputs", [])
    module = context.plugins.sources[source] if isinstance(source, str) and source in context.plugins.sources else None
    if not getattr(module, "REFERENCE", False):
        check_path(place, (*path, "path"), context)
        if inputs:
            context.add((*path, "inputs"), f"a {quoted(source)} source has none; remove the key")
        return
    if not isinstance(place, str) or not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs):
        return  # reported as a wrong type
    if re.match(REFERENCE_PATTERN, place) is None:
        context.add((*path, "path"), f'{quoted(place)} names no function; write "package.module:function"')
        return
    file = module_file(place)
    if context.check_files and not _exists(file, context):
        context.add((*path, "path"), f"{quoted(file)} does not exist; correct the path or create it")
    for index, pattern in enumerate(inputs):
        problem = pattern_problem(pattern)
        if problem is not None:
            context.add((*path, "inputs", index), problem)
        else:
            check_path(fixed_part(pattern), (*path, "inputs", index), context)


def check_gate(gate: Any, path: KeyPath, model: Mapping[str, Any], known: Known, context: Context) -> None:
    """A gate asks for figures that the model's metric, datasets and devices can give."""
    if not isinstance(gate, dict):
        return
    for key in LOSS_GATES:
        if key in gate and model.get("metric") == "sqnr":
            context.add((*path, key), "sqnr has no loss against float32; use min_sqnr_db or another metric")
    for key in LOSS_GATES:
        _check_loss(gate.get(key), (*path, key), model.get("metric"), context)
    _check_slices(gate, path, model, known, context)
    for key in ACCURACY_GATES:
        if key in gate and "evaluation" not in model:
            text = f"there is nothing to judge it on; add evaluation = DATASET to {key_text(path[:2])}"
            context.add((*path, key), text)
    for key in DEVICE_GATES:
        ratios = gate.get(key)
        for device in ratios if isinstance(ratios, dict) else ():
            _check_gate_device(device, (*path, key, device), model, known, context)


def check_search(search: Any, path: KeyPath, model: Mapping[str, Any], context: Context) -> None:
    """A search that has a loss to keep to has one that the model's metric can give."""
    limit = search.get("max_accuracy_loss") if isinstance(search, dict) else None
    if limit is None:
        return
    place, metric = (*path, "max_accuracy_loss"), model.get("metric")
    if metric == "sqnr":
        context.add(place, 'sqnr has no loss against float32; use another metric, or scheme = "int8"')
    _check_loss(limit, place, metric, context)


def _check_loss(limit: Any, path: KeyPath, metric: Any, context: Context) -> None:
    """A loss of a share is a share: whoever writes 1 or 2 means points, and would get a limit that nothing breaks.

    1.0 passes: that is how one writes all of it.
    """
    share = metric is None or metric in FRACTION_METRICS
    if share and type(limit) in (int, float) and (1 < limit <= 100 or (limit == 1 and type(limit) is int)):
        text = f"{limit:g} would be {limit * 100:g} points, which nothing can lose"
        context.add(path, f"{text}; one point is 0.01, so write {limit / 100:g}")


def _check_slices(
    gate: Mapping[str, Any], path: KeyPath, model: Mapping[str, Any], known: Known, context: Context
) -> None:
    """A gate on slices has slices, as far as the manifest tells: a labels file is only read by the build."""
    evaluation = model.get("evaluation")
    options = known.datasets.get(evaluation) if isinstance(evaluation, str) else None
    if "max_slice_loss" in gate and options is not None and getattr(options, "slice", "") is None:
        text = f"the evaluation set has no slices; add slice to dataset.{evaluation}, or leave the key out"
        context.add((*path, "max_slice_loss"), text)


def check_calibration(
    scheme: str, options: msgspec.Struct, path: KeyPath, model: Mapping[str, Any], context: Context
) -> None:
    """A scheme that takes ranges from samples has a calibration set; one that converts anew, a source to start from."""
    needs = context.plugins.schemes[scheme].needs(options)
    if "calibration" not in model and not needs.isdisjoint({"statistics", "samples"}):
        text = f"{quoted(scheme)} needs a calibration set; add calibration = DATASET to {key_text(path[:2])}"
        context.add((*path, "scheme"), text)
    source = model.get("source")
    module = context.plugins.sources.get(source) if isinstance(source, str) else None
    if "source" in needs and module is not None and not hasattr(module, "prepare"):
        text = f'the plain converter cannot start from source = {quoted(source)}; use engine = "quantbuild"'
        context.add((*path, "engine"), text)


def check_sensitivity(table: Mapping[str, Any], options: msgspec.Struct, path: KeyPath, context: Context) -> None:
    """Only a scheme that rounds activations has noise to take apart."""
    needs = context.plugins.schemes[table["scheme"]].needs(options)
    if table.get("sensitivity", False) is not False and needs.isdisjoint({"statistics", "samples"}):
        text = (
            f"{quoted(table['scheme'])} leaves activations in float, which has no noise to take apart; remove the key"
        )
        context.add((*path, "sensitivity"), text)


def check_choice(
    scheme: str, options: msgspec.Struct, path: KeyPath, model: Mapping[str, Any], *, known: Known, context: Context
) -> None:
    """What a scheme chooses by can be measured: a latency is one on a device of the model's."""
    module = context.plugins.schemes[scheme]
    device = module.device(options) if hasattr(module, "device") else None
    if device is not None:
        _check_gate_device(device, (*path, *module.DEVICE_KEY), model, known, context)


def _check_gate_device(device: str, path: KeyPath, model: Mapping[str, Any], known: Known, context: Context) -> None:
    measured = model.get("devices")
    if device not in known.devices:
        check_reference(device, "device", known.devices, path, context)
    elif isinstance(measured, list) and device not in measured:
        context.add(path, f"this model is not measured there; add {quoted(device)} to its devices")


def _check_devices(devices: Any, path: KeyPath, known: Known, context: Context) -> None:
    for index, device in enumerate(devices if isinstance(devices, list) else ()):
        check_reference(device, "device", known.devices, (*path, "devices", index), context)
        if device in devices[:index]:
            context.add((*path, "devices", index), f"{quoted(device)} is listed twice; remove one")


def _check_metric(table: Mapping[str, Any], path: KeyPath, known: Known, context: Context) -> None:
    metric, evaluation = table.get("metric"), table.get("evaluation")
    if isinstance(metric, str) and re.match(REFERENCE_PATTERN, metric):
        check_path(code_path(metric), (*path, "metric"), context)
    if not (isinstance(metric, str) and metric in LABEL_METRICS and isinstance(evaluation, str)):
        return
    options = known.datasets.get(evaluation)
    if options is not None and getattr(options, "label", "") is None:
        text = f"{quoted(metric)} needs labels; add label to {key_text(('dataset', evaluation))}, or use agreement"
        context.add((*path, "metric"), text)


def _check_ship(table: Mapping[str, Any], path: KeyPath, context: Context) -> None:
    ship, variants = table.get("ship"), table.get("variant", {})
    if not isinstance(variants, dict):
        return
    place = (*path, "ship")
    if isinstance(ship, str):
        _check_shipped(ship, variants, place, context)
    elif isinstance(ship, dict):
        for purpose, variant in ship.items():
            _check_shipped(variant, variants, (*place, purpose), context)
        if "default" not in ship:
            context.add(place, 'missing key "default"; name the variant that model.tflite is')
    if ship is not None and "model" in variants:
        text = "model.tflite is already what is shipped; choose another name"
        context.add((*path, "variant", "model"), text)


def _check_shipped(variant: Any, variants: Mapping[str, Any], path: KeyPath, context: Context) -> None:
    if variant == "float32":
        context.add(path, "float32 is what the variants are compared with, and is not published; name a variant")
    else:
        check_reference(variant, "variant", variants, path, context)


def _exists(path: str, context: Context) -> bool:
    if path not in context.existing:
        context.existing[path] = (context.root / path).exists()
    return context.existing[path]
