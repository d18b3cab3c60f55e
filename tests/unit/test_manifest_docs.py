"""The reference of the manifest: every key, with its type and default, and TOML that loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from msgspec import structs

from quantbuild.datasets.image_folder import Preprocess
from quantbuild.manifest.definitions import (
    GIVEN,
    LABEL_METRICS,
    METRICS,
    RESERVED_NAMES,
    Cache,
    Dataset,
    Device,
    Gate,
    Model,
    Settings,
    Variant,
)
from quantbuild.manifest.documentation import default_words
from quantbuild.manifest.loading import CACHE_VARIABLES, load
from quantbuild.manifest.plugins import installed
from quantbuild.manifest.words import type_words

DOCUMENT = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
SECTIONS = dict(re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))

DEFINITIONS = {
    "`[dataset.NAME]`": Dataset,
    "`[model.NAME]`": Model,
    "`[model.NAME.variant.NAME]`": Variant,
    "`[model.NAME.gate]` and `[model.NAME.variant.NAME.gate]`": Gate,
    "`[device.NAME]`": Device,
    "`preprocess` of `image_folder`": Preprocess,
    "`[workspace]`": Settings,
    "`[workspace.cache]`": Cache,
}
PLUGINS = {
    f'`{selector} = "{name}"`': module.Options
    for selector, modules in (
        ("loader", installed().datasets),
        ("scheme", installed().schemes),
        ("runner", installed().runners),
    )
    for name, module in modules.items()
}


def _rows(section):
    rows = [line.strip("|").split("|", 3) for line in section.splitlines() if line.startswith("| `")]
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in rows}


@pytest.mark.parametrize("heading", [*DEFINITIONS, *PLUGINS])
def test_every_key_is_documented_with_its_type_and_default(heading):
    assert heading in SECTIONS, f"docs/manifest.md has no section {heading}"
    definition = {**DEFINITIONS, **PLUGINS}[heading]
    documented = {key: (kind, default) for key, (kind, default, _) in _rows(SECTIONS[heading]).items()}
    assert documented == {
        field.encode_name: (type_words(field.type), default_words(field))
        for field in structs.fields(definition)
        if heading in PLUGINS or field.name not in GIVEN
    }


def test_every_key_says_what_it_means():
    for section in SECTIONS.values():
        assert all(meaning.rstrip(" |") for *_, meaning in _rows(section).values())


@pytest.mark.parametrize(("heading", "key", "plugins"), [
    ("`[dataset.NAME]`", "loader", installed().datasets),
    ("`[model.NAME]`", "source", installed().sources),
    ("`[model.NAME.variant.NAME]`", "scheme", installed().schemes),
    ("`[device.NAME]`", "runner", installed().runners),
], ids=["loaders", "sources", "schemes", "runners"])  # fmt: skip
def test_every_plugin_is_named_where_it_is_chosen(heading, key, plugins):
    meaning = _rows(SECTIONS[heading])[key][2]
    assert set(re.findall(r"`(\w+)`", meaning)) == set(plugins)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_toml_block_loads(tmp_path, block):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "block.toml").write_text(block, encoding="utf-8")
    load(tmp_path, environ={}, check_files=False)


def test_there_are_toml_blocks_to_load():
    assert len(BLOCKS) >= 3


def test_metrics_variables_and_reserved_names_are_documented():
    words = {*METRICS, *LABEL_METRICS, *RESERVED_NAMES, *CACHE_VARIABLES.values(), "QUANTBUILD_CACHE_TOKEN"}
    assert {word for word in words if word not in DOCUMENT} == set()
