"""Builds datasets, devices and models from the merged tables, noting every problem on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from quantbuild.manifest.class_names import check_class_names
from quantbuild.manifest.context import Context, Known
from quantbuild.manifest.contracts import PluginKind, lacking
from quantbuild.manifest.definitions import Dataset, Device, Gate, Model, Settings, Variant, written_keys
from quantbuild.manifest.files import check_dataset_files
from quantbuild.manifest.gate_checks import DEVICE_GATES, check_gate, check_search
from quantbuild.manifest.locate import KeyPath
from quantbuild.manifest.model_checks import check_model
from quantbuild.manifest.names import check_names
from quantbuild.manifest.problems import key_text, kind_of, nearest, quoted, unknown, unknown_key
from quantbuild.manifest.scheme_checks import check_calibration, check_choice, check_sensitivity
from quantbuild.manifest.walk import convert

Plugged = TypeVar("Plugged", Dataset, Device, Variant)
Table = dict[str, Any]

SECTIONS = ("dataset", "model", "device", "workspace")

_OWN_KEYS: dict[type[Struct], frozenset[str]] = {
    definition: written_keys(definition) for definition in (Dataset, Device, Variant)
}


class Built(NamedTuple):
    """What the manifests define; incomplete where there are problems."""

    datasets: dict[str, Dataset]
    models: dict[str, Model]
    devices: dict[str, Device]
    settings: Settings


class Kind(NamedTuple):
    """How tables of one plug-in kind name their plug-in."""

    name: PluginKind
    selector: str
    plugins: Mapping[str, ModuleType]

    def lacking(self, plugin: str) -> str | None:
        """Return what the plug-in lacks that such a one must have, None where that is nothing."""
        return lacking(self.name, plugin, self.plugins[plugin])


def build(tables: Table, context: Context) -> Built:
    """Return everything that the merged tables define; problems go to `context`."""
    for key in tables:
        if key not in SECTIONS:
            context.add((key,), unknown_key(key, ("schema", *SECTIONS)))
    devices = {name: _device(name, table, context) for name, table in _named(tables, ("device",), context).items()}
    dataset_tables = _named(tables, ("dataset",), context)
    datasets = {name: _dataset(name, table, context) for name, table in dataset_tables.items()}
    known = Known(
        datasets={name: options for name, (_, options) in datasets.items()},
        devices=devices,
        loaders={name: table.get("loader") for name, table in dataset_tables.items()},
    )
    models = {name: _model(name, table, known, context) for name, table in _named(tables, ("model",), context).items()}
    settings = Settings()
    if _is_table(tables.get("workspace", {}), ("workspace",), context):
        settings = convert(tables.get("workspace", {}), Settings, ("workspace",), context.problems) or settings
    return Built(
        _found({name: dataset for name, (dataset, _) in datasets.items()}), _found(models), _found(devices), settings
    )


def _dataset(name: str, table: Table, context: Context) -> tuple[Dataset | None, Struct | None]:
    path: KeyPath = ("dataset", name)
    kind = Kind("datasets", "loader", context.plugins.datasets)
    options = _options(table, Dataset, path, kind, context)
    readable = options or _readable_options(table, kind)
    if readable is not None:
        check_dataset_files(table, readable, path, context)
    return _own(table, Dataset, path, {"options": options}, context), options


def _device(name: str, table: Table, context: Context) -> Device | None:
    path: KeyPath = ("device", name)
    options = _options(table, Device, path, Kind("runners", "runner", context.plugins.runners), context)
    return _own(table, Device, path, {"options": options}, context)


def _model(name: str, table: Table, known: Known, context: Context) -> Model | None:
    path: KeyPath = ("model", name)
    check_model(table, path, known, context)
    check_class_names(table, path, known, context)
    gate = _gate(table.get("gate", {}), (*path, "gate"), table, known, context)
    variants = {
        variant: _variant(variant, inner, table, gate, (path, known, context))
        for variant, inner in _named(table, (*path, "variant"), context).items()
    }
    written = table if "devices" in table else {**table, "devices": list(known.devices)}
    given = {"name": name, "gate": gate, "variant": _found(variants)}
    return convert(written, Model, path, context.problems, given=given)


def _variant(
    name: str, table: Table, model: Table, model_gate: Gate, place: tuple[KeyPath, Known, Context]
) -> Variant | None:
    model_path, known, context = place
    path = (*model_path, "variant", name)
    gate = model_gate
    if "gate" in table:
        _gate(table["gate"], (*path, "gate"), model, known, context)
        gate = _merged_gate(model.get("gate", {}), table["gate"])
    kind = Kind("schemes", "scheme", context.plugins.schemes)
    options = _options(table, Variant, path, kind, context)
    readable = options or _readable_options(table, kind)
    if readable is not None:
        check_calibration(table["scheme"], readable, path, model, context)
        check_sensitivity(table, readable, path, context)
        if hasattr(readable, "search"):
            check_search(table.get("search"), (*path, "search"), model, context)
        check_choice(table["scheme"], readable, path, model, known=known, context=context)
    return _own(table, Variant, path, {"options": options, "gate": gate}, context)


def _gate(table: Any, path: KeyPath, model: Table, known: Known, context: Context) -> Gate:
    """Return one table's own gate; without limits where it has problems."""
    if not _is_table(table, path, context):
        return Gate()
    check_gate(table, path, model, known, context)
    return convert(table, Gate, path, context.problems) or Gate()


def _merged_gate(model_gate: Any, variant_gate: Any) -> Gate:
    """Return the model's gate with the variant's keys over it, device by device; each was checked by itself."""
    try:
        merged = {**model_gate, **variant_gate}
        for key in DEVICE_GATES:
            if key in model_gate and key in variant_gate:
                merged[key] = {**model_gate[key], **variant_gate[key]}
        return msgspec.convert(merged, Gate)
    except (TypeError, msgspec.ValidationError):
        return Gate()  # one of the two is no valid gate, which its own check has reported


def _options(table: Table, definition: type[Struct], path: KeyPath, kind: Kind, context: Context) -> Struct | None:
    """Return the keys that `definition` leaves over as the `Options` of the plug-in that the table names."""
    plugin = table.get(kind.selector)
    if kind.selector not in table:
        _check_misspelt(table, definition, path, context)
    if not isinstance(plugin, str):
        return None  # missing or no text: the definition's own check says so
    if plugin not in kind.plugins:
        context.add((*path, kind.selector), unknown(kind.selector, plugin, kind.plugins))
        return None
    problem = kind.lacking(plugin)
    if problem is not None:
        context.add((*path, kind.selector), problem)
        return None
    own_keys = _OWN_KEYS[definition]
    rest = {key: value for key, value in table.items() if key not in own_keys}
    options: Struct | None = convert(rest, kind.plugins[plugin].Options, path, context.problems, beside=own_keys)
    return options


def _readable_options(table: Table, kind: Kind) -> Struct | None:
    """Return the `Options` without the keys that are wrong, so that what else is wrong is told in the same go."""
    plugin = table.get(kind.selector)
    if not isinstance(plugin, str) or plugin not in kind.plugins or kind.lacking(plugin) is not None:
        return None
    definition = kind.plugins[plugin].Options
    good = {}
    for field in msgspec.structs.fields(definition):
        if field.encode_name in table:
            with contextlib.suppress(msgspec.ValidationError):
                good[field.name] = msgspec.convert(table[field.encode_name], field.type)
    with contextlib.suppress(TypeError, ValueError):  # a required key is missing or wrong, which is told already
        options: Struct = definition(**good)
        return options
    return None


def _check_misspelt(table: Table, definition: type[Struct], path: KeyPath, context: Context) -> None:
    """Note keys that look like a misspelt key of `definition`; without a plug-in no other key can be judged."""
    own_keys = _OWN_KEYS[definition]
    for key in table:
        if key not in own_keys and nearest(key, own_keys):
            context.add((*path, key), unknown_key(key, own_keys))


def _own(table: Table, definition: type[Plugged], path: KeyPath, given: Table, context: Context) -> Plugged | None:
    """Return the table without its plug-in's keys as `definition`."""
    own = {key: table[key] for key in _OWN_KEYS[definition] if key in table}
    return convert(own, definition, path, context.problems, given={"name": path[-1], **given})


def _named(tables: Table, section: KeyPath, context: Context) -> dict[str, Table]:
    """Return the tables of a section by name, without those that are no tables; checks the names."""
    tables_by_name = tables.get(str(section[-1]), {})
    if not _is_table(tables_by_name, section, context):
        return {}
    check_names(tables_by_name, section, context)
    return {name: table for name, table in tables_by_name.items() if _is_table(table, (*section, name), context)}


def _is_table(value: Any, path: KeyPath, context: Context) -> bool:
    if isinstance(value, dict):
        return True
    context.add(path, f"{quoted(value)} is {kind_of(value)}; write a table [{key_text(path)}]")
    return False


def _found(tables: Mapping[str, Plugged | Model | None]) -> Any:
    return {name: table for name, table in tables.items() if table is not None}
