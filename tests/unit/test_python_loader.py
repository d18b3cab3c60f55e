"""A user's function gives samples, and reads what the manifest declares and nothing else."""

from __future__ import annotations

import os
import py_compile
import random
import sqlite3
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from quantbuild.datasets import python
from quantbuild.datasets.samples import load
from quantbuild.declared_files import fixed_part, only_declared
from quantbuild.errors import StepError

PREFIX = "import numpy as np\nfrom pathlib import Path\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # as a worker does
    (tmp_path / "data" / "clips").mkdir(parents=True)
    for number in range(3):
        np.save(tmp_path / "data" / "clips" / f"{number}.npy", np.full((1, 4), number, np.float32))
    (tmp_path / "data" / "secret.txt").write_text("12")
    return tmp_path


def opened(root: Path, body: str, inputs: tuple[str, ...] = ("data/clips/**",), **files: str) -> Any:
    (root / "my_data.py").write_text(PREFIX + body)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    options = {"path": "my_data:clips", "inputs": list(inputs)}
    samples, _ = load({"loader": "python", "options": options, "samples": None, "seed": 0, "name": "speech"}, root)
    return samples


CLIPS = """
def clips():
    for number, file in enumerate(sorted(Path('data/clips').glob('*.npy'))):
        yield np.load(file), number
"""


def test_samples_and_labels_are_what_the_function_yields(root: Path) -> None:
    samples = opened(root, CLIPS)
    assert len(samples) == 3
    assert samples.labels.tolist() == [0, 1, 2]
    # In any order, and more than once.
    assert [samples[index][""].tolist() for index in (2, 0, 2)] == [[[2.0] * 4], [[0.0] * 4], [[2.0] * 4]]


def test_inputs_by_name_keep_their_types_and_shapes(root: Path) -> None:
    body = "def clips():\n    yield {'ids': np.array([[1, 2]], np.int32), 'scale': np.float64([0.5])}, None\n"
    samples = opened(root, body)
    assert samples.labels is None
    sample = samples[0]
    assert {name: (value.dtype, value.shape) for name, value in sample.items()} == {
        "ids": (np.int32, (1, 2)),
        "scale": (np.float64, (1,)),
    }


def test_a_third_entry_names_the_slice(root: Path) -> None:
    body = "def clips():\n    for name in ('day', 'night'):\n        yield np.zeros((1, 2)), 'cat', name\n"
    samples = opened(root, body)
    assert (samples.slices, samples.labels.tolist()) == (["day", "night"], ["cat", "cat"])


def test_samples_are_on_disk_and_not_in_memory(root: Path) -> None:
    body = (
        "def clips():\n    for number in range(200):\n        yield np.full((1, 50_000), number, np.float32), number\n"
    )
    tracemalloc.start()
    samples = opened(root, body)
    samples[150]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 50_000 * 4 / 10
    assert samples[150][""][0, 0] == 150
    assert list((root / "build" / ".scratch").iterdir()) == [], "the file is gone however the process ends"


def test_unseeded_random_numbers_are_the_same_in_every_step(root: Path) -> None:
    body = "import random\ndef clips():\n    yield np.random.rand(1, 2) + random.random(), None\n"
    first = opened(root, body)[0][""]
    random.random()
    assert np.array_equal(opened(root, body)[0][""], first)


@pytest.mark.parametrize(
    "body",
    [
        "def clips():\n    yield np.array([[float(open('data/secret.txt').read())]]), None\n",
        "def clips():\n    yield np.array([[float(Path.cwd().joinpath('data/secret.txt').read_text())]]), None\n",
        "def clips():\n    yield np.array([[np.loadtxt('data/clips/../secret.txt')]]).reshape(1, 1), None\n",
        "SECRET = open('data/secret.txt').read()\ndef clips():\n    yield np.zeros((1, 1)), None\n",
        "def clips():\n    try:\n        open('data/secret.txt')\n    except Exception:\n        pass\n"
        "    yield np.zeros((1, 1)), None\n",
    ],
    ids=["relative", "absolute", "dotted", "at import", "caught"],
)
def test_reading_another_file_is_an_error_that_says_what_to_declare(root: Path, body: str) -> None:
    message = r'my_data:clips: reads "data/secret\.txt", which is not declared; add "data/secret\.txt" to its inputs'
    with pytest.raises(StepError, match=message):
        opened(root, body)
    assert len(opened(root, body, ("data/secret.txt",))) == 1


def test_importing_another_module_must_be_declared_even_from_its_cache(root: Path) -> None:
    body = "import my_reader\ndef clips():\n    yield my_reader.sample(), None\n"
    reader = "import numpy\ndef sample():\n    return numpy.zeros((1, 3))\n"
    for inputs in ((), ("my_reader.py",), ()):
        if inputs:
            assert len(opened(root, body, inputs, my_reader=reader)) == 1
        else:
            with pytest.raises(StepError, match=r'reads "my_reader\.py", which is not declared'):
                opened(root, body, inputs, my_reader=reader)


def test_a_changed_module_is_imported_anew(root: Path) -> None:
    assert len(opened(root, CLIPS)) == 3
    longer = "# edited\ndef clips():\n    for _ in range(5):\n        yield np.zeros((1, 1)), None\n"
    assert len(opened(root, longer)) == 5


def test_links_are_followed_where_they_are_declared(root: Path) -> None:
    (root / "data" / "clips" / "3.npy").symlink_to(root / "data" / "clips" / "0.npy")
    assert len(opened(root, CLIPS)) == 4
    (root / "data" / "elsewhere").symlink_to(root / "data" / "clips")
    body = CLIPS.replace("'data/clips'", "'data/elsewhere'")
    assert len(opened(root, body)) == 4, "what a link leads to is declared"


def test_files_outside_the_root_and_writing_are_no_inputs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "one.txt"
    outside.write_text("1")
    read = f"float(open({str(outside)!r}).read())"
    body = f"def clips():\n    open('log.txt', 'w').close()\n    yield np.array([[{read}]]), 0\n"
    assert opened(root, body)[0][""].tolist() == [[1.0]]


@pytest.mark.parametrize(
    "work",
    [
        "with tempfile.TemporaryDirectory() as folder: os.makedirs(f'{folder}/data/clips/more')",
        "with tempfile.TemporaryFile(dir='.') as file: file.write(b'1')",
        "list(os.fwalk('data'))",
        "os.listdir('data')",
        "open('scratch.bin', 'w+b').close()",
        "sqlite3.connect(':memory:').close()",
    ],
)
def test_what_reads_no_file_of_the_workspace_needs_no_declaration(root: Path, work: str) -> None:
    body = f"import os, sqlite3, tempfile\ndef clips():\n    {work}\n    yield np.zeros((1, 1)), None\n"
    assert len(opened(root, body)) == 1


@pytest.mark.parametrize("database", ["'data/table.db'", "'file:data/table.db?mode=ro', uri=True"])
def test_a_database_must_be_declared(root: Path, database: str) -> None:
    sqlite3.connect(root / "data" / "table.db").close()
    body = f"import sqlite3\ndef clips():\n    sqlite3.connect({database}).close()\n    yield np.zeros((1, 1)), None\n"
    with pytest.raises(StepError, match=r'reads "data/table\.db", which is not declared'):
        opened(root, body)
    assert len(opened(root, body, ("data/*.db",))) == 1


def test_a_file_opened_from_its_folders_descriptor_must_be_declared(root: Path) -> None:
    body = (
        "import os\ndef clips():\n    folder = os.open('data', os.O_RDONLY)\n"
        "    os.close(os.open('secret.txt', os.O_RDONLY, dir_fd=folder))\n    yield np.zeros((1, 1)), None\n"
    )
    with pytest.raises(StepError, match=r'reads "data/secret\.txt", which is not declared'):
        opened(root, body)
    assert len(opened(root, body, ("data/secret.txt",))) == 1


def test_after_the_function_anything_may_be_read_again(root: Path) -> None:
    opened(root, CLIPS)
    assert (root / "data" / "secret.txt").read_text() == "12"
    with pytest.raises(KeyError), only_declared(root, [], place="x"):
        raise KeyError
    assert (root / "data" / "secret.txt").read_text() == "12"


@pytest.mark.parametrize(
    ("pattern", "path", "allowed"),
    [
        ("data/clips/**", "data/clips/a/b.wav", True),
        ("data/clips/**", "data/clipsy.wav", False),
        ("data/**/*.wav", "data/a/b/c.wav", True),
        ("data/**/*.wav", "data/c.wav", True),
        ("data/**/*.wav", "data/a/c.txt", False),
        ("data/*.wav", "data/a/c.wav", False),
        ("data/[0-9].wav", "data/7.wav", True),
        ("data/[!0-9].wav", "data/7.wav", False),
        ("data", "data/a/c.txt", True),
        ("data/", "data/c.txt", True),
        ("data/c.txt", "data/c.txt", True),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, path: str, allowed: bool) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text("")
    if allowed:
        with only_declared(tmp_path, [pattern], place="x"):
            file.read_text()
    else:
        with pytest.raises(StepError, match="not declared"), only_declared(tmp_path, [pattern], place="x"):
            file.read_text()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def clips():\n    yield np.zeros((1, 2))\n", "sample 0: is ndarray, no pair; yield .inputs, label."),
        ("def clips():\n    yield np.zeros(2), 0\n", r"sample 0: its input has shape \[2\]; .*batch axis of 1"),
        ("def clips():\n    yield np.zeros((3, 2)), 0\n", r"has shape \[3, 2\]"),
        ("def clips():\n    yield {'x': np.array([['a']])}, 0\n", "input 'x' has dtype <U1; yield numbers"),
        ("def clips():\n    yield np.zeros((1, 2)), 0\n    yield np.zeros((1, 2)), None\n", "sample 1 has no label"),
        (
            "def clips():\n    yield np.zeros((1, 2)), [1]\n    yield np.zeros((1, 2)), [1, 2]\n",
            "labels differ in shape",
        ),
        ("def clips():\n    yield np.zeros((1, 2)), object()\n", "labels are object; yield numbers"),
        ("def clips():\n    raise OSError('disk\\nfull')\n    yield\n", "my_data:clips raised OSError: disk full; see"),
        ("def others():\n    pass\n", "my_data.py has no function clips"),
        ("import nowhere\n", "cannot import my_data .*nowhere"),
        ("def clips():\n    return iter(())\n", "holds no sample"),
        ("def clips(\n", "my_data:clips raised SyntaxError"),
    ],
)
def test_what_is_no_sample_is_refused(root: Path, body: str, message: str) -> None:
    with pytest.raises(StepError, match=message):
        opened(root, body)


def test_a_module_that_hides_behind_an_installed_one_is_refused(root: Path) -> None:
    (root / "msgspec.py").write_text("def clips():\n    yield 1\n")
    with pytest.raises(StepError, match=r"msgspec is not msgspec\.py but an installed module; rename the file"):
        python.open_samples(python.Options(path="msgspec:clips"), root)


def test_the_inputs_follow_from_the_manifest_alone(tmp_path: Path) -> None:
    options = python.Options(path="a.b:clips", inputs=["data/clips/**", "data/clips/*.wav", "labels.csv", "x/[ab]/c"])
    assert python.files(options, tmp_path) == ["a/b.py", "data/clips", "labels.csv", "x"]
    assert fixed_part("**") == ""


@pytest.mark.parametrize("pattern", ["**", "*.csv", "/etc/passwd", "../x", "C:/x"])
def test_a_pattern_that_names_no_folder_is_refused(pattern: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="inputs: "):
        msgspec.convert({"path": "a:b", "inputs": [pattern]}, python.Options)


def test_code_edited_within_the_same_second_is_run_as_it_reads_now(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    body = "from pkg.values import VALUE\ndef clips():\n    yield np.full((1, 1), VALUE), None\n"
    module = root / "pkg" / "values.py"
    module.parent.mkdir()
    for value in (1, 2):
        module.write_text(f"VALUE = {value}\n")
        os.utime(module, (10**9, 10**9))
        assert opened(root, body, ("pkg/**",))[0][""].tolist() == [[value]]
        py_compile.compile(str(module))  # as whatever else runs this code does


def test_running_code_alters_none_of_its_inputs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (root / "left").mkdir()
    (root / "left" / "__init__.py").write_text("VALUE = 1\n")
    opened(root, "import left\ndef clips():\n    yield np.full((1, 1), left.VALUE), None\n", ("left/**",))
    assert [path.name for path in (root / "left").iterdir()] == ["__init__.py"]


@pytest.mark.parametrize("declared", ["./data/clips/**", "data//clips", "./data/clips/[0].npy", "data/clips/[0].npy"])
def test_a_declared_path_may_be_spelled_as_shells_do(root: Path, declared: str) -> None:
    (root / "data" / "clips" / "[0].npy").write_bytes((root / "data" / "clips" / "0.npy").read_bytes())
    body = "def clips():\n    yield np.load('data/clips/[0].npy'), None\n"
    assert len(opened(root, body, (declared,))) == 1
