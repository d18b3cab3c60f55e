"""Loading: what a right manifest means, and that every mistake is told at once, with its line and a remedy."""

from __future__ import annotations

import re

import pytest
from manifest_fakes import GOOD, PLUGINS, line_of, loaded, problems, write

from quantbuild.errors import ManifestErrors
from quantbuild.manifest.definitions import Gate
from quantbuild.manifest.loading import load


def test_a_good_manifest_loads_with_defaults_filled_in(tmp_path):
    workspace = loaded(tmp_path, good=GOOD)
    model = workspace.models["digits"]
    assert workspace.files == ("manifests/good.toml",)
    assert workspace.datasets["train"].samples == 500
    assert workspace.datasets["test"].seed == 0
    assert workspace.datasets["test"].options.preprocess is None
    assert model.input_shapes == {"image": (1, 8, 8, 1)}
    assert model.variants["int8"].options.ranges == "auto"
    assert workspace.devices["host"].required and not workspace.devices["phone"].required
    assert model.shipped() == {"default": "int8"}


def test_a_model_without_devices_is_measured_on_every_device(tmp_path):
    assert loaded(tmp_path, good=GOOD).models["digits"].devices == ("host", "phone")


def test_a_model_with_an_empty_list_of_devices_is_measured_on_none(tmp_path):
    text = GOOD.replace('ship = "int8"', "devices = []").replace("max_latency_ratio", "# max_latency_ratio", 1)
    text = text.replace(", max_latency_ratio = { host = 2 }", "")
    assert loaded(tmp_path, good=text).models["digits"].devices == ()


def test_a_variants_gate_overrides_its_models_key_by_key_and_device_by_device(tmp_path):
    model = loaded(tmp_path, good=GOOD).models["digits"]
    assert model.variants["int8"].gate is model.gate or model.variants["int8"].gate == model.gate
    assert model.variants["half"].gate == Gate(
        max_accuracy_loss=0.01, max_size_ratio=0.6, max_latency_ratio={"host": 2.0, "phone": 1.0}
    )


def test_a_comment_or_the_order_of_tables_changes_nothing(tmp_path):
    blocks = GOOD.removeprefix("schema = 1\n").split("\n\n")
    shuffled = "# a comment\nschema = 1\n" + "\n\n# another\n".join(reversed(blocks))
    first = loaded(tmp_path, good=GOOD)
    again = loaded(tmp_path, good=shuffled)
    assert again.models["digits"].devices == ("phone", "host")
    assert (again.datasets, again.devices, again.cache) == (first.datasets, first.devices, first.cache)
    assert loaded(tmp_path, good="# only a comment\n" + GOOD.replace("samples = 500", "samples = 500 # n")) == first


def test_models_may_be_spread_over_files_and_folders(tmp_path):
    head, variants = GOOD.split("[model.digits.variant.int8]")
    (tmp_path / "manifests" / "deep").mkdir(parents=True)
    (tmp_path / "manifests" / "deep" / "more.toml").write_text(
        "schema = 1\n[model.digits.variant.int8]" + variants, encoding="utf-8"
    )
    workspace = loaded(tmp_path, a=head)
    assert workspace.files == ("manifests/a.toml", "manifests/deep/more.toml")
    assert list(workspace.models["digits"].variants) == ["int8", "half"]


def test_no_line_is_looked_up_while_there_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr("quantbuild.manifest.loading.locate", None)
    monkeypatch.setattr("quantbuild.manifest.reading.locate", None)
    assert loaded(tmp_path, good=GOOD).models


def test_the_installed_plugins_take_their_own_keys(tmp_path):
    text = GOOD.replace('"arrays"', '"npz"\ninput = "x"').replace('"adb"\nserial = "123"', '"host"\nthreads = 2')
    workspace = load(write(tmp_path, good=text), environ={})
    assert workspace.datasets["train"].options.input == "x"
    assert workspace.models["digits"].variants["int8"].options.io == "int8"
    assert workspace.devices["phone"].options.threads == 2


TEN_MISTAKES = """\
schema = 1

[dataset.train]
loader = "arays"
path = "data/train.npz"

[dataset.test]
loader = "arrays"
path = "data/missing.npz"
samples = 0

[device.phone]
runner = "adb"
serail = "123"
serial = "123"

[model.digits]
source = "keras"
path = "/abs/digits.keras"
calibration = "trian"
evaluation = "test"
metric = "top2"
devices = [
  "phone",
  "desk",
]

[model.digits.gate]
min_agreement = 1.5

[model.digits.variant.int8]
scheme = "int8"
io = 8
"""


def test_ten_different_mistakes_are_ten_lines_each_with_its_own_line(tmp_path):
    expected = {
        'loader = "arays"': ("dataset.train.loader", 'unknown loader "arays"; did you mean "arrays"?'),
        "missing.npz": ("dataset.test.path", '"data/missing.npz" does not exist; '),
        "samples = 0": ("dataset.test.samples", "0 is not allowed; write a whole number of at least 1"),
        "serail": ("device.phone.serail", 'unknown key "serail"; did you mean "serial"?'),
        "/abs": ("model.digits.path", '"/abs/digits.keras" is absolute; '),
        "trian": ("model.digits.calibration", 'unknown dataset "trian"; did you mean "train"? known: test, train'),
        "top2": ("model.digits.metric", 'unknown value "top2"; did you mean "top5"? write top1, '),
        "desk": ("model.digits.devices[1]", 'unknown device "desk"; known: phone'),
        "min_agreement": ("model.digits.gate.min_agreement", "1.5 is not allowed; write a number of at least 0"),
        "io = 8": ("model.digits.variant.int8.io", '8 is a whole number; write "float32", "int8" or "uint8"'),
    }
    found = problems(tmp_path, bad=TEN_MISTAKES)
    starts = [
        f"manifests/bad.toml:{line_of(TEN_MISTAKES, part)}: {key}: {text}" for part, (key, text) in expected.items()
    ]
    assert len(found) == 10, "\n".join(found)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)
        assert re.fullmatch(r"manifests/bad\.toml:\d+: [^ ]+: [^;]+; .+", line)


ONE_MISTAKE = [
    # what is replaced, by what, the line's part, the key, how the problem begins
    ("schema = 1", "", "", "schema", 'missing key "schema"; write schema = 1'),
    ("schema = 1", "schema = 2", "schema", "schema", "2 is not supported; this quantbuild reads schema = 1"),
    ("schema = 1", "schema = true", "schema", "schema", "true is not supported; "),
    ("[model.digits]", "[modell.x]\n[model.digits]", "modell", "modell", 'unknown key "modell"; did you mean "model"?'),
    ("[model.digits]\n", "[model]\nx = 3\n[model.digits]\n", "x = 3", "model.x", "3 is a whole number; write a table "),
    ('path = "digits.keras"\n', "", "[model.digits]", "model.digits", 'missing key "path"; add path, a path rel'),
    ('scheme = "int8"', "", "variant.int8", "model.digits.variant.int8", 'missing key "scheme"; add scheme, a text'),
    ('serial = "123"', "", "device.phone", "device.phone", 'missing key "serial"; add serial, a text'),
    ('serial = "123"', "serial = 1", "serial", "device.phone.serial", "1 is a whole number; write a text"),
    ('serial = "123"', 'serial = "1"\nname = "n"', "name =", "device.phone.name", 'unknown key "name"; known: '),
    ('io = "int8"', 'gates = "int8"', "gates", "model.digits.variant.int8.gates", 'unknown key "gates"; did you mean '),
    ('io = "int8"', 'io = "int9"', "int9", "model.digits.variant.int8.io", 'unknown value "int9"; did you mean "int8"'),
    ('io = "int8"', "trials = 10", "trials", "model.digits.variant.int8.trials", "more than 9 are never needed; write"),
    ('io = "int8"', "ranges = { mean = [1, 'a'] }", "ranges", "model.digits.variant.int8.ranges.mean[1]", '"a" is a t'),
    ('"keras"', '"karas"', "karas", "model.digits.source", 'unknown source "karas"; did you mean "keras"? known: kera'),
    ('scheme = "float16"', 'scheme = "fp16"', "fp16", "model.digits.variant.half.scheme", 'unknown scheme "fp16"; '),
    ('runner = "host"', 'runner = "hots"', "hots", "device.host.runner", 'unknown runner "hots"; did you mean "host"?'),
    ('ship = "int8"', 'ship = "int4"', "ship", "model.digits.ship", 'unknown variant "int4"; did you mean "int8"? kno'),
    ('ship = "int8"', 'ship = { low = "half" }', "ship", "model.digits.ship", 'missing key "default"; name the varian'),
    ('ship = "int8"', 'ship = "float32"', "ship", "model.digits.ship", "float32 is what the variants are compared "),
    ("0.01", "1", "max_acc", "model.digits.gate.max_accuracy_loss", "1 would be 100 points, which nothing can lose; o"),
    ("0.01", "2.5", "max_acc", "model.digits.gate.max_accuracy_loss", "2.5 would be 250 points, which nothing can"),
    ('ship = "int8"', "ship = 3", "ship", "model.digits.ship", "3 is a whole number; write a text or a table with tex"),
    ("labels.txt", "label.txt", "labels", "model.digits.labels", '"label.txt" does not exist; '),
    ("[1, 8, 8, 1]", "[1, 8, -1]", "input_sh", "model.digits.input_shapes.image[2]", "-1 is not allowed; write a whol"),
    ("[1, 8, 8, 1]", "[]", "input_sh", "model.digits.input_shapes.image", "[] is not allowed; write a list of whole "),
    ("0.01", "nan", "max_acc", "model.digits.gate.max_accuracy_loss", "nan is not allowed; write a number of at least"),
    ("0.35", "inf", "inf", "model.digits.gate.max_size_ratio", "is not a finite number; write one, or leave"),
    ("0.35", "'x'", "'x'", "model.digits.gate.max_size_ratio", '"x" is a text; write a number above 0'),
    ("0.35", "true", "max_size", "model.digits.gate.max_size_ratio", "true is true or false; write a number above 0"),
    ("phone = 1.0", "phon = 1.0", "phon ", "model.digits.gate.max_latency_ratio.phon", 'unknown device "phon"; did yo'),
    ('ship = "int8"', 'devices = ["host"]', "phone = 1", "model.digits.gate.max_latency_ratio.phone", "this model is "),
    ('ship = "int8"', 'devices = ["host", "phone", "host"]', "devices", "model.digits.devices[2]", '"host" is listed '),
    ('ship = "int8"', 'selection = "test"', "selection", "model.digits.selection", "is the evaluation set, on which n"),
    ('"top1"', '"sqnr"', "max_accuracy", "model.digits.gate.max_accuracy_loss", "sqnr has no loss against float32; us"),
    ('evaluation = "test"', "", "max_accuracy", "model.digits.gate.max_accuracy_loss", "there is nothing to judge it "),
    ('calibration = "train"', "", 'scheme = "int8"', "model.digits.variant.int8.scheme", '"int8" needs a calibration '),
    ("[model.digits]\n", "[model.report]\nsource='keras'\npath='digits.keras'\n[model.digits]\n", "report",
     "model.report", '"report" is reserved; choose another name'),
    ("[model.digits]\n", "[model.'quantbuild.d']\nsource='keras'\npath='digits.keras'\n[model.digits]\n",
     "quantbuild.d", 'model."quantbuild.d"', '"quantbuild.d" is reserved; choose another name'),
    ("[model.digits.variant.half]", "[model.digits.variant.'statistics.npz']", "statistics.npz",
     'model.digits.variant."statistics.npz"', '"statistics.npz" is reserved; choose another name'),
    ("[model.digits.variant.half]", "[model.digits.variant.INT8]", "INT8", "model.digits.variant.INT8",
     "differs from model.digits.variant.int8 by case alone; choose another name"),
    ("[model.digits.variant.half]", "[model.digits.variant.'a b']", "a b", 'model.digits.variant."a b"',
     '"a b" is no name; use letters'),
    ("[model.digits.variant.half]", "[model.digits.variant.model]", "ant.model", "model.digits.variant.model",
     "model.tflite is already what is shipped; choose another name"),
    ("[dataset.train]", "[workspace]\ncache = { remote = 'ftp://x' }\n[dataset.train]", "ftp", "workspace.cache.remote",
     '"ftp://x" is not allowed; write an address such as http://'),
    ("[dataset.train]", "[workspace]\ncache = { token = 'secret' }\n[dataset.train]", "token", "workspace.cache.token",
     'unknown key "token"; '),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "part", "key", "text"), ONE_MISTAKE, ids=lambda value: str(value)[:24])
def test_one_mistake_is_one_line_at_its_place(tmp_path, old, new, part, key, text):
    bad = GOOD.replace(old, new, 1)
    assert bad != GOOD
    found = problems(tmp_path, bad=bad)
    assert len(found) == 1, "\n".join(found)
    assert found[0].startswith(f"manifests/bad.toml:{line_of(bad, part)}: {key}: {text}")
    assert "; " in found[0]


@pytest.mark.parametrize(("metric", "limit"), [("top1", "1.0"), ("mae", "3"), ("mse", "250.0")])
def test_a_loss_of_the_whole_or_in_another_unit_is_a_limit(tmp_path, metric, limit):
    text = GOOD.replace("0.01", limit, 1).replace('"top1"', f'"{metric}"')
    assert loaded(tmp_path, good=text).models["digits"].gate.max_accuracy_loss == float(limit)


def test_a_misspelt_key_that_names_a_plugin_is_both_unknown_and_missing(tmp_path):
    found = problems(tmp_path, bad=GOOD.replace('scheme = "float16"', 'schema = "float16"'))
    assert [line.split(": ", 1)[1].split(";")[0] for line in found] == [
        'model.digits.variant.half: missing key "scheme"',
        'model.digits.variant.half.schema: unknown key "schema"',
    ]


def test_a_mistake_in_one_key_hides_no_mistake_in_another_key_of_the_same_table(tmp_path):
    bad = GOOD.replace('source = "keras"', 'surce = "keras"').replace(
        'metric = "top1"', 'metric = "top1"\nselection = "x"'
    )
    found = problems(tmp_path, bad=bad.replace("digits.keras", "gone.keras"))
    assert [line.split(": ")[1] for line in found] == [
        "model.digits",
        "model.digits.surce",
        "model.digits.path",
        "model.digits.selection",
    ]


def test_a_mistake_in_a_models_gate_hides_no_mistake_in_its_variants(tmp_path):
    found = problems(tmp_path, bad=GOOD.replace("0.35", "0").replace("0.6", "'x'").replace('io = "int8"', "io = 8"))
    assert [line.split(": ")[1] for line in found] == [
        "model.digits.gate.max_size_ratio",
        "model.digits.variant.int8.io",
        "model.digits.variant.half.gate.max_size_ratio",
    ]


def test_a_label_metric_needs_labels_only_of_a_loader_that_can_leave_them_out(tmp_path):
    unlabelled = GOOD.replace('path = "data/test.npz"\nlabel = "y"', 'path = "data/test.npz"')
    (line,) = problems(tmp_path, bad=unlabelled)
    assert '"top1" needs labels; add label to dataset.test, or use agreement' in line
    folder = GOOD.replace(
        'loader = "arrays"\npath = "data/test.npz"\nlabel = "y"', 'loader = "folder"\npaths = ["data"]'
    )
    assert problems(tmp_path, bad=folder) == []


def test_a_missing_file_in_a_list_is_placed_at_its_element(tmp_path):
    text = GOOD.replace(
        'loader = "arrays"\npath = "data/test.npz"\nlabel = "y"', 'loader = "folder"\npaths = [\n"data",\n"gone"]'
    )
    (line,) = problems(tmp_path, bad=text)
    assert line.startswith(f'manifests/bad.toml:{line_of(text, "gone")}: dataset.test.paths[1]: "gone" does not exist;')


def test_a_dataset_that_matches_no_file_is_an_error(tmp_path):
    text = GOOD.replace('loader = "arrays"\npath = "data/test.npz"\nlabel = "y"', 'loader = "folder"\npaths = []')
    (line,) = problems(tmp_path, bad=text)
    assert "dataset.test: no file matches; " in line


def test_metrics_of_ones_own_are_named_by_module_and_function(tmp_path):
    (line,) = problems(tmp_path, good=GOOD.replace('"top1"', '"my.metrics:dice"'))
    assert 'model.digits.metric: "my" does not exist; ' in line
    (tmp_path / "my").mkdir()
    assert problems(tmp_path, good=GOOD.replace('"top1"', '"my.metrics:dice"')) == []
    for wrong in ("my.metrics", ":dice", "my metrics:dice", "my.metrics:dice:2"):
        assert len(problems(tmp_path, good=GOOD.replace('"top1"', f'"{wrong}"'))) == 1


def test_paths_may_leave_the_root_but_not_be_absolute(tmp_path):
    (tmp_path / "shared.keras").touch()
    root = tmp_path / "root"
    root.mkdir()
    assert problems(root, good=GOOD.replace("digits.keras", "../shared.keras")) == []
    for absolute in (str(tmp_path / "shared.keras"), r"C:\\shared.keras"):
        (line,) = problems(root, good=GOOD.replace("digits.keras", absolute))
        assert "is absolute; " in line


def test_a_table_in_two_files_is_an_error_that_names_both(tmp_path):
    again = 'schema = 1\n\n[dataset.test]\nloader = "arrays"\npath = "data/test.npz"\n'
    (line,) = problems(tmp_path, a=GOOD, b=again)
    first = line_of(GOOD, "[dataset.test]")
    assert line == f"manifests/b.toml:3: dataset.test: manifests/a.toml:{first} has it too; keep one of them"
    model = 'schema = 1\n[model.digits]\nmetric = "top5"\n'
    (line,) = problems(tmp_path, a=GOOD, b=model)
    assert line.startswith("manifests/b.toml:2: model.digits: manifests/a.toml:")


def test_a_table_that_dotted_keys_make_counts_as_the_same_table(tmp_path):
    dotted = 'schema = 1\nmodel.m.source = "keras"\nmodel.m.path = "digits.keras"\n'
    (line,) = problems(tmp_path, a=dotted, b='schema = 1\n[model.m]\nmetric = "top5"\n')
    assert line == "manifests/b.toml:2: model.m: manifests/a.toml:2 has it too; keep one of them"


def test_the_same_section_as_a_table_and_as_a_value_is_told(tmp_path):
    found = problems(tmp_path, a="schema = 1\nmodel = 3\n", b=GOOD)
    assert any(": model: manifests/a.toml:2 has it too; " in line for line in found)


def test_a_missing_key_is_placed_in_the_file_with_the_tables_header(tmp_path):
    head, variants = GOOD.split("[model.digits.variant.int8]")
    bad = head.replace('path = "digits.keras"\n', "")
    (line,) = problems(tmp_path, a="schema = 1\n[model.digits.variant.int8]" + variants, b=bad)
    assert line.startswith(f"manifests/b.toml:{line_of(bad, '[model.digits]')}: model.digits: missing key")


def test_text_that_is_no_toml_is_told_with_its_line_and_hides_nothing_else(tmp_path):
    other = GOOD.replace('io = "int8"', "io = 8")
    found = problems(tmp_path, a="schema = 1\n[dataset.train\n", b=other)
    assert [line.split(": ")[0] for line in found] == [
        "manifests/a.toml:2",
        f"manifests/b.toml:{line_of(other, 'io = 8')}",
    ]
    assert "; correct the TOML" in found[0]


def test_names_are_not_called_unknown_while_a_manifest_cannot_be_parsed(tmp_path):
    datasets, rest = GOOD.split("[device.host]")
    found = problems(tmp_path, a=datasets + "x = = 1\n", b="schema = 1\n[device.host]" + rest)
    assert len(found) == 1
    assert found[0].startswith("manifests/a.toml:")


def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path):
    root = write(tmp_path)
    (root / "manifests").mkdir()
    (root / "manifests" / "latin.toml").write_bytes("schema = 1\n# größe\n".encode("latin-1"))
    with pytest.raises(ManifestErrors) as raised:
        load(root, plugins=PLUGINS, environ={})
    assert raised.value.lines == ["manifests/latin.toml:2: TOML: this is not UTF-8; save the file as UTF-8"]


def test_a_byte_order_mark_and_carriage_returns_are_no_problem(tmp_path):
    assert problems(tmp_path, good="\ufeff" + GOOD.replace("\n", "\r\n")) == []


def test_a_workspace_without_manifests_says_where_they_belong(tmp_path):
    (line,) = problems(tmp_path)
    assert line == 'manifests: no manifest is there; write one ending in .toml, or run "quantbuild init"'


def test_files_of_editors_that_begin_with_a_dot_are_not_read(tmp_path):
    write(tmp_path, good=GOOD)
    (tmp_path / "manifests" / ".#good.toml").write_text("not toml", encoding="utf-8")
    assert loaded(tmp_path).files == ("manifests/good.toml",)


def test_files_need_not_exist_where_they_are_not_asked_for(tmp_path):
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "good.toml").write_text(GOOD, encoding="utf-8")
    assert list(load(tmp_path, plugins=PLUGINS, environ={}, check_files=False).models) == ["digits"]
    with pytest.raises(ManifestErrors) as raised:
        load(tmp_path, plugins=PLUGINS, environ={})
    assert len(raised.value.lines) == 4


def test_the_environment_overrides_the_cache_settings_and_the_token_is_not_kept(tmp_path):
    text = GOOD + '[workspace]\ncache = { directory = "c", remote = "http://a:1", upload = true }\n'
    assert loaded(tmp_path, good=text).cache.upload
    environ = {
        "QUANTBUILD_CACHE_DIR": "/var/cache/q",
        "QUANTBUILD_CACHE_REMOTE": "https://b:2",
        "QUANTBUILD_CACHE_UPLOAD": "0",
        "QUANTBUILD_CACHE_TOKEN": "secret",
    }
    workspace = loaded(tmp_path, environ, good=text)
    assert (workspace.cache.directory, workspace.cache.remote, workspace.cache.upload) == (
        "/var/cache/q",
        "https://b:2",
        False,
    )
    assert "secret" not in repr(workspace)
    assert loaded(tmp_path, dict.fromkeys(environ, ""), good=text).cache == loaded(tmp_path, good=text).cache


def test_a_wrong_environment_variable_is_told_like_a_wrong_key(tmp_path):
    environ = {"QUANTBUILD_CACHE_UPLOAD": "maybe", "QUANTBUILD_CACHE_REMOTE": "b:2"}
    found = problems(tmp_path, environ, good=GOOD)
    assert found == [
        'environment: QUANTBUILD_CACHE_UPLOAD: "maybe" is neither on nor off; write 1 or 0',
        'environment: QUANTBUILD_CACHE_REMOTE: "b:2" is no address; write one such as http://cache.example:8080',
    ]


@pytest.mark.parametrize("section", ["dataset", "model", "device", "workspace"])
def test_a_section_that_is_no_table_is_told_and_not_fatal(tmp_path, section):
    found = problems(tmp_path, bad=f"schema = 1\n{section} = 3\n")
    assert found == [f"manifests/bad.toml:2: {section}: 3 is a whole number; write a table [{section}]"]
