"""The limit of a search is a gate: what its row says for each end that a search can come to."""

from __future__ import annotations

from typing import Any

import pytest

from quantbuild import search_gate
from quantbuild.errors import ManifestErrors
from quantbuild.manifest.loading import load

EVALUATED = {"samples": "evaluation", "loss": 0.021, "loss_low": 0.011, "loss_high": 0.031, "n": 400}
SELECTED = {"samples": "selection", "loss": 0.021, "loss_low": None, "loss_high": None, "n": 100}


def judged(verdict: str, best: dict[str, Any], *, left: int = 3, **more: Any) -> dict[str, Any]:
    beside = {"rows": more.pop("rows", []), "accuracy": more.pop("accuracy", None)}
    search = {
        "trials": [{}] * 13,
        "limit": 0.01,
        "verdict": verdict,
        "best": {"label": "minmax-islands-1-3", "sqnr_db": 20.0, **best},
        "trials_left": left,
        "left_out": [],
        **more,
    }
    (row,) = search_gate.judge(search, **beside)
    return row


def test_what_no_search_with_a_limit_made_has_no_such_gate() -> None:
    assert search_gate.judge(None, rows=[], accuracy=None) == []
    search = {"trials": [], "chosen": "minmax", "confirmations": []}
    assert search_gate.judge(search, rows=[], accuracy=None) == []


def test_a_limit_that_is_missed_on_the_selection_samples_fails_with_the_best_found() -> None:
    row = judged("fail", SELECTED)
    assert (row["name"], row["limit"], row["value"], row["verdict"]) == (
        "search.max_accuracy_loss",
        0.01,
        0.021,
        "fail",
    )
    assert row["message"] == (
        "search.max_accuracy_loss: loss 0.021 of 100 selection samples is beyond 0.01; "
        "best found: minmax-islands-1-3 of 13 artifacts tried"
    )
    assert judged("fail", SELECTED, left=0)["message"].endswith("; more trials may find one that meets it")


def test_activations_that_could_not_be_kept_are_told_where_the_limit_is_missed() -> None:
    left_out = [{"tensor": "a;b", "error": "no kernel"}, {"tensor": "c", "error": "nor here"}]
    told = "; a and 1 more could not be kept from int8: no kernel"
    assert judged("fail", SELECTED, left_out=left_out)["message"].endswith(told)
    assert told not in judged("pass", EVALUATED, left_out=left_out)["message"]


ONCE = (
    "max_accuracy_loss {} all the same: it looks once, with 95 % confidence; a search may look three times, each with "
)
CONFIRMED = [{"confidence": 1 - 0.05 / 3}]


@pytest.mark.parametrize(
    ("verdict", "best", "gate", "limit", "told"),
    [
        ("undecided", EVALUATED, "pass", 0.01, ONCE.format("passes") + "98.33 %"),
        ("undecided", EVALUATED, "fail", 0.01, ONCE.format("fails") + "98.33 %"),
        ("undecided", EVALUATED, "undecided", 0.01, None),
        ("undecided", EVALUATED, "pass", 0.02, None),  # another limit, and another answer
        ("undecided", EVALUATED, "fail", 0.005, None),
        ("pass", EVALUATED, "fail", 0.005, None),
        ("fail", EVALUATED, "fail", 0.01, None),
        (
            "fail",
            SELECTED,
            "pass",
            0.01,
            "max_accuracy_loss passes all the same: it is of 400 evaluation samples, by which nothing is chosen",
        ),
        ("fail", SELECTED, "pass", 0.03, None),
        ("fail", SELECTED, "fail", 0.01, None),
    ],
)
def test_where_the_two_gates_on_the_loss_do_not_agree_the_row_says_why(
    verdict: str, best: dict[str, Any], gate: str, limit: float, told: str | None
) -> None:
    beside = {"name": "max_accuracy_loss", "limit": limit, "verdict": gate}
    row = judged(verdict, best, confirmations=CONFIRMED, accuracy={"n": 400, "confidence": 0.95}, rows=[beside])
    assert row["beside"] == told
    assert row["message"].endswith(f"; {told}") == (told is not None)
    assert row["verdict"] == verdict


@pytest.mark.parametrize(
    ("verdict", "best", "words"),
    [
        ("pass", EVALUATED, "loss 0.021 [0.011, 0.031] of 400 evaluation samples is within 0.01"),
        ("fail", EVALUATED, "of 400 evaluation samples is beyond 0.01; best found: minmax-islands-1-3 of 13 artifacts"),
        ("undecided", EVALUATED, "of 400 evaluation samples is not decided against 0.01"),
        ("not_measured", SELECTED, "within 0.01; minmax-islands-1-3 of 13 artifacts tried; there is no evaluation set"),
    ],
)
def test_the_verdict_is_the_search_s_own(verdict: str, best: dict[str, Any], words: str) -> None:
    row = judged(verdict, best)
    assert row["verdict"] == verdict
    assert words in row["message"]


MANIFEST = """schema = 1
[dataset.data]
loader = "npz"
path = "data.npz"
input = "x"
label = "y"
[device.host]
runner = "host"
[device.other]
runner = "host"
threads = 2
[model.m]
source = "tflite"
path = "m.tflite"
calibration = "data"
devices = ["host"]
metric = "METRIC"
[model.m.variant.v]
scheme = "mixed"
search = { max_accuracy_loss = 0.01, KEYS }
"""


def load_with(root: Any, keys: str, metric: str = "top1") -> Any:
    (root / "manifests").mkdir()
    (root / "manifests/m.toml").write_text(MANIFEST.replace("KEYS", keys).replace("METRIC", metric))
    for name in ("data.npz", "m.tflite"):
        (root / name).touch()
    return load(root, environ={}).models["m"].variants["v"].options.search


@pytest.mark.parametrize("keys", ['objective = "size"', 'objective = "latency", device = "host"', "trials = 3"])
def test_an_objective_goes_with_its_device(tmp_path: Any, keys: str) -> None:
    assert load_with(tmp_path, keys).max_accuracy_loss == 0.01


@pytest.mark.parametrize(
    ("keys", "metric", "problem"),
    [
        ('objective = "latency"', "top1", 'search.device: objective = "latency" needs one; add device = NAME'),
        ('device = "host"', "top1", 'search.device: objective = "size" measures none; remove it or'),
        ('objective = "latency", device = "phone"', "top1", 'search.device: unknown device "phone"'),
        ('objective = "latency", device = "other"', "top1", 'this model is not measured there; add "other" to its'),
        ("trials = 0", "top1", "search.trials: "),
    ],
)
def test_what_cannot_be_searched_by_is_refused(tmp_path: Any, keys: str, metric: str, problem: str) -> None:
    with pytest.raises(ManifestErrors) as caught:
        load_with(tmp_path, keys, metric)
    (line,) = caught.value.lines
    assert problem in line
