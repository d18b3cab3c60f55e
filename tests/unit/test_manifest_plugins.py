"""Finding plug-ins: one file each, nothing imported that is not named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import msgspec
import pytest
from manifest_fakes import GOOD, PLUGINS, write

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.contracts import REQUIRED, lacking
from quantbuild.manifest.definitions import GIVEN, Dataset, Device, Variant, written_keys
from quantbuild.manifest.loading import load
from quantbuild.manifest.plugins import CONVERT_MARKER, OPTIONS_MARKER, PluginModules, installed


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "plugged_in"
    folder.mkdir()
    for name, text in {
        "__init__": "",
        "adb": "class Options:\n    pass\n",
        "host": "'''Says class Options in its docs.'''\nclass Options(object): pass\n",
        "host_process": "def main():\n    class Options: pass\n",
        "broken": "class Options: pass\nraise RuntimeError('imported')\n",
        "keras": "def convert(job):\n    pass\n",
    }.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "plugged_in"


def test_a_module_is_a_plugin_if_it_has_the_marker_at_the_start_of_a_line(package):
    assert list(PluginModules(package, OPTIONS_MARKER)) == ["adb", "broken", "host"]
    assert list(PluginModules(package, CONVERT_MARKER)) == ["keras"]


def test_a_plugin_is_imported_when_it_is_asked_for_and_not_before(package):
    modules = PluginModules(package, OPTIONS_MARKER)
    assert "broken" in modules
    assert len(modules) == 3
    assert f"{package}.broken" not in sys.modules
    with pytest.raises(RuntimeError, match="imported"):
        modules["broken"]


@pytest.mark.parametrize("name", ["host_process", "missing", "../adb", "", 3, "adb.py"])
def test_what_is_no_plugin_is_not_found(package, name):
    modules = PluginModules(package, OPTIONS_MARKER)
    assert name not in modules
    with pytest.raises(KeyError):
        modules[name]


@pytest.mark.parametrize("plugins", [PLUGINS, installed()], ids=["fakes", "installed"])
def test_no_key_of_a_plugin_hides_a_key_of_its_table(plugins):
    for definition, modules in ((Dataset, plugins.datasets), (Variant, plugins.schemes), (Device, plugins.runners)):
        for name, module in modules.items():
            keys = written_keys(definition) | GIVEN
            assert keys.isdisjoint(field for field in module.Options.__struct_fields__), name


@pytest.mark.parametrize("kind", REQUIRED)
def test_every_installed_plugin_has_what_its_kind_must_have(kind):
    assert {lacking(kind, name, module) for name, module in getattr(installed(), kind).items()} == {None}


@pytest.mark.parametrize("kind", REQUIRED)
def test_what_a_plugin_must_have_is_in_the_docs(kind):
    page = (Path(__file__).parents[2] / "docs" / "adding.md").read_text(encoding="utf-8")
    section = page.partition(f"/{kind}/NAME.py`")[2].partition("## ")[0]
    for names in REQUIRED[kind]:
        assert re.search(rf"`({'|'.join(names.split(' or '))})\b", section), names


@pytest.mark.parametrize(
    ("kind", "name", "place", "said"),
    [
        ("runners", "adb", "device.phone.runner", 'lacks {}; add it as docs/adding.md says under "A runner"'),
        ("datasets", "arrays", "dataset.train.loader", 'lacks {}; add it as docs/adding.md says under "A loader"'),
        (
            "schemes",
            "int8",
            "model.digits.variant.int8.scheme",
            'lacks {}; add it as docs/adding.md says under "A scheme"',
        ),
        ("sources", "keras", "model.digits.source", 'lacks {}; add it as docs/adding.md says under "A source"'),
    ],
)
def test_a_plugin_that_lacks_a_name_is_a_problem_of_each_key_that_names_it(tmp_path, kind, name, place, said):
    module = getattr(PLUGINS, kind)[name]
    for names in REQUIRED[kind]:
        first = names.partition(" or ")[0]
        without = ModuleType(name)
        without.__dict__.update({key: value for key, value in module.__dict__.items() if key != first})
        plugins = msgspec.structs.replace(PLUGINS, **{kind: {**getattr(PLUGINS, kind), name: without}})
        write(tmp_path, m=GOOD)
        with pytest.raises(ManifestErrors) as error:
            load(tmp_path, environ={}, plugins=plugins)
        told = [line for line in error.value.lines if f": {place}: " in line]
        assert [line.partition(f"{place}: ")[2] for line in told] == [
            f"the plug-in quantbuild/{kind}/{name}.py {said.format(names)}"
        ]
        assert all(" lacks " in line for line in error.value.lines)


def test_options_that_are_no_struct_are_told():
    module = ModuleType("adb")
    module.__dict__.update(dict.fromkeys(REQUIRED["runners"]))
    assert lacking("runners", "adb", module) == (
        "Options of the plug-in quantbuild/runners/adb.py is no msgspec.Struct; "
        'write it as docs/adding.md says under "A runner"'
    )


def test_loading_manifests_imports_neither_numpy_nor_tensorflow_nor_litert():
    script = (
        "import sys\n"
        "from quantbuild.manifest.loading import load\n"
        "from quantbuild.manifest.schema import json_schema\n"
        "json_schema()\n"
        "heavy = {'numpy', 'tensorflow', 'keras', 'ai_edge_litert', 'litert_quantizer', 'jinja2'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
