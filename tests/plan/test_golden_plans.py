"""The plan of a workspace as text: a change of a plan is seen in the diff of its golden file.

One is the examples' (manifests/ of this repository), one a made-up workspace that uses what the examples do not.
`UPDATE_GOLDEN=1 pytest tests/plan` writes the files anew; look at what changed before committing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from quantbuild.manifest.loading import load
from quantbuild.plan import plan
from quantbuild.step import Step

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    """The root of a workspace of two models, one of the user's functions, two devices; none of its files exist."""
    return written(tmp_path / "two")


def written(root: Path) -> Path:
    (root / "manifests").mkdir(parents=True)
    (root / "manifests" / "m.toml").write_bytes((HERE / "two_models.toml").read_bytes())
    return root


def planned(root: Path) -> tuple[Step, ...]:
    return plan(load(root, environ={}, check_files=False))


@pytest.mark.parametrize("name", ["examples", "two_models"])
def test_the_plan_is_as_written_down(name: str, two_models: Path) -> None:
    steps = planned(ROOT if name == "examples" else two_models)
    text = msgspec.json.format(msgspec.json.encode(steps, order="sorted"), indent=1).decode() + "\n"
    golden = HERE / "golden" / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text)
    assert text == golden.read_text(), "see UPDATE_GOLDEN at the top of this file"


def test_a_plan_does_not_depend_on_the_folder(two_models: Path, tmp_path: Path) -> None:
    assert planned(written(tmp_path / "else where" / "two")) == planned(two_models)


@pytest.mark.parametrize("name", ["examples", "two_models"])
def test_every_step_comes_after_what_it_needs(name: str, two_models: Path) -> None:
    seen: dict[str, Step] = {}
    for step in planned(ROOT if name == "examples" else two_models):
        assert set(step.needs) <= seen.keys()
        for given in step.inputs.values():
            if given.step is not None:
                assert given.step in step.needs
                assert given.path in seen[given.step].outputs.values()
        seen[step.id] = step


def test_no_two_steps_write_the_same_file(two_models: Path) -> None:
    outputs = [path for step in planned(two_models) for path in step.outputs.values()]
    assert len(set(outputs)) == len(outputs)


def test_planning_needs_no_tensorflow(two_models: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from quantbuild.manifest.loading import load\n"
        "from quantbuild.plan import plan\n"
        f"assert plan(load(Path({str(two_models)!r}), environ={{}}, check_files=False))\n"
        "assert not {'tensorflow', 'keras', 'numpy', 'ai_edge_litert'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_choice_of_kept_nodes_quantizes_anew_and_never_calibrates_anew(two_models: Path) -> None:
    before = {step.id: step for step in planned(two_models)}
    manifest = two_models / "manifests" / "m.toml"
    manifest.write_text(manifest.read_text().replace('io = "uint8"', 'io = "uint8"\nkeep_float = ["last:2"]'))
    after = {step.id: step for step in planned(two_models)}
    assert {name for name in before if before[name] != after[name]} == {"quantize:first/int8"}
    assert "calibrate:first" in before


def test_asking_where_noise_comes_from_adds_a_step_of_its_own_and_changes_no_other(two_models: Path) -> None:
    asked = {step.id: step for step in planned(two_models)}
    manifest = two_models / "manifests" / "m.toml"
    manifest.write_text(manifest.read_text().replace("sensitivity = true\n", ""))
    plain = {step.id: step for step in planned(two_models)}
    assert asked.keys() - plain.keys() == {"sensitivity:first/int8", "sensitivity:first/mixed"}
    assert {name: asked[name] for name in plain} == plain
    read = {given.path for given in asked["sensitivity:first/int8"].inputs.values()}
    assert read == {"build/first/float32.tflite", "build/first/int8/model.tflite", "choice.npz"}  # the selection set
    assert asked["sensitivity:first/mixed"].inputs["statistics"].path == "build/first/statistics.npz"  # it may equalize
