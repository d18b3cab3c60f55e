"""The rules between a variant's scheme and its model: what ranges are taken from, what it chooses by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.names import check_measured
from quantbuild.manifest.problems import key_text, quoted


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
        check_measured(device, (*path, *module.DEVICE_KEY), model, known, context)
