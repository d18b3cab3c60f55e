"""`quantbuild doctor`: what it finds, what it says to install, and its exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from quantbuild import starter
from quantbuild.cli import main
from quantbuild.doctor import NEEDED, OPTIONAL, _trouble, diagnose
from quantbuild.errors import StepError
from quantbuild.runners import host

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("QUANTBUILD_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("QUANTBUILD_CACHE_TOKEN", "QUANTBUILD_CACHE_REMOTE", "QUANTBUILD_CACHE_UPLOAD"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "here"


def values(root: Path) -> dict[str, str]:
    return {finding.name: finding.value for finding in diagnose(root, deep=False).findings}


def test_all_that_is_needed_is_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for name in ("python", "tensorflow", "ai-edge-litert", "cpu features", "memory", "disk at build/", "directory"):
        assert name in out
    assert re.search(r"manifests +none in this folder\n", out)


def test_what_is_needed_is_what_the_package_asks_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {name: NEEDED[name] for name in NEEDED if name != "keras"} == dict(text.split(">=") for text in asked)
    assert not set(OPTIONAL) & set(NEEDED)


@pytest.mark.parametrize(
    ("name", "least", "told"), [("no-such-thing", "1.0", "absent"), ("numpy", "99", r"[\d.]+")], ids=["absent", "old"]
)
def test_what_is_absent_or_too_old_is_told_with_its_remedy_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, least: str, told: str
) -> None:
    monkeypatch.setattr("quantbuild.doctor.NEEDED", {"msgspec": "0.20", name: least})
    assert main(["doctor"]) == 1
    assert re.search(rf'{name} +{told}  <- pip install "{name}>={least}"\n', capsys.readouterr().out)


def test_what_is_optional_is_no_problem(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("quantbuild.doctor.OPTIONAL", {"no-such-thing": "only for this test"})
    assert main(["doctor"]) == 0
    assert "absent: only for this test" in capsys.readouterr().out


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("QUANTBUILD_CACHE_TOKEN", "a-secret")
    monkeypatch.setenv("QUANTBUILD_CACHE_REMOTE", "http://me:a-secret@cache.example:8080/v1")
    for arguments in (["doctor"], ["doctor", "--json"]):
        main(arguments)
        assert "a-secret" not in capsys.readouterr().out
    found = values(Path.cwd())
    assert found["QUANTBUILD_CACHE_TOKEN"] == "set"
    assert found["remote"] == "http://…@cache.example:8080/v1"


def test_the_caches_settings_are_the_environments_outside_a_workspace(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, tmp_path: Path
) -> None:
    found = values(elsewhere)
    assert (found["remote"], found["upload"], found["QUANTBUILD_CACHE_TOKEN"]) == ("none", "no", "not set")
    assert found["directory"].startswith(f"{tmp_path / 'cache'} (")
    monkeypatch.setenv("QUANTBUILD_CACHE_REMOTE", "http://cache.example:8080")
    monkeypatch.setenv("QUANTBUILD_CACHE_UPLOAD", "1")
    found = values(elsewhere)
    assert (found["remote"], found["upload"]) == ("http://cache.example:8080", "yes")


def test_a_cache_directory_that_cannot_be_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUANTBUILD_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert main(["doctor"]) == 1
    assert f"{tmp_path / 'file'} cannot be written; set [workspace] cache.directory" in capsys.readouterr().out


def test_a_broken_manifest_exits_2_after_all_that_could_be_found(
    elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (elsewhere / "manifests").mkdir()
    (elsewhere / "manifests" / "a.toml").write_text("schema = 1\n[modle.m]\n")
    assert main(["doctor"]) == 2
    printed = capsys.readouterr()
    assert "tensorflow" in printed.out
    assert printed.err.startswith("manifests/a.toml:2: ")
    assert main(["doctor", "--json"]) == 2
    (line,) = json.loads(capsys.readouterr().out)["manifest_errors"]
    assert line == printed.err.strip()


def test_a_setting_of_the_environment_that_is_broken_exits_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QUANTBUILD_CACHE_UPLOAD", "maybe")
    assert main(["doctor"]) == 2
    assert "QUANTBUILD_CACHE_UPLOAD" in capsys.readouterr().err


def test_each_device_is_told_with_whether_it_is_reached(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    starter.create(elsewhere / "w")
    assert values(elsewhere / "w")["device host"].startswith("host: reachable; cpu ")
    assert values(elsewhere / "w")["manifests"] == "1 model, 3 variants"

    def unplugged(options: host.Options) -> dict[str, str]:
        raise StepError("no answer; plug it in")

    monkeypatch.setattr(host, "fingerprint", unplugged)
    monkeypatch.chdir(elsewhere / "w")
    assert main(["doctor"]) == 1
    assert "host: not reachable: no answer; plug it in  <- no answer; plug it in" in capsys.readouterr().out
    manifest = elsewhere / "w" / "manifests" / "digits.toml"
    manifest.write_text(manifest.read_text() + "required = false\n")
    assert main(["doctor"]) == 0


def test_manifests_without_a_dodo_file_are_told(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starter.create(elsewhere)
    (elsewhere / "dodo.py").unlink()
    assert main(["doctor"]) == 1
    assert "doit has nothing to load" in capsys.readouterr().out


def test_the_deep_look_tells_an_error_and_a_process_that_was_killed() -> None:
    assert _trouble("print('fine')") is None
    assert _trouble("from quantbuild.errors import StepError; raise StepError('x is missing; install x')") == (
        "x is missing; install x"
    )
    assert _trouble("import os, signal; os.kill(os.getpid(), signal.SIGILL)") == (
        "its process was ended by SIGILL; this CPU may be too old for it"
    )
    assert _trouble("raise SystemExit(7)") == "exit code 7"


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from quantbuild.cli import main; main(['doctor']);"
        "sys.exit(str([m for m in ('tensorflow', 'keras', 'ai_edge_litert', 'numpy', 'rich') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"
