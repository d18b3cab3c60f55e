"""Finding plug-ins: one file each, nothing imported that is not named."""

from __future__ import annotations

import subprocess
import sys

import pytest
from manifest_fakes import PLUGINS

from quantbuild.manifest.definitions import GIVEN, Dataset, Device, Variant, written_keys
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
