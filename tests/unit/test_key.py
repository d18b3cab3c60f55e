"""The key of a step: equal meaning gives an equal key, and whatever can change the result gives another.

Over real manifests, plans and pre-images; no step is run.
"""

from __future__ import annotations

import copy
import fnmatch
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keys_of
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keys_of import FILES, TABLES, Spelling, Tables

from quantbuild import keys as keys_module
from quantbuild import tools
from quantbuild.code import PACKAGE_FOLDER, CodeDigests
from quantbuild.digests import Digests
from quantbuild.freshness import key_of
from quantbuild.manifest.definitions import Dataset, Device, Gate, Model, Variant
from quantbuild.steps import plug_in

SEEDS = st.integers(0, 2**32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return keys_of.written(tmp_path / "workspace")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace as it is written plainly; nobody alters it."""
    return keys_of.written(tmp_path_factory.mktemp("plain") / "workspace")


@pytest.fixture(scope="module")
def keys(plain: Path) -> dict[str, str]:
    return keys_of.planned(plain)


# Equal meaning -----------------------------------------------------------------------------------------------------


def defaults_of(table: Tables, definition: type[msgspec.Struct]) -> Tables:
    """Return the keys of a table that could be left out, with what they are then."""
    found = {}
    for field in msgspec.structs.fields(definition):
        if field.encode_name in ("name", "options", "devices", "variant", "gate", *table) or field.required:
            continue
        value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]
        plain_value = msgspec.json.decode(msgspec.json.encode(value))
        if plain_value is not None:
            found[field.encode_name] = plain_value
    return found


def with_defaults(tables: Tables, chance: random.Random) -> Tables:
    """Return the tables with some of what may be left out written down."""
    full = copy.deepcopy(tables)

    def fill(table: Tables, definition: type[msgspec.Struct]) -> None:
        for key, value in sorted(defaults_of(table, definition).items()):
            if chance.random() < 0.5:
                table[key] = value

    for table in full["dataset"].values():
        options = plug_in("datasets", table["loader"]).Options
        fill(table, Dataset)
        fill(table, options)
        inner = {field.name: field.type for field in msgspec.structs.fields(options)}.get("preprocess")
        if "preprocess" in table and isinstance(inner, type):
            fill(table["preprocess"], inner)
    for table in full["device"].values():
        fill(table, Device)
        fill(table, plug_in("runners", table["runner"]).Options)
    for table in full["model"].values():
        fill(table, Model)
        fill(table.setdefault("gate", {}), Gate)
        if chance.random() < 0.5:
            table.setdefault("devices", list(full["device"]))
        for variant in table["variant"].values():
            fill(variant, Variant)
            fill(variant, plug_in("schemes", variant["scheme"]).Options)
    return full


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_however_a_manifest_is_spelled_laid_out_and_ordered_the_keys_are_the_same(
    keys: dict[str, str], seed: int
) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        spelling = Spelling(chance)
        place = keys_of.written(Path(folder) / "else where" / "ws", with_defaults(TABLES, chance), spelling)
        assert keys_of.planned(place) == keys


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_however_a_manifest_is_spelled_the_closing_steps_have_the_same_keys(plain: Path, seed: int) -> None:
    """The order of models and variants is that of the page, and of nothing else."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        spelling = Spelling(chance, shuffled=False)
        place = keys_of.written(Path(folder) / "ws", with_defaults(TABLES, chance), spelling)
        assert keys_of.closing_keys(place) == keys_of.closing_keys(plain)


@settings(max_examples=20, deadline=None)
@given(SEEDS)
def test_the_order_of_models_and_variants_does_not_publish_anew(plain: Path, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = keys_of.written(Path(folder) / "ws", TABLES, Spelling(random.Random(seed)))
        assert keys_of.closing_keys(place)["dist"] == keys_of.closing_keys(plain)["dist"]


def test_a_workspace_that_was_moved_and_touched_has_the_same_keys(root: Path, keys: dict[str, str]) -> None:
    moved = root.with_name("moved and renamed")
    shutil.move(root, moved)
    for path in moved.rglob("*"):
        os.utime(path, (12345, 67890))
    assert keys_of.planned(moved) == keys
    assert keys_of.closing_keys(moved) == keys_of.closing_keys(keys_of.written(root))


# Another meaning ---------------------------------------------------------------------------------------------------

ABSENT = object()

# Where in the tables, what it becomes, and the planned steps whose keys change; no other may.
CHANGES: list[tuple[str, Any, list[str]]] = [
    ("dataset.data.input", "x2", ["evaluate:first/*"]),
    ("dataset.data.input", {"image": "x"}, ["evaluate:first/*"]),
    ("dataset.data.label", "y2", ["evaluate:first/*"]),
    ("dataset.data.label", ABSENT, ["evaluate:first/*"]),
    ("dataset.data.slice", "group", ["evaluate:first/*"]),
    ("dataset.data.samples", 999, ["evaluate:first/*"]),
    ("dataset.data.samples", ABSENT, ["evaluate:first/*"]),
    ("dataset.data.seed", 1, ["evaluate:first/*"]),
    ("dataset.data.preprocess.mean", 1.0000001, ["evaluate:first/*"]),
    ("dataset.data.preprocess.mean", [1.0], ["evaluate:first/*"]),
    ("dataset.data.preprocess", ABSENT, ["evaluate:first/*"]),
    ("dataset.data.preprocess", {}, ["evaluate:first/*"]),
    ("dataset.pictures.seed", 4, ["calibrate:first", "quantize:first/plain"]),
    ("dataset.pictures.samples", 1, ["calibrate:first", "quantize:first/plain"]),
    ("dataset.pictures.labels", ABSENT, ["calibrate:first", "quantize:first/plain"]),
    ("dataset.pictures.preprocess.resize", 33, ["calibrate:first", "quantize:first/plain"]),
    ("dataset.pictures.preprocess.interpolation", "nearest", ["calibrate:first", "quantize:first/plain"]),
    ("dataset.pictures.preprocess.layout", "NCHW", ["calibrate:first", "quantize:first/plain"]),
    ("dataset.clips.inputs", ["clips/*"], ["evaluate:second/*"]),
    ("dataset.clips.path", "my_data:other", ["evaluate:second/*"]),
    ("model.first.signature", "other", ["convert:first", "quantize:first/plain"]),
    ("model.first.signature", ABSENT, ["convert:first", "quantize:first/plain"]),
    ("model.first.input_shapes.image", [1, 28, 28, 1], ["convert:first", "quantize:first/plain"]),
    ("model.first.input_shapes", {"picture": [1, 28, 28, 3]}, ["convert:first", "quantize:first/plain"]),
    ("model.first.source", "saved_model", ["convert:first", "quantize:first/plain"]),
    ("model.first.evaluation", "clips", ["evaluate:first/*"]),
    ("model.first.calibration", "data", ["calibrate:first", "quantize:first/plain"]),
    ("model.first.selection", "clips", ["calibrate:first", "quantize:first/plain"]),
    ("model.first.metric", "top1", ["evaluate:first/*"]),
    ("model.first.metric", "my_metrics:other", ["evaluate:first/*"]),
    ("model.second.path", "my_models:other", ["convert:second"]),
    ("model.second.inputs", ["weights/w.bin"], ["convert:second"]),
    ("model.second.metric", "sqnr", ["evaluate:second/*"]),
    ("model.first.variant.int8.io", "int8", ["quantize:first/int8"]),
    ("model.first.variant.int8.io", ABSENT, ["quantize:first/int8"]),
    ("model.first.variant.int8.ranges", ABSENT, ["quantize:first/int8"]),
    ("model.first.variant.half.scheme", "dynamic", ["quantize:first/half"]),
    ("device.host.threads", 2, ["benchmark:*@host"]),
    ("device.host.seconds", 2.5, ["benchmark:*@host"]),
    ("device.host.max_seconds", 11.0, ["benchmark:*@host"]),
    ("device.other.runs", 51, ["benchmark:*@other"]),
    ("device.other.warmup_runs", 0, ["benchmark:*@other"]),
    ("model.first.gate.max_accuracy_loss", 0.5, []),
    ("model.first.ship", "half", []),
    ("model.first.labels", ABSENT, []),
    ("device.other.required", False, []),
]


def changed(place: str, value: Any, tables: Tables = TABLES) -> Tables:
    altered = copy.deepcopy(tables)
    *path, key = place.split(".")
    table = altered
    for part in path:
        table = table[part]
    assert table.get(key, ABSENT) != value
    if value is ABSENT:
        del table[key]
    else:
        table[key] = value
    return altered


def that_differ(old: dict[str, str], new: dict[str, str]) -> set[str]:
    return {step for step in old.keys() | new.keys() if old.get(step) != new.get(step)}


def steps_like(keys: dict[str, str], patterns: list[str]) -> set[str]:
    found = [set(fnmatch.filter(keys, pattern)) for pattern in patterns]
    assert all(found), "a pattern that no step has"
    return set().union(*found)


@pytest.mark.parametrize(
    ("place", "value", "steps"), CHANGES, ids=[f"{number}-{change[0]}" for number, change in enumerate(CHANGES)]
)
def test_a_changed_option_changes_the_keys_of_the_steps_that_read_it_and_of_no_other(
    tmp_path: Path, keys: dict[str, str], place: str, value: Any, steps: list[str]
) -> None:
    found = keys_of.planned(keys_of.written(tmp_path / "ws", changed(place, value)))
    assert that_differ(keys, found) == steps_like(keys, steps)


@pytest.mark.parametrize(
    ("place", "value", "steps"),
    [
        ("model.first.gate.max_accuracy_loss", 0.5, {"check", "report"}),
        ("model.first.gate.undecided", "fail", {"check", "report"}),
        ("model.first.variant.int8.gate.min_sqnr_db", 21.0, {"check"}),
        ("model.first.ship", "half", {"dist", "report"}),
        ("model.first.labels", ABSENT, {"dist"}),
        ("device.other.required", False, {"report"}),
    ],
)
def test_a_changed_limit_or_what_ships_changes_the_keys_of_the_closing_steps(
    tmp_path: Path, plain: Path, place: str, value: Any, steps: set[str]
) -> None:
    found = keys_of.closing_keys(keys_of.written(tmp_path / "ws", changed(place, value)))
    assert that_differ(keys_of.closing_keys(plain), found) == steps


READ_BY = {
    "data.npz": ["evaluate:first/*"],
    "labels.csv": ["calibrate:first", "quantize:first/plain"],
    "pictures/dog/1.png": ["calibrate:first", "quantize:first/plain"],
    "first.keras": ["convert:first", "quantize:first/plain"],
    "my_data.py": ["evaluate:second/*"],
    "clips/a.bin": ["evaluate:second/*"],
    "my_models.py": ["convert:second"],
    "weights/w.bin": ["convert:second"],
    "my_metrics.py": ["evaluate:first/*"],
    "labels.txt": [],
}


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"pictures/cat/1.png"}))
def test_a_changed_byte_of_a_file_changes_the_keys_of_the_steps_that_read_it_and_of_no_other(
    root: Path, keys: dict[str, str], name: str
) -> None:
    path = root / name
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert that_differ(keys, keys_of.planned(root)) == steps_like(keys, READ_BY[name])


@pytest.mark.parametrize(
    "alter",
    [
        lambda folder: (folder / "dog/1.png").rename(folder / "dog/2.png"),
        lambda folder: (folder / "dog/1.png").rename(folder / "cat/3.png"),
        lambda folder: (folder / "dog/2.png").write_bytes(b""),
        lambda folder: (folder / "dog/1.png").unlink(),
        lambda folder: shutil.copy(folder / "cat/1.png", folder / "dog/1.png"),
    ],
)
def test_a_folder_is_all_its_names_and_contents(
    root: Path, keys: dict[str, str], alter: Callable[[Path], object]
) -> None:
    alter(root / "pictures")
    assert that_differ(keys, keys_of.planned(root)) == {"calibrate:first", "quantize:first/plain"}


# What is not in the workspace ---------------------------------------------------------------------------------------


def used_tools(plain: Path) -> dict[str, set[str]]:
    """Return each step's tools as its pre-image has them."""
    outcomes = keys_of.built(plain).outcomes.values()
    return {outcome.step: set(outcome.result.preimage["tools"]) for outcome in outcomes if outcome.result is not None}


def test_another_version_of_a_tool_changes_the_keys_of_the_steps_that_use_it(
    plain: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = used_tools(plain)
    known = tools.version
    for tool in sorted(set().union(*steps.values()) - {"python"}):
        with monkeypatch.context() as patch:
            patch.setattr(tools, "version", lambda name, tool=tool: "99" if name == tool else known(name))
            found = that_differ(keys, keys_of.planned(plain))
        assert found == {step for step, used in steps.items() if tool in used}, tool
        assert found
    assert all({"python", "numpy"} <= used for used in steps.values())
    assert all("tensorflow" in steps[step] for step in ("convert:first", "convert:second", "quantize:first/int8"))
    assert all("litert-quantizer" in steps[step] for step in ("quantize:first/half", "quantize:second/small"))


def test_another_python_changes_every_key(plain: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools.platform, "python_version", lambda: "3.99.0")
    assert that_differ(keys, keys_of.planned(plain)) == keys.keys()


def test_another_cpu_changes_the_keys_of_the_steps_whose_kernels_differ_by_it(
    plain: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ({"architecture": "aarch64", "features": "asimddp"}, {**tools.cpu(), "features": "avx"}):
        with monkeypatch.context() as patch:
            patch.setattr(keys_module, "cpu", lambda other=other: other)
            found = that_differ(keys, keys_of.planned(plain))
        assert found == steps_like(keys, ["calibrate:*", "evaluate:*", "quantize:first/plain"])


def test_another_device_changes_the_keys_of_its_benchmarks(
    plain: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plug_in("runners", "host"), "fingerprint", lambda options: {"cpu": f"{options.threads} Z80"})
    assert that_differ(keys, keys_of.planned(plain)) == steps_like(keys, ["benchmark:*"])


def test_another_key_schema_changes_every_key(
    plain: Path, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "KEY_SCHEMA", keys_module.KEY_SCHEMA + 1)
    assert that_differ(keys, keys_of.planned(plain)) == keys.keys()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package beside its templates."""
    place = tmp_path_factory.mktemp("package") / "quantbuild"
    shutil.copytree(PACKAGE_FOLDER, place, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PACKAGE_FOLDER.parent / "templates", place.parent / "templates", dirs_exist_ok=True)
    return place


# A module, and steps whose results its code can change, or cannot.
CODE = [
    ("sources/keras.py", ["convert:*", "quantize:first/plain"]),
    ("sources/python.py", ["convert:second"]),
    ("schemes/int8.py", ["quantize:first/int8", "quantize:first/plain"]),
    ("schemes/dynamic.py", ["quantize:second/small"]),
    ("datasets/npz.py", ["evaluate:first/*"]),
    ("datasets/image_folder.py", ["calibrate:first", "quantize:first/plain"]),
    ("datasets/python.py", ["evaluate:second/*"]),
    ("actions/evaluate.py", ["evaluate:*"]),
    ("actions/calibrate.py", ["calibrate:first"]),
    ("runners/host_process.py", ["benchmark:*"]),
    ("metrics.py", ["evaluate:*"]),
    ("shell/shell.py", []),
    ("cli/command_line.py", []),
    ("report/page.py", []),
]


@pytest.mark.parametrize(("module", "steps"), CODE, ids=[module for module, _ in CODE])
def test_edited_code_changes_the_keys_of_the_steps_that_it_implements(
    plain: Path, keys: dict[str, str], package: Path, module: str, steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = package / module
    source = path.read_bytes()
    path.write_bytes(source + b"\n# edited\n")
    try:
        monkeypatch.setattr(keys_of, "_code", [CodeDigests(package / "none", package)])
        found = that_differ(keys, keys_of.planned(plain))
    finally:
        path.write_bytes(source)
    assert found == (steps_like(keys, steps) if steps else set())


# The pre-image itself -----------------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list | tuple) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    else:
        yield path


ANY = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_other_value_anywhere_in_a_pre_image_is_another_key(plain: Path, data: Any) -> None:
    preimages = _preimages(plain)
    step = data.draw(st.sampled_from(sorted(preimages)))
    altered = msgspec.json.decode(msgspec.json.encode(preimages[step]))
    path = data.draw(st.sampled_from(list(leaves(altered))))
    holder = altered
    for part in path[:-1]:
        holder = holder[part]
    value = data.draw(ANY)
    was = holder[path[-1]]
    same = value == was and type(value) is type(was)
    holder[path[-1]] = value
    assert (key_of(altered) == key_of(preimages[step])) == same


_known: dict[str, Any] = {}


def _preimages(root: Path) -> dict[str, Any]:
    if not _known:
        outcomes = keys_of.built(root).outcomes.values()
        _known.update({o.step: o.result.preimage for o in outcomes if o.result is not None})
    return _known


def test_two_steps_of_one_key_would_make_the_same(tmp_path: Path, keys: dict[str, str]) -> None:
    """The name of a step, a model or a variant is not in its key: the very same work is done once."""
    twice = copy.deepcopy(TABLES)
    twice["model"]["first"]["variant"]["again"] = twice["model"]["first"]["variant"]["half"]
    found = keys_of.planned(keys_of.written(tmp_path / "ws", twice))
    assert found["quantize:first/again"] == found["quantize:first/half"]
    assert len(set(keys.values())) == len(keys)


NUMBERS = ["dataset.data.preprocess.mean", "device.host.max_seconds", "model.first.gate.max_size_ratio"]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("place", NUMBERS)
def test_a_number_that_is_none_is_no_value_of_a_manifest(tmp_path: Path, number: str, place: str) -> None:
    """JSON has no such numbers: all of them, and a value left out, would be the same key."""
    from quantbuild.errors import ManifestErrors

    with pytest.raises(ManifestErrors, match=r"is not (a finite number|allowed); write"):
        keys_of.planned(keys_of.written(tmp_path / "ws", changed(place, float(number))))


def test_the_digest_of_a_file_is_that_of_its_bytes_whatever_it_was_before(tmp_path: Path) -> None:
    digests = Digests(tmp_path, tmp_path / "digests")
    seen = {}
    for content in (b"a", b"b", b"a", b"", b"b"):
        (tmp_path / "f").write_bytes(content)
        digest = digests.digest("f")
        assert digest is not None
        assert seen.setdefault(content, digest) == digest
    assert len(set(seen.values())) == 3
