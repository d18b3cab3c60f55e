"""The plan of a manifest as text: a change of the plan is seen in the diff of its golden file.

`UPDATE_GOLDEN=1 pytest tests/plan` writes the files anew; look at what changed before committing.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from quantbuild.manifest.loading import load
from quantbuild.plan import plan

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", ["one_model", "two_models"])
def test_the_plan_of_a_manifest_is_as_written_down(name: str, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "m.toml").write_bytes((HERE / f"{name}.toml").read_bytes())
    steps = plan(load(tmp_path, environ={}, check_files=False))
    text = msgspec.json.format(msgspec.json.encode(steps, order="sorted"), indent=1).decode() + "\n"
    golden = HERE / "golden" / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_a_plan_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    plans = []
    for folder in ("one", "elsewhere/two"):
        root = tmp_path / folder
        (root / "manifests").mkdir(parents=True)
        (root / "manifests" / "m.toml").write_bytes((HERE / "two_models.toml").read_bytes())
        plans.append(plan(load(root, environ={}, check_files=False)))
    assert plans[0] == plans[1]


def test_every_step_comes_after_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "m.toml").write_bytes((HERE / "two_models.toml").read_bytes())
    seen: set[str] = set()
    for step in plan(load(tmp_path, environ={}, check_files=False)):
        assert set(step.needs) <= seen
        assert {given.step for given in step.inputs.values()} - {None} <= set(step.needs)
        seen.add(step.id)


def test_the_legacy_reader_is_in_the_key_of_a_legacy_file_alone(tmp_path: Path) -> None:
    """Installing tf_keras must not convert a .keras model anew: it is never read with it."""
    (tmp_path / "manifests").mkdir()
    model = '[model.{0}]\nsource = "keras"\npath = "m.{0}"\n[model.{0}.variant.v]\nscheme = "float16"\n'
    (tmp_path / "manifests" / "m.toml").write_text("schema = 1\n" + model.format("keras") + model.format("h5"))
    tools = {step.id: step.tools for step in plan(load(tmp_path, environ={}, check_files=False))}
    assert "tf_keras" in tools["convert:h5"]
    assert "tf_keras" not in tools["convert:keras"]
