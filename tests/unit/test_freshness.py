"""The rebuild policy: a pure function, every reason a value."""

import copy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from quantbuild.digests import Digest
from quantbuild.freshness import NEVER_BUILT, changes, key_of, known_reasons, why_not_fresh
from quantbuild.record import RECORD_SCHEMA, Failure, Output, Record, Result, RunFacts

PREIMAGE: dict[str, Any] = {
    "schema": 1,
    "action": "quantize",
    "code": "c" * 64,
    "parameters": {"scheme": "int8", "options": {"io": "float32", "ranges": "minmax"}},
    "inputs": {"model": "a" * 64, "statistics": "b" * 64},
    "tools": {"numpy": "2.0", "tensorflow": "2.21.0"},
}
FACTS = RunFacts(started="", seconds=0.0, reasons=(), worker="")
OUTPUT = Output(path="build/m/v/model.tflite", sha256="d" * 64, size_bytes=10)


def record(preimage: dict[str, Any] = PREIMAGE) -> Record:
    result = Result(key=key_of(preimage), preimage=preimage, outputs={"model": OUTPUT}, values={})
    return Record(schema=RECORD_SCHEMA, step="quantize:m/v", result=result, failure=None, run=FACTS)


def standing(path: str) -> Digest | None:
    return Digest("d" * 64, 10) if path == OUTPUT.path else None


def test_same_key_and_outputs_as_recorded_is_fresh() -> None:
    assert why_not_fresh(key_of(PREIMAGE), PREIMAGE, record(), standing) == ()


def test_no_record_is_never_built() -> None:
    assert why_not_fresh(key_of(PREIMAGE), PREIMAGE, None, standing) == (NEVER_BUILT,)


def test_a_failure_is_tried_again() -> None:
    failed = Record(schema=RECORD_SCHEMA, step="s", result=None, failure=Failure(message="no"), run=FACTS)
    assert [r.kind for r in why_not_fresh(key_of(PREIMAGE), PREIMAGE, failed, standing)] == ["failed before"]


def test_what_stands_for_one_build_alone_is_done_again() -> None:
    made = record()
    assert made.result is not None
    result = msgspec.structs.replace(made.result, values={"provisional": "the machine failed 1 trial"})
    provisional = msgspec.structs.replace(made, result=result)
    for reasons in (
        why_not_fresh(key_of(PREIMAGE), PREIMAGE, provisional, standing),
        known_reasons(PREIMAGE, (), provisional, standing),
    ):
        (reason,) = reasons
        assert (reason.text(), reason.explained()) == ("provisional", "provisional: the machine failed 1 trial")


def test_a_failure_is_explained_with_its_message_and_log_and_told_in_a_word() -> None:
    failure = Failure(message="m.keras: no model", log="build/.logs/convert.m.log")
    failed = Record(schema=RECORD_SCHEMA, step="s", result=None, failure=failure, run=FACTS)
    (reason,) = why_not_fresh(key_of(PREIMAGE), PREIMAGE, failed, standing)
    assert reason.text() == "failed before"
    assert reason.explained() == "failed before: m.keras: no model; log: build/.logs/convert.m.log"


def test_a_device_that_did_not_answer_is_asked_again() -> None:
    failure = Failure(message="phone: no answer", unreachable=True)
    record = Record(schema=RECORD_SCHEMA, step="s", result=None, failure=failure, run=FACTS)
    (reason,) = why_not_fresh(key_of(PREIMAGE), PREIMAGE, record, standing)
    assert reason.explained() == "not measured before: phone: no answer"


def test_what_is_known_is_told_while_an_input_is_not() -> None:
    now = copy.deepcopy(PREIMAGE)
    del now["inputs"]["statistics"]
    assert known_reasons(now, ["statistics"], record(), standing) == ()
    now["parameters"]["options"]["io"] = "int8"
    reasons = known_reasons(now, ["statistics"], record(), lambda path: None)
    assert [r.text() for r in reasons] == [
        "option changed: options.io: float32 → int8",
        f"output missing: {OUTPUT.path}",
    ]
    assert known_reasons(now, ["statistics"], None, standing) == (NEVER_BUILT,)


def test_an_input_that_came_or_went_is_told() -> None:
    now = copy.deepcopy(PREIMAGE)
    now["inputs"] = {"model": "a" * 64, "metric": "f" * 64}
    assert [r.text() for r in changes(PREIMAGE, now)] == [
        f"input changed: metric: absent → {'f' * 12}",
        f"input changed: statistics: {'b' * 12} → absent",
    ]


def test_a_missing_output_is_named() -> None:
    reasons = why_not_fresh(key_of(PREIMAGE), PREIMAGE, record(), lambda path: None)
    assert [(r.kind, r.what) for r in reasons] == [("output missing", OUTPUT.path)]


def test_an_altered_output_is_named_old_and_new() -> None:
    reasons = why_not_fresh(key_of(PREIMAGE), PREIMAGE, record(), lambda path: Digest("e" * 64, 10))
    assert [r.text() for r in reasons] == [f"output altered: {OUTPUT.path}: {'d' * 12} → {'e' * 12}"]


def test_a_changed_option_is_named_old_and_new() -> None:
    now = copy.deepcopy(PREIMAGE)
    now["parameters"]["options"]["io"] = "int8"
    reasons = why_not_fresh(key_of(now), now, record(), standing)
    assert [r.text() for r in reasons] == ["option changed: options.io: float32 → int8"]


def test_every_changed_component_is_named() -> None:
    now = copy.deepcopy(PREIMAGE)
    now["inputs"]["statistics"] = "f" * 64
    now["tools"]["tensorflow"] = "2.22.0"
    now["code"] = "9" * 64
    kinds = {r.kind for r in changes(PREIMAGE, now)}
    assert kinds == {"input changed", "tool changed", "quantbuild's code changed"}


def test_an_added_option_was_absent() -> None:
    now = copy.deepcopy(PREIMAGE)
    now["parameters"]["options"]["keep_float"] = ["softmax"]
    assert [r.text() for r in changes(PREIMAGE, now)] == ['option changed: options.keep_float: absent → ["softmax"]']


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=5), st.randoms())
def test_equal_meaning_is_an_equal_key(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert key_of(value) == key_of(dict(items))


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=1, max_size=5), st.data())
def test_any_changed_component_is_another_key(value: dict[str, int], data: Any) -> None:
    name = data.draw(st.sampled_from(sorted(value)))
    assert key_of(value) != key_of({**value, name: value[name] + 1})


def test_a_change_deep_in_a_list_of_named_tables_is_named_by_them() -> None:
    old = {"parameters": {"models": [{"name": "m", "variants": [{"name": "a", "size": 1}, {"name": "b", "size": 2}]}]}}
    new = copy.deepcopy(old)
    new["parameters"]["models"][0]["variants"][1]["size"] = 3
    assert [r.text() for r in changes(old, new)] == ["option changed: models.m.variants.b.size: 2 → 3"]


def variant(**changed: Any) -> dict[str, Any]:
    known = {"name": "b", "scheme": "int8", "sha256": "a" * 64, "size_bytes": 1, "values": {"io": "int8"}}
    return {**known, "error": None, **changed}


def closing(action: str, **parameters: Any) -> dict[str, Any]:
    return {"action": action, "parameters": parameters}


def test_what_the_page_is_made_of_is_told_by_artifact_and_step_and_is_no_option() -> None:
    old = closing(
        "report",
        models=[{"name": "v1.2", "gate": {}, "variants": [variant()]}],
        steps=[{"id": "quantize:v1.2/b", "outcome": "done", "reason": "never built", "message": None}],
        tools={"numpy": "1"},
    )
    new = closing(
        "report",
        models=[
            {
                "name": "v1.2",
                "gate": {"max_size_ratio": 0.3},
                "variants": [variant(scheme="dynamic", sha256="b" * 64, size_bytes=2, values={"scheme": "dynamic"})],
            }
        ],
        steps=[
            {"id": "quantize:v1.2/b", "outcome": "failed", "reason": "forced", "message": "no"},
            {"id": "evaluate:v1.2/b", "outcome": "done", "reason": "", "message": None},
        ],
        tools={"numpy": "2"},
    )
    assert [reason.text() for reason in changes(old, new)] == [
        "failure changed: quantize:v1.2/b: absent → no",
        "step came to another end: quantize:v1.2/b: done → failed",
        "option changed: models.v1.2.gate.max_size_ratio: absent → 0.3",
        "option changed: models.v1.2.variants.b.scheme: int8 → dynamic",
        "artifact changed: v1.2/b",
        "step is new: evaluate:v1.2/b",
        "tool changed: numpy: 1 → 2",
        "step done for another reason: quantize:v1.2/b",
    ]


def test_what_dist_is_made_of_is_told_by_artifact() -> None:
    artifact = {"name": "m/b", "failed": False, "key": "1" * 64, "inputs": {"d.npz": "2" * 64}, "verdict": None}
    old = closing("dist", artifacts=[{**artifact, "contract": {"scheme": "int8"}}], ship={"m": {"default": "b"}})
    changed = {**artifact, "key": "3" * 64, "inputs": {"d.npz": "4" * 64}, "verdict": "pass"}
    new = closing(
        "dist",
        artifacts=[{**changed, "contract": {"scheme": "int8"}}, {"name": "m/c", "failed": True}],
        ship={"m": {"default": "c"}},
    )
    assert [reason.text() for reason in changes(old, new)] == [
        "artifact is new: m/c",
        "artifact changed: m/b",
        "verdict changed: m/b: absent → pass",
        "option changed: ship.m.default: b → c",
    ]


def test_what_the_user_wrote_is_told_before_what_follows_from_it() -> None:
    now = copy.deepcopy(PREIMAGE)
    now["code"] = "9" * 64
    now["tools"]["tensorflow"] = "2.22.0"
    now["inputs"]["model"] = "f" * 64
    now["parameters"]["options"]["io"] = "int8"
    now["parameters"]["scheme"] = "another"
    assert [reason.kind for reason in changes(PREIMAGE, now)] == [
        "option changed", "option changed", "input changed", "tool changed", "quantbuild's code changed",
    ]  # fmt: skip
    assert next(changes(PREIMAGE, now)).what == "scheme"


def test_a_long_value_is_shown_by_its_beginning() -> None:
    reasons = list(changes({"parameters": {"x": "a"}}, {"parameters": {"x": "b" * 5000}}))
    assert len(reasons[0].text()) < 200


def test_a_tuple_and_the_list_it_is_read_back_as_are_no_change() -> None:
    assert list(changes({"parameters": {"x": [1, 2]}}, {"parameters": {"x": (1, 2)}})) == []
