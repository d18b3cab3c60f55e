"""The commands that need no build: cache, init, schema; their exit codes and messages."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from quantbuild import starter
from quantbuild.cache.local import LocalCache
from quantbuild.cli import main
from quantbuild.digests import sha256_of_bytes
from quantbuild.manifest.loading import load
from quantbuild.manifest.schema import json_schema
from quantbuild.units import parse_size


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("QUANTBUILD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("QUANTBUILD_CACHE_TOKEN", raising=False)
    return tmp_path / "here"


def test_cache_stat_and_gc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = LocalCache(tmp_path / "cache", lambda text: None)
    for number in range(3):
        content = bytes([number]) * 1000
        cache.put_bytes(sha256_of_bytes(content), content)
    assert main(["cache", "stat", "--json"]) == 0
    usage = json.loads(capsys.readouterr().out)
    assert (usage["actions"], usage["blobs"], usage["size_bytes"]) == (0, 3, 3000)
    assert main(["cache", "gc", "--max-size", "1kB"]) == 0
    assert "2.0 kB removed, 1.0 kB left" in capsys.readouterr().out


def test_a_size_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "gc", "--max-size", "much"]) == 2
    assert '"much" is no size; write a number and a unit' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "size"),
    [("500MB", 500_000_000), ("2GiB", 2**31), ("1.5 kB", 1500), ("7", 7), ("-1MB", None), ("MB", None)],
)
def test_sizes_are_si_and_binary(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_init_writes_a_workspace_whose_manifest_loads(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "demo"]) == 0
    assert "next: cd demo && doit report" in capsys.readouterr().out
    workspace = load(elsewhere / "demo")
    assert list(workspace.models) == ["digits"]
    schema = json.loads((elsewhere / "demo" / "manifest.schema.json").read_bytes())
    assert schema["type"] == "object"
    assert not list((elsewhere / "demo").glob(".quantbuild-init-*"))


def test_init_into_a_workspace_changes_nothing_and_exits_2(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "dodo.py").write_text("mine")
    assert main(["init"]) == 2
    assert "dodo.py is there already" in capsys.readouterr().err
    assert [path.name for path in elsewhere.iterdir()] == ["dodo.py"]


def test_init_keeps_the_readme_that_is_there(elsewhere: Path) -> None:
    (elsewhere / "README.md").write_text("mine")
    assert main(["init"]) == 0
    assert (elsewhere / "README.md").read_text() == "mine"


def test_init_into_a_file_is_one_plain_line(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (elsewhere / "file").write_text("")
    assert main(["init", "file/demo"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_init_leaves_nothing_where_it_fails_half_way(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rename = Path.rename

    def full(path: Path, target: Path) -> Path:
        if target == Path("deep/demo/manifests"):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", full)
    assert main(["init", "deep/demo"]) == 2
    assert capsys.readouterr().err.startswith("deep/demo/manifests: No space left on device; ")
    assert list(elsewhere.iterdir()) == []
    (elsewhere / "mine").mkdir()
    monkeypatch.setattr(starter, "_write", lambda folder, example: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        main(["init", "mine"])
    assert [path.name for path in elsewhere.rglob("*")] == ["mine"]


def test_init_tells_the_command_that_enters_a_folder_with_a_space(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "my demo"]) == 0
    assert "next: cd 'my demo' && doit report" in capsys.readouterr().out


def test_init_says_what_a_gitignore_that_it_kept_should_hold(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / ".gitignore").write_text("mine")
    assert main(["init"]) == 0
    assert "kept your .gitignore; it should ignore /build/ and /dist/" in capsys.readouterr().out


def test_init_points_editors_to_the_schema_that_it_wrote(elsewhere: Path) -> None:
    assert main(["init"]) == 0
    (manifest,) = (elsewhere / "manifests").glob("*.toml")
    hint, _, schema = manifest.read_text().splitlines()[0].partition(" ")
    assert hint == "#:schema"
    assert json.loads((manifest.parent / schema).read_bytes()) == json_schema()


@pytest.fixture
def demo(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace in which convert:digits left a list of two nodes."""
    assert main(["init", "demo"]) == 0
    monkeypatch.chdir(elsewhere / "demo")
    return elsewhere / "demo"


NODE = {"index": 0, "number": 1, "op": "CONV_2D", "layer": "stem", "shape": [1, 8, 8, 32], "dtype": "float32"}


def test_nodes_lists_what_the_last_build_left(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    node = {**NODE, "name": "net_1/stem_1/Relu;net_1/stem_1/convolution", "weight_bytes": 1280}
    (demo / "build/digits").mkdir(parents=True)
    (demo / "build/digits/float32.json").write_text(json.dumps({"nodes": [node]}))
    capsys.readouterr()
    assert main(["nodes", "digits"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split()[:4] == ["1", "CONV_2D", "stem", "1×8×8×32"]
    assert printed.err == (
        "digits: these are of the last build; run `doit convert:digits` to bring them up to date\n"  # it has no record
    )
    assert main(["nodes", "digits", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "nodes": [node]}


def test_nodes_of_what_is_not_built_says_what_to_run(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "digits"]) == 2
    assert "digits: not built yet; run `doit convert:digits` first" in capsys.readouterr().err
    assert main(["nodes", "digits/int8"]) == 2
    assert "digits/int8: not built yet; run `doit quantize:digits/int8` first" in capsys.readouterr().err


def test_nodes_of_an_unknown_name_offers_the_nearest(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nodes", "digit"]) == 2
    assert 'digit: no such model or variant; did you mean "digits"?' in capsys.readouterr().err
    assert main(["nodes", "digits/int9"]) == 2
    assert 'did you mean "digits/int8"?' in capsys.readouterr().err


def test_plan_outside_a_workspace_says_where_to_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan"]) == 2
    assert "run quantbuild where dodo.py is" in capsys.readouterr().err


def test_the_package_runs_as_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "quantbuild", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("quantbuild ")
