"""The rules of one model's own keys: source, data sets, devices, metric, what is shipped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quantbuild.declared_files import REFERENCE_PATTERN, code_path, fixed_part, module_file, pattern_problem
from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.contracts import lacking
from quantbuild.manifest.definitions import LABEL_METRICS
from quantbuild.manifest.files import check_path, exists
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.names import check_reference
from quantbuild.manifest.problems import key_text, quoted, unknown


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
    if context.check_files and not exists(file, context):
        context.add((*path, "path"), f"{quoted(file)} does not exist; correct the path or create it")
    for index, pattern in enumerate(inputs):
        problem = pattern_problem(pattern)
        if problem is not None:
            context.add((*path, "inputs", index), problem)
        else:
            check_path(fixed_part(pattern), (*path, "inputs", index), context)


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
