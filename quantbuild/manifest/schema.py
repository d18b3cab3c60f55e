"""The JSON Schema of the merged manifest, for editors, generated from the definitions that the loader checks with.

Rules between keys (names that refer to something, files that exist, gates that need an evaluation set) are the
loader's alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import msgspec
from msgspec import Struct

from quantbuild.manifest.definitions import (
    GIVEN,
    NAME_PATTERN,
    RESERVED_NAMES,
    SCHEMA,
    Dataset,
    Device,
    Model,
    Settings,
    Variant,
)
from quantbuild.manifest.documentation import key_docs
from quantbuild.manifest.plugins import Plugins, installed

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(plugins: Plugins | None = None) -> Schema:
    """Return the schema (draft 2020-12) of a manifest with the keys of every plug-in."""
    found = plugins or installed()
    definitions: dict[str, Schema] = {}
    _plugged("dataset", Dataset, "loader", found.datasets, definitions)
    _plugged("device", Device, "runner", found.runners, definitions)
    _plugged("variant", Variant, "scheme", found.schemes, definitions)
    model = _table(Model, definitions)
    source = {"description": model["properties"]["source"]["description"], "enum": sorted(found.sources)}
    model["properties"]["source"] = source
    model["properties"]["variant"] = _by_name("variant", "The variants, by name.")
    definitions["model"] = model
    schema = {
        "$schema": DRAFT,
        "title": "quantbuild manifest",
        "type": "object",
        "properties": {
            "schema": {"description": "Version of the manifest's format.", "const": SCHEMA},
            "dataset": _by_name("dataset", "The datasets, by name."),
            "model": _by_name("model", "The models, by name."),
            "device": _by_name("device", "The devices, by name."),
            "workspace": _table(Settings, definitions),
        },
        "required": ["schema"],
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }
    as_json: Schema = msgspec.json.decode(msgspec.json.encode(schema))  # defaults may hold tuples
    return as_json


def _by_name(definition: str, description: str) -> Schema:
    any_case = "|".join(
        "".join(f"[{c.upper()}{c}]" if c.isalpha() else re.escape(c) for c in name) for name in sorted(RESERVED_NAMES)
    )
    return {
        "description": description,
        "type": "object",
        "propertyNames": {"pattern": NAME_PATTERN, "not": {"pattern": f"^({any_case})$"}},
        "additionalProperties": {"$ref": f"#/$defs/{definition}"},
    }


def _plugged(
    name: str,
    definition: type[Struct],
    selector: str,
    plugins: Mapping[str, ModuleType],
    definitions: dict[str, Schema],
) -> None:
    """Add one definition for each plug-in, and one that checks by that which the table names.

    No anyOf: a validator then says of a table only that it is none of them. Own keys are checked once, by the
    definition of all; a plug-in's by its own, which knows the own ones by name, since it allows no other key.
    """
    own = _table(definition, definitions)
    named = {key: {"description": schema["description"]} for key, schema in own["properties"].items()}
    told: dict[str, dict[str, str]] = {}
    for plugin in sorted(plugins):
        options = _table(plugins[plugin].Options, definitions, prefix=f"{name}.{plugin}.")
        definitions[f"{name}.{plugin}"] = {
            "title": f"{name} with {selector} = {plugin}",
            "description": options.get("description", own["description"]),
            "type": "object",
            "properties": {**named, **options["properties"]},
            "required": options["required"],
            "additionalProperties": False,
        }
        for key, schema in options["properties"].items():
            told.setdefault(key, {})[plugin] = schema.get("description", "")
    chosen = {"description": own["properties"][selector]["description"], "enum": sorted(plugins)}
    definitions[name] = {
        "title": name,
        "description": own["description"],
        "type": "object",
        # Editors complete keys from here; what they must be is said below.
        "properties": {**_completions(told), **own["properties"], selector: chosen},
        "required": own["required"],
        "allOf": [_if_named(name, selector, plugin) for plugin in sorted(plugins)],
    }
    if not plugins:
        definitions[name] = {"not": {}}


def _if_named(name: str, selector: str, plugin: str) -> Schema:
    named = {"type": "object", "properties": {selector: {"const": plugin}}, "required": [selector]}
    return {"if": named, "then": {"$ref": f"#/$defs/{name}.{plugin}"}}


def _completions(told: Mapping[str, Mapping[str, str]]) -> dict[str, Schema]:
    """Return a plug-in's keys with their meaning alone; where plug-ins differ in it, with each one's."""
    completions = {}
    for key, by_plugin in told.items():
        meanings = set(by_plugin.values())
        each = " ".join(f"{plugin}: {text}" for plugin, text in by_plugin.items() if text)
        completions[key] = {"description": meanings.pop() if len(meanings) == 1 else each}
    return completions


def _table(definition: type[Struct], definitions: dict[str, Schema], prefix: str = "") -> Schema:
    """Return the schema of one table as it is written; tables inside it go to `definitions`."""
    (reference,), components = msgspec.json.schema_components((definition,), ref_template=f"#/$defs/{prefix}{{name}}")
    own_name = reference["$ref"].removeprefix(f"#/$defs/{prefix}")
    table: Schema = _without_null(components.pop(own_name))
    if definition is not Model:  # a model's variants are replaced by those of the plug-ins
        definitions.update({prefix + name: _without_null(schema) for name, schema in components.items()})
    elif "Gate" in components:
        definitions["Gate"] = _without_null(components["Gate"])
    table.setdefault("properties", {})
    table.setdefault("required", [])
    given = frozenset() if prefix else GIVEN
    table["properties"] = {key: value for key, value in table["properties"].items() if key not in given}
    for key, description in key_docs(definition).items():
        table["properties"].get(key, {}).setdefault("description", description)
    table["required"] = [key for key in table["required"] if key not in given]
    return table


def _without_null(schema: Any) -> Any:
    """Return a schema without null, which TOML cannot write: an absent key is an absent key."""
    if isinstance(schema, list):
        return [_without_null(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        key: _without_null(value)
        for key, value in schema.items()
        if not (key == "default" and (value is None or value == () or isinstance(value, dict)))
    }
    options = [option for option in kept.pop("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        return {**options[0], **kept}
    return {**kept, **_by_type(options)} if options else kept


def _by_type(options: list[Schema]) -> Schema:
    """Return what is any of `options`: by the type of the value, where each takes another one.

    Of anyOf a validator says that none of them fits, and not what is wrong.
    """
    options = [_by_tag(option) if "discriminator" in option else option for option in options]
    types = [_type(option) for option in options]
    if None in types or len(set(types)) < len(types) or {"integer", "number"} <= set(types):
        return {"anyOf": options}
    checks = [
        {"if": {"type": kind}, "then": option}
        for kind, option in zip(types, options, strict=True)
        if option != {"type": kind}
    ]
    return {"type": types, "allOf": checks}


def _by_tag(union: Schema) -> Schema:
    """Return what is any table of `union`: by the value of the key that tells which."""
    key, places = union["discriminator"]["propertyName"], union["discriminator"]["mapping"]
    named = {name: {"properties": {key: {"const": name}}, "required": [key]} for name in places}
    return {
        "type": "object",
        "properties": {key: {"enum": sorted(places)}},
        "required": [key],
        "allOf": [{"if": named[name], "then": {"$ref": place}} for name, place in places.items()],
    }


def _type(option: Schema) -> str | None:
    """Return the one JSON type that a schema takes, None where that is not plain to see."""
    if "$ref" in option:
        return "object"  # a table
    if all(isinstance(value, str) for value in option.get("enum", [None])):
        return "string"
    found = option.get("type")
    return found if isinstance(found, str) else None
