from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quantbuild import device
from quantbuild.code import CodeDigests
from quantbuild.drivers import auto, mixed
from quantbuild.drivers.driven import Driven
from quantbuild.errors import MachineError, StepError
from quantbuild.manifest.loading import load
from quantbuild.outcome import Outcome
from quantbuild.plan import plan
from quantbuild.record import Output, Result
from quantbuild.step import Input, Step

SELECTION = {"dataset": {"name": "s", "loader": "npz"}, "metric": "top1", "metric_without_labels": "sqnr"}
EVALUATION = {"dataset": {"name": "e", "loader": "npz"}, "metric": "top1"}
UNITS = [f"t{number}" for number in range(40)]
MANIFEST = """
schema = 1
[dataset.c]
loader = "npz"
path = "c.npz"
input = "x"
label = "y"
[dataset.s]
loader = "image_folder"
path = "pictures"
[dataset.e]
loader = "npz"
path = "e.npz"
input = "x"
label = "y"
[model.m]
source = "tflite"
path = "m.tflite"
calibration = "c"
evaluation = "e"
selection = "s"
[model.m.variant.auto]
scheme = "int8"
ranges = { method = "auto", candidates = ["minmax", "percentile"] }
equalize = true
[model.m.variant.default]
scheme = "int8"
[model.m.variant.mixed]
scheme = "mixed"
search = { max_accuracy_loss = 0.01 }
[model.m.variant.fast]
scheme = "mixed"
search = { max_accuracy_loss = 0.01, objective = "latency", device = "host" }
[device.host]
runner = "host"
"""


class World:
    """Makes steps without doing them: what an artifact is worth follows from its options alone."""

    def __init__(
        self,
        root: Path,
        worth: Callable[[dict[str, Any]], tuple[float, float]],
        confirmed: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.root = root
        self._worth = worth
        self._confirmed = iter(confirmed)
        self.made: list[Step] = []
        self.broken: set[str] = set()
        """Methods of ranges, and actions, that fail."""
        self.unmakeable: set[str] = set()
        """Tensors that no artifact can keep."""
        self.most_kept = 100
        """Tensors that can be kept in the time that there is."""
        self.groups = 3
        self.bytes_each = 10
        self.latency: Callable[[set[str]], float | None] = lambda kept: 1.0
        self._options: dict[str, dict[str, Any]] = {}

    def make(self, steps: Sequence[Step]) -> list[Outcome]:
        return [self._make(step) for step in steps]

    def of(self, action: str) -> list[Step]:
        return [step for step in self.made if step.action == action]

    def _make(self, step: Step) -> Outcome:
        self.made.append(step)
        ranges = str(step.parameters["options"]["ranges"]) if step.action == "quantize" else None
        if not self.broken.isdisjoint({step.action, ranges}):
            return Outcome(step=step.id, status="failed", message="it broke")
        kept = self.unmakeable & kept_by(step.parameters.get("options", {}))
        if kept:
            return Outcome(step=step.id, status="failed", message=f"no kernel for {min(kept)}")
        model = step.inputs.get("model")
        if model is not None and len(kept_by(self._options.get(model.path, {}))) > self.most_kept:
            return Outcome(step=step.id, status="failed", message="no result after 9 s", by_machine=True)
        values = getattr(self, f"_{step.action}", lambda step: {})(step)
        size = 1000 + self.bytes_each * len(kept_by(self._options.get(step.outputs.get("model", ""), {})))
        outputs = {role: Output(path=path, sha256="0" * 64, size_bytes=size) for role, path in step.outputs.items()}
        return Outcome(
            step=step.id, status="executed", result=Result(key="", preimage={}, outputs=outputs, values=values)
        )

    def _quantize(self, step: Step) -> dict[str, Any]:
        self._options[step.outputs["model"]] = step.parameters["options"]
        return {"float_ops": []}

    def _evaluate(self, step: Step) -> dict[str, Any]:
        path = step.inputs["model"].path
        if path not in self._options:
            return {"sqnr_db": None, "agreement": 1.0, "n": 100, "loss": 0.0}
        sqnr_db, loss = self._worth(self._options[path])
        return {"sqnr_db": sqnr_db, "agreement": 1 - loss, "n": 100, "loss": loss}

    def _rank(self, step: Step) -> dict[str, Any]:
        units = [{"tensor": name, "noise": 1.0, "nodes": [name], "cost_bytes": 1} for name in UNITS]
        path = self.root / step.outputs["ranking"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"units": units}))
        return {}

    def _equalize(self, step: Step) -> dict[str, Any]:
        return {"groups": self.groups, "most_uneven": {"tensor": "t1", "scales": [0.5, 8.0]} if self.groups else None}

    def _benchmark(self, step: Step) -> dict[str, Any]:
        ratio = self.latency(kept_by(self._options[step.inputs["model"].path]))
        path = self.root / step.outputs["result"]
        path.parent.mkdir(parents=True, exist_ok=True)
        latency = None if ratio is None else {"p50": 10 * ratio}
        path.write_text(json.dumps({"latency_ms": latency, "latency_ratio": ratio}))
        return {"status": "measured"}

    def _judge(self, step: Step) -> dict[str, Any]:
        return next(self._confirmed)


def kept_by(options: dict[str, Any]) -> set[str]:
    """Return what these options of a scheme keep from int8."""
    return set(options.get("keep_float", ())) | set(options.get("keep_int16", ()))


def judged(verdict: str, loss: float, *, could_pass: bool = True) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "loss": loss,
        "loss_low": loss - 0.002,
        "loss_high": loss + 0.002,
        "n": 1000,
        "could_pass": could_pass,
    }


def step(scheme: str, options: dict[str, Any], **parameters: Any) -> Step:
    return Step(
        id="quantize:m/v",
        action="quantize",
        parameters={"scheme": scheme, "options": options, "selection": SELECTION} | parameters,
        inputs={
            "model": Input(path="build/m/float32.tflite", step="convert:m"),
            "statistics": Input(path="build/m/statistics.npz", step="calibrate:m"),
            "selection.data": Input(path="s.npz"),
            "evaluation.data": Input(path="e.npz"),
            "evaluation.baseline": Input(path="build/m/float32/samples.npz", step="evaluate:m/float32"),
            "calibration.data": Input(path="c.npz"),
        },
        outputs={"model": "build/m/v/model.tflite", "description": "build/m/v/artifact.json"},
        driver=scheme,
    )


def searched(
    world: World,
    *,
    limit: float = 0.01,
    trials: int = 16,
    confidence: float = 0.95,
    islands: str = "float",
    metric: str = "top1",
    objective: str = "size",
) -> Driven:
    on_device = {} if objective == "size" else {"device": {"name": "host", "runner": "host", "options": {}}}
    device = None if objective == "size" else "host"
    wanted = {"max_accuracy_loss": limit, "trials": trials, "objective": objective, "device": device}
    options = {"io": "float32", "islands": islands, "search": wanted}
    calibration = {"dataset": {"name": "c", "loader": "npz"}, "hold_back": None}
    given = step(
        "mixed",
        options,
        evaluation=EVALUATION,
        confidence=confidence,
        calibration=calibration,
        **{"selection": {**SELECTION, "metric": metric}, **on_device},
    )
    return mixed.drive(given, world.make, world.root)


def culprits(*names: str) -> Callable[[dict[str, Any]], tuple[float, float]]:
    """A model that int8 harms unless these tensors stay in float; the rest adds a little noise each."""

    def worth(options: dict[str, Any]) -> tuple[float, float]:
        kept = kept_by(options)
        missing = len(set(names) - kept)
        return 30.0 - 15.0 * missing + 0.1 * len(kept), 0.05 * missing

    return worth


# auto --------------------------------------------------------------------------------------------------------------


def ranged(options: dict[str, Any]) -> tuple[float, float]:
    return (20.0 if options["ranges"] == "sample_mean" else 15.0) + (1.0 if options["bias_correction"] else 0.0), 0.0


def test_the_candidate_with_the_highest_sqnr_is_the_artifact(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    driven = auto.drive(step("int8", {"ranges": "auto", "bias_correction": None}), world.make, tmp_path)
    search = driven.values["search"]
    assert search["chosen"] == "sample_mean-bias-corrected"
    assert [(row["label"], row["sqnr_db"]) for row in search["trials"]] == [
        ("minmax", 15.0),
        ("minmax-bias-corrected", 16.0),
        ("sample_mean", 20.0),
        ("sample_mean-bias-corrected", 21.0),
        ("quantile-0.75", 15.0),
        ("quantile-0.75-bias-corrected", 16.0),
    ]
    assert driven.files["model"].startswith("build/m/.trials/int8-sample_mean-bias-corrected-")


def test_of_equals_the_simplest_is_chosen(tmp_path: Path) -> None:
    world = World(tmp_path, lambda options: (15.0, 0.0))
    driven = auto.drive(step("int8", {"ranges": "auto", "bias_correction": None}), world.make, tmp_path)
    assert driven.values["search"]["chosen"] == "minmax"


def test_what_the_manifest_settles_is_not_tried(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    auto.drive(step("int8", {"ranges": "auto", "bias_correction": True}), world.make, tmp_path)
    assert [made.parameters["options"]["bias_correction"] for made in world.of("quantize")] == [True, True, True]


def test_a_candidate_that_fails_is_told_and_not_chosen(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    world.broken = {"sample_mean"}
    driven = auto.drive(step("int8", {"ranges": "auto", "bias_correction": None}), world.make, tmp_path)
    assert driven.values["search"]["chosen"] == "minmax-bias-corrected"
    told = {row["label"]: row["error"] for row in driven.values["search"]["trials"]}
    assert [label for label, error in told.items() if error] == ["sample_mean", "sample_mean-bias-corrected"]


@pytest.mark.parametrize("failing", ["trial:m/int8-sample_mean-bias", "select:m/int8-sample_mean-bias", "histograms:m"])
def test_a_candidate_that_the_machine_failed_is_not_passed_over(tmp_path: Path, failing: str) -> None:
    """Another one would stand for good under a key that knows nothing of a full disk."""

    class Full(World):
        def _make(self, step: Step) -> Outcome:
            outcome = super()._make(step)
            if not step.id.startswith(failing):
                return outcome
            return msgspec.structs.replace(outcome, result=None, message="full", by_machine=True)

    ranges = {"method": "auto", "candidates": ["minmax", "sample_mean", "percentile"]}
    calibration = {"dataset": {"name": "c", "loader": "npz"}, "hold_back": None}
    given = step("int8", {"ranges": ranges, "bias_correction": None}, calibration=calibration)
    with pytest.raises(MachineError, match="full"):
        auto.drive(given, Full(tmp_path, ranged).make, tmp_path)


def test_where_every_candidate_fails_so_does_the_step(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    world.broken = {"quantize"}
    with pytest.raises(StepError, match="it broke"):
        auto.drive(step("int8", {"ranges": "auto", "bias_correction": None}), world.make, tmp_path)


def test_where_no_candidate_can_be_made_nothing_is_run(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    world.broken = {"quantize", "evaluate"}
    with pytest.raises(StepError, match="it broke"):
        auto.drive(step("int8", {"ranges": "auto", "bias_correction": None}), world.make, tmp_path)
    assert world.of("evaluate") == []


def test_a_candidate_whose_histograms_fail_is_told_and_not_chosen(tmp_path: Path) -> None:
    world = World(tmp_path, ranged)
    world.broken = {"histograms"}
    given = {"ranges": {"method": "auto", "candidates": ["percentile", "minmax"]}, "bias_correction": False}
    calibration = {"dataset": {"name": "c", "loader": "npz"}, "hold_back": None}
    search = auto.drive(step("int8", given, calibration=calibration), world.make, tmp_path).values["search"]
    assert search["chosen"] == "minmax"
    assert [row["error"] for row in search["trials"]] == ["it broke", None]


@pytest.mark.parametrize("groups", [0, 2])
def test_how_much_was_equalized_is_told(tmp_path: Path, groups: int) -> None:
    world = World(tmp_path, ranged)
    world.groups = groups
    calibration = {"dataset": {"name": "c", "loader": "npz"}, "hold_back": None}
    given = step("int8", {"ranges": "minmax", "bias_correction": None, "equalize": True}, calibration=calibration)
    driven = auto.drive(given, world.make, tmp_path)
    assert driven.values["equalized_groups"] == groups
    assert driven.values["most_uneven"] == ({"tensor": "t1", "scales": [0.5, 8.0]} if groups else None)
    assert len(world.of("calibrate")) == (groups > 0)


# mixed -------------------------------------------------------------------------------------------------------------


def test_int8_throughout_is_kept_where_it_meets_the_limit(tmp_path: Path) -> None:
    world = World(tmp_path, culprits(), [judged("pass", 0.001)])
    driven = searched(world)
    assert driven.values["search"]["islands"] == []
    assert driven.values["search"]["verdict"] == "pass"
    assert world.of("rank") == []


def test_the_culprits_alone_stay_in_float(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    search = searched(world).values["search"]
    assert [unit["tensor"] for unit in search["islands"]] == ["t1", "t3"]
    assert len(search["trials"]) <= 16
    assert len(search["confirmations"]) == 1


def test_no_trial_is_given_the_evaluation_set(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3"), [judged("undecided", 0.009), judged("pass", 0.001)])
    searched(world)
    confirmations = [made for made in world.of("evaluate") if made.id.startswith("confirm:")]
    assert len(confirmations) == 2
    for made in world.made:
        if made not in confirmations:
            assert "e.npz" not in {given.path for given in made.inputs.values()}
            assert made.parameters.get("dataset", {}).get("name") != "e"


def test_what_failed_on_the_evaluation_set_is_followed_by_what_has_a_higher_sqnr(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("fail", 0.02), judged("pass", 0.001)])
    search = searched(world).values["search"]
    first, second = (each["label"] for each in search["confirmations"])
    by_label = {row["label"]: row["sqnr_db"] for row in search["trials"]}
    assert by_label[second] > by_label[first]
    assert search["verdict"] == "pass"


def test_there_are_three_confirmations_at_most_and_nothing_is_chosen_by_them(tmp_path: Path) -> None:
    """Of what fails, the one with the least loss on the evaluation set would be chosen on the gate's own data."""
    answers = [judged("fail", 0.05), judged("fail", 0.03), judged("fail", 0.04)]
    search = searched(World(tmp_path, culprits("t1"), answers)).values["search"]
    assert [each["loss"] for each in search["confirmations"]] == [0.05, 0.03, 0.04]
    assert search["verdict"] == "fail"
    by_label = {row["label"]: row["sqnr_db"] for row in search["trials"]}
    confirmed = [each["label"] for each in search["confirmations"]]
    assert search["chosen"] == max(confirmed, key=lambda label: by_label[label])


def test_the_probability_of_error_is_divided_among_three(tmp_path: Path) -> None:
    world = World(tmp_path, culprits(), [judged("pass", 0.001)])
    searched(world)
    (judge,) = world.of("judge")
    assert judge.parameters == {"limit": 0.01, "confidence": pytest.approx(1 - 0.05 / 3)}


def test_an_evaluation_set_too_small_to_decide_does_not_drive_the_search_on(tmp_path: Path) -> None:
    world = World(tmp_path, culprits(), [judged("undecided", 0.0, could_pass=False)])
    search = searched(world).values["search"]
    assert search["verdict"] == "undecided"
    assert search["islands"] == []


@pytest.mark.parametrize("trials", [1, 3, 4, 6, 8])
def test_the_budget_of_trials_is_kept_and_the_best_found_is_told(tmp_path: Path, trials: int) -> None:
    world = World(tmp_path, culprits("t30", "t35", "t39"))
    search = searched(world, trials=trials).values["search"]
    assert len(search["trials"]) <= trials
    assert search["verdict"] == "fail"
    chosen = next(row for row in search["trials"] if row["chosen"])
    assert chosen["sqnr_db"] == max(row["sqnr_db"] for row in search["trials"])


def test_without_an_evaluation_set_nothing_is_confirmed(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"))
    wanted = {"max_accuracy_loss": 0.01, "trials": 16, "objective": "size", "device": None}
    options = {"io": "float32", "islands": "float", "search": wanted}
    calibration = {"dataset": {"name": "c", "loader": "npz"}, "hold_back": None}
    search = mixed.drive(step("mixed", options, calibration=calibration), world.make, tmp_path).values["search"]
    assert search["verdict"] == "not_measured"
    assert [unit["tensor"] for unit in search["islands"]] == ["t1"]
    assert search["confirmations"] == []


# What is shared between variants, and what keys know ----------------------------------------------------------------


def test_steps_that_two_variants_share_are_equal(tmp_path: Path) -> None:
    """One of them is made, and its outcome is both variants'."""
    seen: dict[str, Step] = {}
    places: dict[str, str] = {}
    for limit in (0.01, 0.02):
        for confidence in (0.95, 0.99):
            for islands in ("float", "int16"):
                world = World(tmp_path, culprits("t1"), [judged("fail", 0.02), judged("pass", 0.001)])
                searched(world, limit=limit, confidence=confidence, islands=islands)
                for made in world.made:
                    assert seen.setdefault(made.id, made) == made
                    for path in made.outputs.values():
                        assert places.setdefault(path, made.id) == made.id


def test_a_key_covers_the_code_and_tools_of_all_that_a_driver_may_have_made(tmp_path: Path) -> None:
    """Otherwise an artifact stands as up to date after a change of what it was chosen by."""
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "m.toml").write_text(MANIFEST)
    (tmp_path / "build").mkdir()
    planned = {each.id: each for each in plan(load(tmp_path, environ={}, check_files=False))}
    code = CodeDigests(tmp_path / "build" / "code.msgpack")
    actions = set()
    seen: dict[str, Step] = {}
    for variant in ("auto", "default", "mixed", "fast"):
        driven = planned[f"quantize:m/{variant}"]
        covered = code.closure((f"quantbuild.actions.{driven.action}", *driven.code))
        world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
        (mixed if driven.driver == "mixed" else auto).drive(driven, world.make, tmp_path)
        for made in world.made:
            assert seen.setdefault(made.id, made) == made  # one of them is made for all variants
            actions.add(made.action)
            assert code.closure((f"quantbuild.actions.{made.action}", *made.code)).items() <= covered.items(), made.id
            assert set(made.tools) <= set(driven.tools), made.id
            assert driven.by_cpu or not made.by_cpu
    fast, other = planned["quantize:m/fast"], planned["quantize:m/mixed"]
    assert (fast.runner, other.runner) == ("host", None)
    assert device.fingerprint(fast) == device.fingerprint(planned["benchmark:m/fast@host"])
    assert actions == {"benchmark", "calibrate", "equalize", "evaluate", "histograms", "judge", "quantize", "rank"}


# What a search says and spends ---------------------------------------------------------------------------------------


def test_a_model_without_anything_to_equalize_spends_its_trials_on_islands(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t10", "t15"), [judged("pass", 0.001)])
    world.groups = 0
    search = searched(world).values["search"]
    assert sum(bool(row["kept"]) for row in search["trials"]) == 12
    assert [row["label"] for row in search["trials"] if "equalized" in row["label"]] == []
    assert world.of("calibrate") == []


def test_an_equalization_that_fails_is_told_and_the_search_goes_on(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    world.broken = {"equalize"}
    search = searched(world).values["search"]
    assert search["verdict"] == "pass"
    assert [(row["label"], row["error"]) for row in search["trials"] if row["error"]] == [("equalized", "it broke")]


@pytest.mark.parametrize("islands", ["float", "int16"])
def test_an_activation_that_cannot_be_kept_is_left_out_and_told(tmp_path: Path, islands: str) -> None:
    world = World(tmp_path, culprits("t1", "t4"), [judged("pass", 0.001)])
    world.unmakeable = {"t2", "t3"}
    world.groups = 0
    search = searched(world, islands=islands).values["search"]
    assert search["verdict"] == "pass"
    assert [unit["tensor"] for unit in search["islands"]] == ["t1", "t4"]
    assert [(each["tensor"], each["rank"], each["error"]) for each in search["left_out"]] == [
        ("t2", 3, "no kernel for t2"),
        ("t3", 4, "no kernel for t3"),
    ]
    assert len(search["trials"]) <= 16


def test_where_the_culprit_cannot_be_kept_the_best_found_is_told(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"))
    world.unmakeable = {"t1"}
    search = searched(world).values["search"]
    assert search["verdict"] == "fail"
    assert [each["tensor"] for each in search["left_out"]] == ["t1"]
    chosen = next(row for row in search["trials"] if row["chosen"])
    assert chosen["sqnr_db"] == max(row["sqnr_db"] for row in search["trials"] if row["error"] is None)


# Trials that the machine fails ----------------------------------------------------------------------------------------


def test_a_trial_that_the_machine_failed_leaves_the_search_to_what_is_smaller(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    world.most_kept = 3
    driven = searched(world)
    assert driven.values["search"]["verdict"] == "pass"
    assert [unit["tensor"] for unit in driven.values["search"]["islands"]] == ["t1"]
    (failed,) = (row for row in driven.values["search"]["trials"] if row["error"])
    assert failed["error"] == "no result after 9 s"
    assert driven.values["search"]["left_out"] == []
    assert driven.provisional == (
        f"the machine failed 1 trial ({failed['label']}: no result after 9 s); what is chosen is the best of the "
        "others, and the next build tries again"
    )
    assert driven.values["search"]["provisional"] == driven.provisional


def test_what_no_machine_failed_is_not_provisional(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    world.unmakeable = {"t2"}
    driven = searched(world)
    assert driven.provisional is driven.values["search"]["provisional"] is None


def test_that_nothing_was_found_is_no_verdict_where_the_machine_failed_a_trial(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t3"))
    world.most_kept = 3
    with pytest.raises(MachineError, match=r"nothing .* meets the limit, but the machine failed .*: no result after 9"):
        searched(world)


def test_a_latency_that_took_too_long_is_not_measured_and_the_choice_is_provisional(tmp_path: Path) -> None:
    class Slow(World):
        def _make(self, step: Step) -> Outcome:
            outcome = super()._make(step)
            if step.action == "benchmark" and len(self.of("benchmark")) == 1:
                return Outcome(step=step.id, status="failed", message="no result after 9 s", by_machine=True)
            return outcome

    world = Slow(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    driven = searched(world, objective="latency")
    assert driven.values["search"]["verdict"] == "pass"
    assert driven.provisional is not None
    assert "no result after 9 s" in driven.provisional


def test_a_confirmation_that_the_machine_failed_is_no_verdict(tmp_path: Path) -> None:
    class Slow(World):
        def _make(self, step: Step) -> Outcome:
            if step.id.startswith("confirm:"):
                return Outcome(step=step.id, status="failed", message="full", by_machine=True)
            return super()._make(step)

    with pytest.raises(MachineError, match="full"):
        searched(Slow(tmp_path, culprits()))


def test_losses_without_an_interval_are_told(tmp_path: Path) -> None:
    """One evaluation sample has a loss, but no interval."""
    answers = [{**judged("undecided", loss), "loss_low": None, "loss_high": None} for loss in (0.05, 0.03, 0.04)]
    search = searched(World(tmp_path, culprits("t1"), answers)).values["search"]
    assert search["verdict"] == "undecided"
    assert [(each["loss"], each["loss_high"]) for each in search["confirmations"]] == [
        (0.05, None),
        (0.03, None),
        (0.04, None),
    ]


def test_every_trial_has_a_label_of_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3", "t9"), [judged("fail", 0.02), judged("pass", 0.001)])
    labels = [row["label"] for row in searched(world).values["search"]["trials"]]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize(("metric", "told"), [("mae", "needs labels"), ("mse", "needs labels"), ("top1", None)])
def test_a_loss_that_the_selection_samples_cannot_tell_is_refused(
    tmp_path: Path, metric: str, told: str | None
) -> None:
    """A share of samples that do not agree is no loss in the unit of an error."""

    class Unlabelled(World):
        def _evaluate(self, step: Step) -> dict[str, Any]:
            return {**super()._evaluate(step), "loss": None}

    world = Unlabelled(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    if told is None:
        assert searched(world, metric=metric).values["search"]["verdict"] == "pass"
        return
    with pytest.raises(StepError, match=told):
        searched(world, metric=metric)
    assert world.of("rank") == []


def test_ranges_are_chosen_whatever_the_metric_is(tmp_path: Path) -> None:
    """By SQNR alone: a metric may need labels that calibration samples lack, or classes that a model has not."""
    (tmp_path / "manifests").mkdir()

    def planned(metric: str) -> dict[str, Step]:
        (tmp_path / "manifests" / "m.toml").write_text(MANIFEST.replace("[model.m]", f'[model.m]\nmetric = "{metric}"'))
        return {each.id: each for each in plan(load(tmp_path, environ={}, check_files=False))}

    first, others = planned("agreement"), [planned("top1"), planned("my_metrics:score")]
    for other in others:
        assert other["quantize:m/default"] == first["quantize:m/default"]
        assert other["quantize:m/mixed"] != first["quantize:m/mixed"]
    assert first["quantize:m/default"].parameters["selection"]["metric"] == "sqnr"


@pytest.mark.parametrize("bytes_each", [10, -10])
def test_of_all_that_meets_the_limit_the_smallest_is_confirmed(tmp_path: Path, bytes_each: int) -> None:
    """Islands that meet cost fewer casts: more of them may be the smaller file."""
    world = World(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    world.bytes_each = bytes_each
    search = searched(world).values["search"]
    meeting = [row for row in search["trials"] if row["loss"] <= 0.01]
    assert search["chosen"] == min(meeting, key=lambda row: row["size_bytes"])["label"]


def test_trials_are_named_by_the_places_of_what_they_keep(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    search = searched(world).values["search"]
    labels = [row["label"] for row in search["trials"]]
    assert len(set(labels)) == len(labels)
    assert search["chosen"].endswith("-islands-2+4")


def test_the_best_found_is_told_with_the_samples_that_it_was_found_on(tmp_path: Path) -> None:
    confirmed = searched(World(tmp_path, culprits(), [judged("pass", 0.002)])).values["search"]["best"]
    assert (confirmed["samples"], confirmed["loss"], confirmed["loss_high"]) == ("evaluation", 0.002, 0.004)
    missed = searched(World(tmp_path, culprits("t30", "t35"), []), trials=5).values["search"]["best"]
    assert (missed["samples"], missed["loss"], missed["loss_high"], missed["n"]) == ("selection", 0.1, None, 100)


def test_the_fastest_that_meets_the_limit_is_taken_for_latency(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    world.latency = lambda kept: 2.0 / len(kept)  # what casts least
    search = searched(world, objective="latency").values["search"]
    measured = {row["label"]: row for row in search["trials"] if row["latency_ratio"] is not None}
    assert len(measured) == len(world.of("benchmark")) > 2
    assert all(row["loss"] <= 0.01 for row in measured.values())
    assert measured[search["chosen"]]["latency_ratio"] == min(row["latency_ratio"] for row in measured.values())
    assert (search["objective"], search["device"]) == ("latency", "host")


def test_of_equally_fast_ones_the_smallest_is_taken(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1", "t3"), [judged("pass", 0.001)])
    world.latency = lambda kept: 1.0 - 0.001 * len(kept)
    search = searched(world, objective="latency").values["search"]
    assert [unit["tensor"] for unit in search["islands"]] == ["t1", "t3"]


def test_int8_throughout_that_meets_the_limit_needs_no_measurement(tmp_path: Path) -> None:
    world = World(tmp_path, culprits(), [judged("pass", 0.001)])
    searched(world, objective="latency")
    assert world.of("benchmark") == []


def test_a_device_that_measures_nothing_fails_the_search(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    world.broken = {"benchmark"}
    with pytest.raises(StepError, match=r'search\.device: no latency from "host": it broke'):
        searched(world, objective="latency")


def test_a_device_out_of_reach_fails_the_search(tmp_path: Path) -> None:
    world = World(tmp_path, culprits("t1"), [judged("pass", 0.001)])
    world.latency = lambda kept: None
    with pytest.raises(StepError, match=r'no latency from "host": it measured nothing'):
        searched(world, objective="latency")
