"""The report: one self-contained page that a browser draws, and a report.json that its own schema describes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import report_fixture as fixture

from quantbuild.actions import report
from quantbuild.report import page as rendering
from quantbuild.report import plot, schema, view, wording
from quantbuild.report.document import build
from quantbuild.report.view import page

VARIANTS = ["float32", "float16", "dynamic", "int8", "int8_io", "clipped", "broken"]
MEASURED_KEYS = {"value", "baseline", "loss", "loss_low", "loss_high", "n", "agreement", "sqnr_db", "verdict"}
PLOTTED = re.compile(r'<svg[^>]*class="marks".*?</svg>', re.DOTALL)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    values = report.run(fixture.job(folder))
    assert values["verdicts"]["digits/int8"] == "pass"
    return folder


@pytest.fixture(scope="module")
def document(built: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((built / "report.json").read_text())
    return found


def build_with(**changes: Any) -> dict[str, Any]:
    return build({**fixture.parameters(), **changes}, fixture.results())


# ---- report.json


def test_report_json_matches_its_schema(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())
    jsonschema.validate(document, schema.json_schema())


def test_a_report_that_lacks_a_key_is_not_written(tmp_path: Path) -> None:
    parameters = fixture.parameters()
    parameters["models"][0]["devices"][0]["runner"] = None
    with pytest.raises(msgspec.ValidationError, match="runner"):
        report.run(fixture.job(tmp_path, parameters))
    assert not (tmp_path / "report.json").exists()


def test_float32_is_first_and_every_variant_has_every_key(document: dict[str, Any]) -> None:
    variants = document["models"][0]["variants"]
    assert [variant["name"] for variant in variants] == VARIANTS
    for variant in variants[:-1]:
        assert set(variant["accuracy"]) >= MEASURED_KEYS
        assert set(variant["devices"]) == {"host", "pixel4"}
    assert variants[3]["artifact"]["size_ratio"] == pytest.approx(261_504 / fixture.FLOAT32_BYTES)
    assert variants[3]["artifact"]["kept_float"] == fixture.KEPT_FLOAT
    assert variants[1]["artifact"]["kept_float"] == []


def test_where_noise_comes_from_is_told_for_the_variant_that_asked(document: dict[str, Any], built: Path) -> None:
    found = {variant["name"]: variant["sensitivity"] for variant in document["models"][0]["variants"]}
    assert [name for name, each in found.items() if each] == ["int8"]
    assert found["int8"]["node_data"]["noise"] == "build/digits/int8/noise.json"
    text = (built / "index.html").read_text()
    assert text.count("Where its noise comes from") == 1
    assert "net/op0 &lt;i&gt; (fused with 1 more)" in text
    assert "their errors work against each other" in text
    assert "PACK net/packed" in text


def test_the_page_names_the_nodes_kept_out_of_int8_by_layer_where_they_have_one() -> None:
    view = page(build_with())
    facts = {detail.variant: dict(detail.facts) for detail in view.models[0].details}
    assert facts["int8"]["Kept in float"] == "SOFTMAX probabilities"
    assert facts["int8"]["Kept at 16 bits"] == "ADD net_1/sum_1/Add"
    assert "Kept in float" not in facts["float16"]


def test_the_report_says_what_each_file_is_made_of(document: dict[str, Any]) -> None:
    artifact = document["models"][0]["variants"][5]["artifact"]
    assert artifact["op_versions"][1] == {"op": "FULLY_CONNECTED", "version": 9, "count": 1, "runtime": "2.3.0"}
    assert artifact["conversions"]["ops"][0]["from"] == "int8"
    assert artifact["sizes"]["largest"][0]["bytes"] == 65_536
    assert (artifact["minimal_runtime"], artifact["runtime_unknown"]) == ("2.3.0", [])
    assert document["models"][0]["calibration"]["route"] == "all-tensors"
    assert document["models"][0]["variants"][5]["accuracy"]["outputs"][0]["clipped"] == 0.001


def test_what_was_not_measured_is_null_and_what_failed_says_why(document: dict[str, Any]) -> None:
    broken = document["models"][0]["variants"][-1]
    assert (broken["artifact"], broken["accuracy"], broken["search"]) == (None, None, None)
    assert broken["error"] == fixture.BROKEN
    assert broken["verdict"] == "fail"
    for device in broken["devices"].values():
        assert device["status"] == "not_measured"
        assert device["latency_ms"] is device["peak_memory_bytes"] is None


def test_a_failed_benchmark_is_failed_and_a_blocked_one_is_not_measured() -> None:
    steps = [fixture.step("benchmark:digits/int8@pixel4", "failed", message="adb: device offline")]
    int8 = build_with(steps=steps)["models"][0]["variants"][3]
    assert int8["devices"]["pixel4"]["status"] == "failed"
    assert int8["devices"]["pixel4"]["message"] == "adb: device offline"
    assert build_with()["models"][0]["variants"][-1]["devices"]["host"]["status"] == "not_measured"


def test_an_undecided_gate_that_is_set_to_fail_fails_the_variant() -> None:
    results = fixture.results()
    results["check"]["models"][0]["variants"][4]["gates"][0]["fails"] = True
    found = build(fixture.parameters(), results)
    assert found["models"][0]["variants"][4]["verdict"] == "fail"
    assert "undecided, which is set to fail" in rendering.render(page(found))


def test_a_report_without_any_result_is_still_a_report(tmp_path: Path) -> None:
    parameters = fixture.parameters()
    for variant in parameters["models"][0]["variants"]:
        variant.update(artifact_path=None, sha256=None, size_bytes=None, error="convert:digits failed")
    report.run(fixture.job(tmp_path, parameters, {}))
    found = json.loads((tmp_path / "report.json").read_text())
    jsonschema.validate(found, schema.json_schema())
    text = (tmp_path / "index.html").read_text()
    assert "convert:digits failed" in text
    assert "vegaLite" not in text, "nothing to plot, so no chart library"


def test_the_same_results_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    report.run(fixture.job(tmp_path))
    for name in ("report.json", "index.html"):
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


# ---- the page


class Loads(HTMLParser):
    """Collects whatever an element would load, and the text of style elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.styles: list[str] = []
        self._in_style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        named = dict(attrs)
        self.urls += [named[name] or "" for name in ("src", "srcset", "data", "poster", "action") if name in named]
        self.urls += [] if (named.get("href") or "#").startswith("#") else [str(named["href"])]
        self.styles.append(named.get("style") or "")

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False


def test_the_page_loads_nothing(built: Path) -> None:
    text = (built / "index.html").read_text()
    loads = Loads(text)
    assert loads.urls == []
    assert not re.search(r"@import|url\(", "".join(loads.styles))
    assert "default-src 'none'" in text


def test_every_variant_is_on_the_page_and_the_failed_one_with_its_message_escaped(built: Path) -> None:
    text = (built / "index.html").read_text()
    for name in VARIANTS:
        assert f'<a href="#detail-digits-{name}">{name}</a>' in text
    assert "op 3 &lt;/script&gt;&lt;b&gt;CONV_2D&lt;/b&gt; has no int16 kernel" in text
    assert fixture.BROKEN not in text
    assert "<b>CONV_2D" not in text


def test_the_headline_tells_what_failed_first_in_plain_words(document: dict[str, Any]) -> None:
    shown = page(document)
    assert shown.headline == "2 failures: not everything here can be shipped."
    assert shown.failures[0].startswith("digits/broken could not be built: op 3")
    assert shown.failures[1].startswith(
        "digits/clipped loses 4.17 points (95 %: +2.53 to +6.10 points) against float32, "
        "and only 2.00 points are allowed"
    )
    assert shown.doubts[0].endswith("the limit of 2.00 points is inside that interval, so 600 samples cannot tell.")


def test_a_file_is_told_in_words(document: dict[str, Any], built: Path) -> None:
    facts = dict(page(document).models[0].details[5].facts)
    assert facts["Oldest TFLite runtime"] == "2.3.0, for FULLY_CONNECTED v9"
    assert facts["Conversions inside the graph"] == (
        "1, around 1 stretch of float ops: DEQUANTIZE to float32 logits (fused with 1 more)"
    )
    assert facts["Bytes"] == "238.9 kB of weights and other constants, 20.0 kB of all else"
    assert facts["Largest tensors"] == "dense/kernel (float32, 65.5 kB, 25.3 %)"
    assert facts["Outputs on the evaluation set"] == (
        "probabilities: 1 of 10 elements never changed, 1 of which do in float32, "
        "42.0 % of the values at the lower end of the range and 5.0 % at the upper, 0.10 % clipped"
    )
    assert ("FULLY_CONNECTED v9", "1") in (page(document).models[0].details[5].ops or ())
    assert "Conversions inside the graph" not in dict(page(document).models[0].details[3].facts)


def test_gates_on_ops_and_runtime_name_what_they_found(document: dict[str, Any]) -> None:
    shown = page(document)
    rows = {row.title: (row.limit, row.value) for row in shown.models[0].gates if row.variant == "clipped"}
    assert rows["Operations"] == ("only CONV_2D", "ADD, SOFTMAX")
    assert rows["TFLite runtime needed"] == ("at most 2.1", "2.3.0")
    assert "holds operations that are not allowed: ADD, SOFTMAX" in shown.failures[1]
    assert "needs TFLite 2.3.0, where it must run on 2.1" in shown.failures[1]


def test_a_runtime_that_is_not_known_is_undecided_and_says_why() -> None:
    results = fixture.results()
    results["digits/int8:description"] |= {"minimal_runtime": None, "runtime_unknown": ["FlexErf"]}
    row = fixture.gate("min_runtime", "2.14", None, "undecided")
    next(v for v in results["check"]["models"][0]["variants"] if v["name"] == "int8")["gates"].append(row)
    shown = page(build(fixture.parameters(), results))
    assert any("needs a TFLite runtime that is not known (FlexErf)" in doubt for doubt in shown.doubts)
    assert dict(shown.models[0].details[3].facts)["Oldest TFLite runtime"] == "not known: FlexErf"
    assert shown.doubts_remedy == "More evaluation samples narrow the interval."  # int8_io's, not this one's


def test_more_samples_are_no_remedy_for_an_unknown_runtime() -> None:
    results = fixture.results()
    results["check"]["models"][0]["variants"] = [
        {**judged, "gates": [fixture.gate("min_runtime", "2.14", None, "undecided")] if judged["gates"] else []}
        for judged in results["check"]["models"][0]["variants"]
    ]
    for found in results.values():
        if "runtime_unknown" in found:
            found |= {"minimal_runtime": None, "runtime_unknown": ["FlexErf"]}
    parameters = fixture.parameters()
    del parameters["models"][0]["variants"][-1]
    parameters["models"][0]["ship"] = {}
    shown = page(build({**parameters, "steps": []}, results))
    assert (shown.headline, shown.doubts_remedy) == ("Nothing fails, but 5 variants are undecided.", "")
    assert "narrow the interval" not in rendering.render(shown)


def test_what_was_found_about_the_samples_is_on_the_page(document: dict[str, Any], built: Path) -> None:
    assert [(each["rule"], each["severity"]) for each in document["models"][0]["lint"]] == [
        ("range", "error"), ("few_samples", "info"),
    ]  # fmt: skip
    shown = page(document).models[0].data
    assert shown is not None
    assert shown.calibration == (
        "Ranges of 21 tensors come from 240 samples, 60 held back; measured with every tensor kept, because the model "
        "calls subgraphs (WHILE); tensors inside them are not measured."
    ).replace("60 held back", "60 held back to choose by")
    assert (shown.summary, shown.unfold) == ("1 error, 1 note", True)
    text = (built / "index.html").read_text()
    assert "prepare &lt;both&gt; in the same way" in text
    assert "prepare <both>" not in text
    assert "cannot be trusted: cal: is noise; give it real samples" in page(document).failures[1]


def test_samples_without_a_finding_are_said_to_be_so() -> None:
    results = fixture.results()
    results["check"]["models"][0]["lint"] = []
    shown = page(build(fixture.parameters(), results)).models[0].data
    assert shown is not None
    assert (shown.summary, shown.unfold) == ("Nothing was found to be wrong with the samples", False)


def test_an_undecided_limit_tells_what_would_decide_it(document: dict[str, Any]) -> None:
    variants = [variant for variant in document["models"][0]["variants"] if variant["verdict"] == "undecided"]
    for gate in variants[0]["gates"]:
        gate["samples_to_decide"] = 1300
    assert page(document).doubts[0].endswith("so 600 samples cannot tell; about 1,300 like them would, as an estimate.")


def test_slices_are_a_table_of_their_own(document: dict[str, Any], built: Path) -> None:
    table = page(document).models[0].slices
    assert table is not None
    assert table.variants == ("int8", "clipped")
    assert [(row.name, row.samples, row.baseline) for row in table.rows] == [
        ("day", "300", "98.00 %"), ("night <i>", "300", "98.00 %"),
    ]  # fmt: skip
    worst = table.rows[1].cells[1]
    assert (worst.loss, worst.interval) == ("+8.00 points", "+5.00 to +12.00 points")
    assert worst.mark is not None
    assert worst.mark.word == "fail"
    assert (table.summary, table.unfold) == ("2 slices of the evaluation set, 1 verdict fail", True)
    text = (built / "index.html").read_text()
    assert "night &lt;i&gt;" in text
    assert "night <i>" not in text
    assert (
        page(document)
        .failures[1]
        .endswith(
            'loses 8.00 points (night <i>: +5.00 to +12.00 points) against float32 on slice "night <i>", '
            "and only 3.00 points are allowed."
        )
    )


def test_without_slices_there_is_no_such_table() -> None:
    results = fixture.results()
    for variant in results["check"]["models"][0]["variants"]:
        variant["gates"] = []
        if variant["accuracy"]:
            variant["accuracy"]["slices"] = []
    found = build(fixture.parameters(), results)
    assert page(found).models[0].slices is None
    assert "Loss by slice" not in rendering.render(page(found))


def test_headlines_of_builds_that_did_not_fail() -> None:
    results, parameters = fixture.results(), fixture.parameters()
    del parameters["models"][0]["variants"][5:]
    parameters["models"][0]["ship"] = {}
    parameters["steps"] = []
    assert page(build(parameters, results)).headline.startswith("Nothing fails, but 1 variant is undecided")
    del parameters["models"][0]["variants"][4:]
    assert page(build(parameters, results)).headline == "Every variant holds its limits."
    for variant in results["check"]["models"][0]["variants"]:
        variant["gates"] = []
    assert page(build(parameters, results)).headline.endswith("no limits are set, so nothing was judged.")


def test_a_failed_step_of_no_variant_is_the_first_failure() -> None:
    steps = [fixture.step("calibrate:digits", "failed", message="sample 3 is all zero")]
    assert page(build_with(steps=steps)).failures[0] == "calibrate:digits: sample 3 is all zero"


def test_an_unmeasured_device_says_so_and_its_reason_is_told(document: dict[str, Any]) -> None:
    model = page(document).models[0]
    assert all(row.cells[-1].text == "not measured" for row in model.rows)
    phone = model.places[1]
    assert ("required", "no") in phone.common
    assert phone.variants[0][1] == "not measured: device pixel4 is not reachable over adb"


def test_facts_that_all_variants_share_are_told_once(document: dict[str, Any]) -> None:
    host = page(document).models[0].places[0]
    assert ("cpu", "Imaginary CPU 9000") in host.common
    assert [name for name, _ in host.variants[0][2]] == ["load average"]


def test_what_ships_is_named_with_its_path_and_its_flaw(document: dict[str, Any]) -> None:
    model = page(document).models[0]
    assert model.summary[-2:] == (
        "int8 ships: dist/digits/model.tflite.",
        "broken, which is to ship as dist/digits/model.low_end.tflite, could not be built.",
    )
    assert {row.name: row.ships for row in model.rows if row.ships} == {
        "int8": ("model.tflite",),
    }, "what could not be built ships as nothing"
    failing = build_with()
    failing["models"][0]["ship"] = {"default": "clipped"}
    smallest = min(
        (v for v in failing["models"][0]["variants"] if v["verdict"] == "pass"),
        key=lambda v: v["artifact"]["size_bytes"],
    )["name"]
    assert page(failing).models[0].summary[-1] == (
        f"clipped ships, although it fails: dist/digits/model.tflite; {smallest} would hold the limits."
    )


def test_what_to_try_against_a_loss_is_told_where_no_variant_searches_for_it() -> None:
    failing = build_with()
    clipped = next(v for v in failing["models"][0]["variants"] if v["name"] == "clipped")
    assert any(gate["name"] == "max_accuracy_loss" and gate["verdict"] == "fail" for gate in clipped["gates"])
    assert 'scheme = "mixed"' in page(failing).failures_remedy
    clipped["scheme"] = "mixed"
    assert page(failing).failures_remedy == ""


def test_what_a_search_did_stands_in_the_row_of_its_variant() -> None:
    found = build_with()
    variant = next(v for v in found["models"][0]["variants"] if v["name"] == "int8")
    variant["artifact"]["quantized_by"] = {
        "ranges": "quantile 0.75",
        "equalized_groups": 7,
        "most_uneven_tensor": "a;b",
    }
    variant["search"] = {"trials": [], "chosen": "", "confirmations": [], "islands": [{}, {}]}
    row = next(row for row in view.rows_of(found["models"][0]) if row.name == "int8")
    assert row.found == "found: ranges quantile 0.75, channels equalized, 2 activations out of int8"
    assert {row.found for row in view.rows_of(found["models"][0]) if row.name != "int8"} == {""}


@pytest.mark.parametrize(
    ("name", "device", "sentence"),
    [
        ("max_latency_ratio", "host", "takes 1.22× the time of float32 on host, where at most 1.10× is allowed"),
        ("max_size_ratio", None, "has 1.22× the file size of float32, where at most 1.10× is allowed"),
    ],
)
def test_a_broken_ratio_is_told_as_a_sentence_about_the_variant(
    document: dict[str, Any], name: str, device: str | None, sentence: str
) -> None:
    gate = fixture.gate(name, 1.1, 1.22, "fail", device)
    assert wording.gate_sentence(gate, "top1", document["models"][0]["variants"][3]) == sentence


def test_what_ships_stands_at_the_top_with_its_verdict(document: dict[str, Any], built: Path) -> None:
    shown = [(each.mark.word, each.variant, each.path, each.figures) for each in page(document).shipments]
    figures = "261.5 kB, loss +0.17 points (95 %: −0.31 to +0.78 points) on 600 samples"
    assert shown == [
        ("pass", "digits/int8", "dist/digits/model.tflite", figures),
        ("not built", "digits/broken", "dist/digits/model.low_end.tflite", ""),
    ]
    text = (built / "index.html").read_text()
    assert text.index("What ships") < text.index("What failed first")


def test_variants_of_one_scheme_say_what_tells_them_apart(document: dict[str, Any]) -> None:
    options = {row.name: row.options for row in page(document).models[0].rows}
    assert options["int8"] == "io = float32, ranges = sample_mean"
    assert options["int8_io"] == "io = int8, ranges = sample_mean"
    assert options["clipped"] == "ranges = percentile"
    assert options["float16"] == "", "no other float16 is there"


def test_nothing_of_a_kind_is_no_alarm() -> None:
    parameters = fixture.parameters()
    del parameters["models"][0]["variants"][3:]
    parameters["models"][0]["ship"] = {}
    tiles = page(build(parameters, fixture.results())).tiles
    assert [(tile.number, tile.kind) for tile in tiles] == [("1", "none"), ("2", "pass"), ("0", "none")]


def test_what_a_step_said_of_its_work_is_opened_out() -> None:
    parameters = fixture.parameters()
    said = {"quantized": {"float16": {"tensors": 14, "elements": 201_088}}, "left_float": {}, "size_bytes": 9}
    parameters["models"][0]["variants"][1]["values"] = said
    facts = dict(page(build(parameters, fixture.results())).models[0].details[1].facts)
    assert facts["How it was quantized"] == "quantized float16 tensors 14; quantized float16 elements 201,088"


def test_tensors_that_a_step_names_are_told_by_their_first_name() -> None:
    parameters = fixture.parameters()
    parameters["models"][0]["variants"][1]["values"] = {
        "most_uneven": {"tensor": "relu;norm;conv"},
        "left": ["a;b", "c"],
    }
    facts = dict(page(build(parameters, fixture.results())).models[0].details[1].facts)
    assert (
        facts["How it was quantized"] == "most uneven tensor relu (fused with 2 more); left [a (fused with 1 more), c]"
    )


def test_samples_with_another_answer_are_counted_though_only_the_first_are_listed(document: dict[str, Any]) -> None:
    facts = dict(page(document).models[0].details[3].facts)
    listed = "6, counted from 0 in the data set (the first 2 of them): 17, 301"
    assert facts["Samples with another answer"] == listed


def test_a_float32_that_guesses_is_told_at_the_top() -> None:
    document = build_with()
    assert page(document).warnings == ()
    message = "digits: float32 itself is right on 12.00% of 600 evaluation samples; check the preprocessing"
    document["models"][0]["lint"] = [{"rule": "guessing", "severity": "warning", "message": message}]
    assert page(document).warnings == (message,)
    assert message in rendering.render(page(document)).partition('class="model"')[0]


def test_templates_get_text_and_know_no_arithmetic() -> None:
    number = re.compile(r"\{[{%][^}%]*(?:[-+*/%]\s*\d|round|format|float\b|int\b)[^}%]*[%}]\}")
    for path in rendering.template_files():
        if path.suffix == ".j2":
            assert not number.search(path.read_text()), path.name


# ---- the plot


def test_the_plot_spans_the_interval_of_the_loss_around_float32(document: dict[str, Any]) -> None:
    specification = plot.specification(document["models"][0])
    assert specification is not None
    points = {point["variant"]: point for point in specification["data"]["values"]}
    failing = [v["name"] for v in document["models"][0]["variants"] if v["name"] in points and v["verdict"] == "fail"]
    assert failing
    assert list(points) == [v for v in VARIANTS[:-1] if v not in failing] + failing, "what fails is drawn on top"
    assert points["clipped"]["low"] == pytest.approx(98.667 - 6.1)
    assert points["clipped"]["high"] == pytest.approx(98.667 - 2.53)


@pytest.mark.parametrize(
    ("sizes", "labels"),
    [
        # the smallest to its left; those that stand beside it to their right, the highest on top
        ((300, 320, 321), {"a": ("a", "right"), "c": ("b\nc", "left")}),
        # no room on the left, none on the right
        ((100, 120, 121), {"c": ("a\nb\nc", "left")}),
        ((700, 720, 721), {"a": ("a\nb\nc", "right")}),
        # far from each other
        ((150, 300, 500), {"a": ("a", "left"), "b": ("b", "left"), "c": ("c", "left")}),
    ],
)
def test_labels_of_near_points_keep_clear_of_each_other(
    sizes: tuple[int, ...], labels: dict[str, tuple[str, str]]
) -> None:
    model = build_with()["models"][0]
    model["variants"] = model["variants"][:4]
    for variant, name, size, value in zip(
        model["variants"], ("float32", "a", "b", "c"), (1000, *sizes), (0.98, 0.98, 0.98, 0.9795), strict=True
    ):
        variant["name"], variant["artifact"]["size_bytes"] = name, size * 1000
        variant["accuracy"] |= {"value": value, "loss_low": -0.01, "loss_high": 0.01}
    specification = plot.specification(model)
    assert specification is not None
    points = {point["variant"]: point for point in specification["data"]["values"] if point["label"]}
    assert points.pop("float32")["side"] == "right"
    assert {name: (point["label"], point["side"]) for name, point in points.items()} == labels


def test_a_metric_where_less_is_better_spans_the_other_way() -> None:
    model = build_with()["models"][0] | {"metric": "mae"}
    for variant in model["variants"][:-1]:
        variant["accuracy"] |= {"higher_is_better": False, "value": 0.2, "baseline": 0.1}
        variant["accuracy"] |= {"loss_low": 0.05, "loss_high": 0.2}
    specification = plot.specification(model)
    assert specification is not None
    point = specification["data"]["values"][1]
    assert (point["low"], point["high"]) == pytest.approx((0.15, 0.3))


def test_one_figure_alone_is_no_plot() -> None:
    model = build_with()["models"][0]
    model["variants"] = [model["variants"][0], model["variants"][-1]]
    assert plot.specification(model) is None


def test_embedded_json_cannot_end_its_element() -> None:
    text = str(rendering.embedded_json({"name": "</script><!--&\u2028"}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": "</script><!--&\u2028"}


# ---- files of the page


def test_templates_inside_an_installed_package_come_first(tmp_path: Path) -> None:
    package = tmp_path / "quantbuild"
    package.mkdir()
    assert rendering.templates_folder(package) == tmp_path / "templates"
    (package / "templates").mkdir()
    (package / "templates" / rendering.TEMPLATE).touch()
    assert rendering.templates_folder(package) == package / "templates"


def test_the_chart_library_is_what_its_version_note_says() -> None:
    vendor = rendering.templates_folder() / "vendor"
    note = (vendor / "VERSIONS.md").read_text()
    for path in vendor.glob("*.min.js"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in note
        assert (vendor / path.name.replace(".min.js", ".LICENSE")).is_file()


# ---- in a browser


def chromium(folder: Path, *arguments: str) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert program, "chromium is not on PATH; install it: the page is not checked without a browser"
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=5000", *arguments]
    command += [(folder / "index.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_browser_draws_the_plot_with_every_measured_variant(built: Path) -> None:
    drawn = PLOTTED.search(chromium(built, "--window-size=1300,1800", "--dump-dom"))
    assert drawn, "no plot was drawn"
    for name in ("float32", "float16", "dynamic", "int8", "int8_io", "clipped", "limit"):
        assert f">{name}<" in drawn.group(), f"the plot has no label {name}"


@pytest.mark.parametrize("size", ["1300,1800", "400,1800"])
def test_a_browser_takes_a_picture_of_the_page(built: Path, size: str) -> None:
    picture = built / f"page-{size}.png"
    chromium(built, f"--window-size={size}", f"--screenshot={picture}")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
