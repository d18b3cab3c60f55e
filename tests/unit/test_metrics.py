"""Scores per sample: ties counted one way, labels checked, and what a user's metric must say about itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quantbuild import metrics
from quantbuild.errors import StepError
from quantbuild.metrics import Outputs


def outputs(*values: float) -> Outputs:
    return Outputs({"scores": np.array([values], np.float32)})


def score(name: str, given: Outputs, label: object, root: Path = Path()) -> float:
    found = metrics.find(name, root).score
    assert found is not None
    return found(given, label)


def test_top1_is_right_or_wrong() -> None:
    assert score("top1", outputs(0.1, 0.9), 1) == 1.0
    assert score("top1", outputs(0.1, 0.9), np.int64(0)) == 0.0


def test_a_tie_goes_to_the_lower_class_once() -> None:
    tied = outputs(0.5, 0.5, 0.1)
    assert [score("top1", tied, label) for label in range(3)] == [1.0, 0.0, 0.0]


def test_ties_count_for_five_classes_at_most() -> None:
    tied = outputs(*[0.5] * 8)
    assert sum(score("top5", tied, label) for label in range(8)) == 5


@pytest.mark.parametrize("label", [2, -1])
def test_a_label_beyond_the_classes_is_refused(label: int) -> None:
    with pytest.raises(StepError, match=f"label {label} is no class of an output of 2"):
        score("top1", outputs(0.1, 0.9), label)


def test_a_label_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(StepError, match=r"float64.*give one class number"):
        score("top1", outputs(0.1, 0.9), np.float64(1))


def test_a_label_that_is_a_text_is_refused_with_the_text() -> None:
    with pytest.raises(StepError, match=r'label "cat" is a text; number the classes from 0'):
        score("top1", outputs(0.1, 0.9), np.array(["cat", "tabby"])[0])


def test_top1_of_one_number_is_refused() -> None:
    with pytest.raises(StepError, match="needs a score per class"):
        score("top1", outputs(0.7), 1)


def test_several_outputs_are_refused_by_name() -> None:
    two = Outputs({"boxes": np.zeros((1, 2)), "scores": np.zeros((1, 2))})
    with pytest.raises(StepError, match="boxes, scores"):
        score("top1", two, 0)


def test_errors_are_means_over_the_outputs_numbers() -> None:
    assert score("mae", outputs(1, 4), np.array([0, 2])) == pytest.approx(1.5)
    assert score("mse", outputs(1, 4), np.array([0, 2])) == pytest.approx(2.5)
    assert score("mae", outputs(3), 1) == 2.0
    with pytest.raises(StepError, match="give one number per output number"):
        score("mae", outputs(1, 4), 2)


def test_the_direction_is_the_metrics() -> None:
    assert metrics.find("top5", Path()).higher_is_better
    assert not metrics.find("mse", Path()).higher_is_better


def test_only_metrics_that_compare_do_without_labels() -> None:
    needs = {name: metrics.find(name, Path()).needs_labels for name in ("top1", "mae", "agreement", "sqnr")}
    assert needs == {"top1": True, "mae": True, "agreement": False, "sqnr": False}


def test_agreement_is_the_share_of_positions_with_the_same_class() -> None:
    first = {"map": np.array([[[0.1, 0.9], [0.8, 0.2]]])}
    second = {"map": np.array([[[0.3, 0.7], [0.4, 0.6]]])}
    assert metrics.agreement(first, second) == 0.5
    assert metrics.agreement(first, first) == 1.0


def test_numbers_without_classes_agree_only_when_equal() -> None:
    one = {"value": np.array([[1.0]])}
    assert metrics.agreement(one, {"value": np.array([[1.1]])}) is None
    assert metrics.agreement(one, one) == 1.0


def test_sqnr_is_signal_over_noise_in_db() -> None:
    reference = np.array([3.0, 4.0], np.float32)
    assert metrics.powers(reference, reference + 1) == (25.0, 2.0)
    assert metrics.sqnr_db(25.0, 0.25) == pytest.approx(20.0)
    assert metrics.sqnr_db(25.0, 0.0) is None


def test_an_unknown_metric_is_named_with_those_there_are() -> None:
    with pytest.raises(StepError, match="metric accuracy: unknown; it is one of top1, top5"):
        metrics.find("accuracy", Path())


def test_a_users_metric_may_read_outputs_as_a_mapping_or_an_array(tmp_path: Path) -> None:
    (tmp_path / "own_metrics.py").write_text(
        "import numpy as np\n"
        "def by_name(outputs, label):\n    return outputs['scores'][0, label]\n"
        "def by_index(outputs, label):\n    return outputs[0][label]\n"
        "def by_array(outputs, label):\n    return np.max(outputs)\n"
        "for f in (by_name, by_index, by_array):\n    f.higher_is_better = True\n"
        "def undirected(outputs, label):\n    return 1.0\n"
        "def broken(outputs, label):\n    return 1 / 0\nbroken.higher_is_better = False\n"
        "def infinite(outputs, label):\n    return float('inf')\ninfinite.higher_is_better = False\n"
    )
    for name in ("by_name", "by_index", "by_array"):
        assert score(f"own_metrics:{name}", outputs(0.25, 0.5), 1, tmp_path) == 0.5
    with pytest.raises(StepError, match=r"no attribute higher_is_better; set undirected.higher_is_better"):
        metrics.find("own_metrics:undirected", tmp_path)
    with pytest.raises(StepError, match=r"own_metrics.py has no function missing"):
        metrics.find("own_metrics:missing", tmp_path)
    with pytest.raises(StepError, match="raised ZeroDivisionError"):
        score("own_metrics:broken", outputs(0.5), 0, tmp_path)
    with pytest.raises(StepError, match="returned inf; return a finite number"):
        score("own_metrics:infinite", outputs(0.5), 0, tmp_path)


def test_a_module_that_is_not_there_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="metric nowhere:f: cannot import nowhere"):
        metrics.find("nowhere:f", tmp_path)


SCORE = "def score(outputs, label):\n    return {}\nscore.higher_is_better = True\n"


@pytest.mark.parametrize(
    "body", ["from helper import VALUE\n", "import helper\n", "VALUE = open('helper.py').read()\n"]
)
def test_a_users_metric_reads_its_own_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Else it could change with no key knowing of it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").write_text("VALUE = 1.0\n")
    (tmp_path / "lone_metric.py").write_text(body + SCORE.format("1.0"))
    said = (
        'lone_metric:score: reads "helper.py", which is not declared; put what it needs of "helper.py" into lone_metric'
    )
    with pytest.raises(StepError, match=said):
        metrics.find("lone_metric:score", tmp_path)
    (tmp_path / "late_metric.py").write_text(SCORE.format("float(open('helper.py').read()[8:])"))
    with pytest.raises(StepError, match=r'metric late_metric:score: reads "helper.py"'):
        score("late_metric:score", outputs(0.5), 0, tmp_path)


def test_a_users_metric_in_a_package_may_use_the_whole_package(tmp_path: Path) -> None:
    package = tmp_path / "our_metrics"
    package.mkdir()
    (package / "__init__.py").write_text("VALUE = 2.0\n")
    (package / "helper.py").write_text("from . import VALUE\n")
    (package / "margin.py").write_text("from our_metrics.helper import VALUE\n" + SCORE.format("VALUE"))
    assert score("our_metrics.margin:score", outputs(0.5), 0, tmp_path) == 2.0


def test_a_users_metric_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "wrong_metric.py").write_text("1 / 0\n")
    with pytest.raises(StepError, match=r"metric wrong_metric:score: cannot be imported \(division by zero\)"):
        metrics.find("wrong_metric:score", tmp_path)
