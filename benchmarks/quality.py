"""What int8 costs in accuracy: the plain converter, litert-quantizer and quantbuild on trained models, in one run.

Seven models: the two examples and three trained here (benchmarks/models), one of which is harmed in two ways that keep
its float function. All artifacts of a model are calibrated with the same samples and judged on the same test set by
quantbuild itself. Needs Debian's packages dataset-fashion-mnist and espeak-ng. A model once trained is kept in
--models.
The last line is JSON: `ratio` is the largest lead of a rival's output SQNR over quantbuild's default int8, in dB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantbuild import statistics

HERE = Path(__file__).parent
EXAMPLES = HERE.parent / "examples"
BEGIN, END = "<!-- the table: written by benchmarks/quality.py -->", "<!-- end of the table -->"
LIMIT = 0.01
TRIALS = 16
LEAST_SAVING = 0.9
NEAR_DB = 0.1
VARIANTS = {
    "converter": 'scheme = "int8"\nengine = "tflite"',
    "litert-quantizer": 'scheme = "litert_static"',
    "minmax": 'scheme = "int8"\nranges = "minmax"',
    "auto": 'scheme = "int8"',
    "mixed": f'scheme = "mixed"\nsearch = {{ max_accuracy_loss = {LIMIT}, trials = {TRIALS} }}',
}
RIVALS = ("converter", "litert-quantizer")
DODO = "from quantbuild.shell import tasks\n\nglobals().update(tasks())\n"
DEVICE = '[device.host]\nrunner = "host"\nprocesses = 3\nseconds = 0.5\nwarmup_seconds = 0.2\n'


class Subject(NamedTuple):
    """A model of the table: where it is, what it reads, how it is judged."""

    name: str
    title: str
    model: Path
    data: Path
    metric: str = "top1"
    divisor: int = 255
    roles: tuple[str, str, str, str] = ("x", "y", "x_test", "y_test")
    calibration: str = ""
    trained: str = ""
    harmed: bool = False


def subjects(folder: Path) -> list[Subject]:
    """Return the models of the table; `folder` has those trained here."""

    def here(name: str, title: str, **more: Any) -> Subject:
        return Subject(name, title, folder / name / "model.keras", folder / name / "data.npz", **more)

    examples = ("x_train", "y_train", "x_test", "y_test")
    return [
        Subject("digits", "digits example", EXAMPLES / "digits/model.keras", EXAMPLES / "digits/digits.npz",
                divisor=1, roles=("x_calibration", "y_calibration", "x_test", "y_test")),
        Subject("fashion", "fashion example", EXAMPLES / "fashion/model.keras", EXAMPLES / "fashion/fashion.npz",
                roles=examples),
        here("mobile", "clothes, MobileNetV2-like with ReLU", trained="mobile"),
        here("words", "spoken words, DS-CNN", trained="words", divisor=1),
        here("angle", "angle of a turned shoe, residual net", trained="angle", metric="mae"),
        here("uneven", "mobile with uneven channels", trained="harmed", harmed=True),
        here("peaks", "mobile with rare peaks", trained="harmed", harmed=True),
    ]  # fmt: skip


def train(name: str, folder: Path) -> None:
    """Train what is not there yet, in a process of its own."""
    subprocess.run([sys.executable, "-m", "models.train", name, str(folder)], cwd=HERE, check=True)


def manifest(subject: Subject) -> str:
    """Return the manifest of one model with all its variants."""
    x, y, x_test, y_test = subject.roles
    scale = f"preprocess = {{ mean = 0, std = {subject.divisor} }}\n" if subject.divisor != 1 else ""
    sets = "".join(
        f'[dataset.{subject.name}-{role}]\nloader = "npz"\npath = "data/{subject.name}.npz"\n'
        f'input = "{inputs}"\nlabel = "{labels}"\n{scale}'
        for role, inputs, labels in (("calibration", x, y), ("test", x_test, y_test))
    )
    model = (
        f'[model.{subject.name}]\nsource = "keras"\npath = "models/{subject.name}.keras"\nmetric = "{subject.metric}"\n'
        f'calibration = "{subject.name}-calibration"\nevaluation = "{subject.name}-test"\ndevices = ["host"]\n'
    )
    variants = "".join(f"[model.{subject.name}.variant.{name}]\n{text}\n" for name, text in VARIANTS.items())
    gate = f"[model.{subject.name}.gate]\nmax_accuracy_loss = {LIMIT}\n"
    return f"schema = 1\n{sets}{model}{variants}{gate}"


def write_workspace(root: Path, chosen: list[Subject]) -> None:
    """Write a workspace of the chosen models."""
    for folder in ("data", "models", "manifests"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "dodo.py").write_text(DODO)
    (root / "manifests/device.toml").write_text(f"schema = 1\n{DEVICE}")
    for subject in chosen:
        for link, target in (
            (root / f"data/{subject.name}.npz", subject.data),
            (root / f"models/{subject.name}.keras", subject.model),
        ):
            link.unlink(missing_ok=True)
            link.symlink_to(target.resolve())
        (root / f"manifests/{subject.name}.toml").write_text(manifest(subject))


def build(root: Path) -> dict[str, Any]:
    """Build the report, gates that fail among the rest, and return it."""
    environment = os.environ | {"PYTHONPATH": str(HERE / "quality_plug_in"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-m", "doit", "report"], cwd=root, env=environment, check=False)
    report: dict[str, Any] = json.loads((root / "build/report/report.json").read_bytes())
    broken = [f"{m['name']}/{v['name']}: {v['error']}" for m in report["models"] for v in m["variants"] if v["error"]]
    if done.returncode not in (0, 1) or broken:
        raise RuntimeError(f"the build ended with {done.returncode}: {broken}")
    return report


class Row(NamedTuple):
    """One artifact of the table."""

    subject: Subject
    name: str
    variant: dict[str, Any]

    @property
    def cells(self) -> tuple[str, ...]:
        accuracy, artifact, device = (self.variant[key] for key in ("accuracy", "artifact", "devices"))
        percent = 100 if self.subject.metric == "top1" else 1
        digits = 2 if percent == 100 else 4
        low, high, loss = (percent * accuracy[key] for key in ("loss_low", "loss_high", "loss"))
        agreement = accuracy["agreement"]
        search = self.variant["search"] or {}
        return (
            self.subject.title,
            self.name,
            f"{loss:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]",
            f"{accuracy['sqnr_db']:.1f}",
            "" if agreement is None or percent == 1 else f"{100 * agreement:.2f}",
            f"{artifact['size_bytes'] / 1000:.1f}",
            "" if not device else f"{device['host']['latency_ratio'] or float('nan'):.2f}",
            accuracy["verdict"],
            _how(search),
        )


def _how(search: dict[str, Any]) -> str:
    if not search:
        return ""
    islands = len(search.get("islands") or ())
    made = f"{len(search['trials'])} trials, {search['chosen']}"
    return f"{made}, {islands} islands" if "islands" in search else made


def worse(root: Path, one: Row, other: Row) -> tuple[float, float] | None:
    """Return the interval of how much worse `one` is than `other` on the same test samples."""
    rows = (other, one) if one.variant["accuracy"]["higher_is_better"] else (one, other)
    scores = [np.load(root / f"build/{row.subject.name}/{row.name}/samples.npz")["score"] for row in rows]
    return statistics.paired_mean(scores[0], scores[1], 0.95)


HEADINGS = ("model", "int8 by", "loss [95 %]", "SQNR, dB", "agreement, %", "kB", "latency", "one point", "how")


def table(rows: list[Row]) -> str:
    """Return the table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def claims(root: Path, rows: list[Row]) -> Iterator[tuple[bool, str]]:
    """Yield what the table must show, and whether it does."""
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model.setdefault(row.subject.name, {})[row.name] = row
    for model, found in by_model.items():
        best = max(RIVALS, key=lambda name: found[name].variant["accuracy"]["sqnr_db"])
        ours, theirs = (found[name].variant["accuracy"]["sqnr_db"] for name in ("auto", best))
        yield ours >= theirs - NEAR_DB, f"{model}: auto {ours:.1f} dB, best rival ({best}) {theirs:.1f} dB"
        for rival in RIVALS:
            interval = worse(root, found["auto"], found[rival])
            text = "cannot be told" if interval is None else f"[{interval[0]:+.4f}, {interval[1]:+.4f}]"
            yield interval is None or interval[0] <= 0, f"{model}: auto's loss beyond {rival}'s {text}"
        if found["auto"].subject.harmed:
            yield from _of_a_harmed_model(model, {name: row.variant for name, row in found.items()})


def _of_a_harmed_model(model: str, found: dict[str, dict[str, Any]]) -> Iterator[tuple[bool, str]]:
    yield found["converter"]["accuracy"]["verdict"] == "fail", f"{model}: the converter's int8 fails the one-point gate"
    mixed = found["mixed"]
    trials = len(mixed["search"]["trials"])
    yield mixed["accuracy"]["verdict"] == "pass" and trials <= TRIALS, f"{model}: mixed meets it in {trials} trials"
    size = {name: variant["artifact"]["size_bytes"] for name, variant in found.items()}
    saving = (size["float32"] - size["mixed"]) / (size["float32"] - size["auto"])
    yield saving >= LEAST_SAVING, f"{model}: mixed keeps {100 * saving:.1f} % of int8's size saving"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache/quantbuild-benchmarks/models")
    parser.add_argument("--only", nargs="*", help="names of models; all without it")
    parser.add_argument("--root", type=Path, help="where the workspace is built; a temporary folder without it")
    parser.add_argument("--write", type=Path, help="the page whose table is replaced")
    options = parser.parse_args()
    chosen = [each for each in subjects(options.models) if not options.only or each.name in options.only]
    for name in ("mobile", "harmed", "angle", "words"):  # what is harmed must be trained before
        if any(each.trained == name and not each.model.exists() for each in chosen):
            train(name, options.models)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        write_workspace(root, chosen)
        models = {model["name"]: model for model in build(root)["models"]}
        rows = [
            Row(subject, variant["name"], variant) for subject in chosen for variant in models[subject.name]["variants"]
        ]
        text = table([row for row in rows if row.name != "float32"])
        print(text)
        shown = list(claims(root, rows))
    for holds, claim in shown:
        print(f"{'yes' if holds else 'NO '}  {claim}")
    if options.write:
        page = options.write.read_text()
        head, tail = page.split(BEGIN)[0], page.split(END)[1]
        options.write.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}")
    leads = [
        max(models[name]["accuracy"]["sqnr_db"] for name in RIVALS) - models["auto"]["accuracy"]["sqnr_db"]
        for models in (
            {row.name: row.variant for row in rows if row.subject.name == subject.name} for subject in chosen
        )
    ]
    print(json.dumps({"ratio": max(leads), "claims": len(shown), "held": sum(holds for holds, _ in shown)}))


if __name__ == "__main__":
    main()
