"""Workspaces as data, and the keys of every step that they plan: no step is run, no TensorFlow.

What other steps make has a digest that follows from its path, so that a key tells of its own step alone.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantbuild import closing
from quantbuild.build import Build
from quantbuild.code import CodeDigests
from quantbuild.digests import Digests
from quantbuild.freshness import key_of
from quantbuild.manifest.loading import load
from quantbuild.outcome import Outcome
from quantbuild.record import Output, Result
from quantbuild.step import Step
from quantbuild.watcher import Watcher

Tables = dict[str, Any]

# A float here is a key that takes numbers, an int one that takes whole ones.
TABLES: Tables = {
    "dataset": {
        "data": {
            "loader": "npz",
            "path": "data.npz",
            "input": "x",
            "label": "y",
            "samples": 1000,
            "preprocess": {"mean": 1.0, "std": [2.0, 2.5]},
        },
        "pictures": {
            "loader": "image_folder",
            "path": "pictures",
            "labels": "labels.csv",
            "preprocess": {"resize": 32, "crop": 28, "mean": 127.5, "std": [58.0, 57.0, 57.5]},
            "seed": 3,
        },
        "clips": {"loader": "python", "path": "my_data:clips", "inputs": ["clips/**"]},
    },
    "model": {
        "first": {
            "source": "keras",
            "path": "first.keras",
            "signature": "serving_default",
            "input_shapes": {"image": [1, 28, 28, 3]},
            "labels": "labels.txt",
            "calibration": "pictures",
            "evaluation": "data",
            "metric": "my_metrics:score",
            "devices": ["host"],
            "ship": {"default": "int8", "low_end": "half"},
            "gate": {"max_accuracy_loss": 1.0, "max_size_ratio": 0.25, "max_latency_ratio": {"host": 2.0}},
            "variant": {
                "int8": {"scheme": "int8", "io": "uint8", "ranges": "sample_mean", "gate": {"min_sqnr_db": 20.0}},
                "plain": {"scheme": "int8", "engine": "tflite"},
                "half": {"scheme": "float16"},
            },
        },
        "second": {
            "source": "python",
            "path": "my_models:build",
            "inputs": ["weights/**"],
            "evaluation": "clips",
            "variant": {"small": {"scheme": "dynamic"}},
        },
    },
    "device": {
        "host": {"runner": "host", "threads": 1, "seconds": 2.0, "max_seconds": 10.0},
        "other": {"runner": "host", "threads": 2, "runs": 50},
    },
}

FILES = {
    **{name: name.encode() for name in ("data.npz", "labels.csv", "first.keras", "labels.txt", "pictures/cat/1.png")},
    **{name: name.encode() for name in ("pictures/dog/1.png", "clips/a.bin", "weights/w.bin")},
    **dict.fromkeys(("my_data.py", "my_models.py", "my_metrics.py"), b"def f():\n    pass\n"),
}

_code: list[CodeDigests] = []


def code_digests() -> CodeDigests:
    """Return one that has read the package once for all tests."""
    if not _code:
        _code.append(CodeDigests(Path("/nowhere/code.msgpack")))
    return _code[0]


def write_files(root: Path) -> None:
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def write_manifests(root: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        place = root / "manifests" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")


def written(root: Path, tables: Tables = TABLES, spelling: Spelling | None = None) -> Path:
    """Write a workspace with all its files; return its root."""
    write_files(root)
    write_manifests(root, spelled(tables, spelling or Spelling(None)))
    return root


def built(root: Path) -> Build:
    """Return a build of the workspace in which every planned step has been done."""
    build = Build(load(root, environ={}), Digests(root, root / "digests"), manifests=(), watcher=Watcher())
    build.keys.code = code_digests()
    for step in build.steps.values():
        for path in step.outputs.values():
            build.keys._made[path] = hashlib.sha256(path.encode()).hexdigest()
    for step in build.steps.values():
        preimage = build.keys.preimage(step)
        outputs = {role: Output(path=p, sha256=build.keys._made[p], size_bytes=1) for role, p in step.outputs.items()}
        result = Result(key=key_of(preimage), preimage=preimage, outputs=outputs, values={})
        build.outcomes[step.id] = Outcome(step=step.id, status="executed", result=result, reasons=("never built",))
    return build


def planned(root: Path) -> dict[str, str]:
    """Return step id to key of every step that makes or measures an artifact."""
    return {step: outcome.result.key for step, outcome in built(root).outcomes.items() if outcome.result is not None}


def closing_keys(root: Path) -> dict[str, str]:
    """Return the keys of check, dist and report as they are when all else was done."""
    build = built(root)
    for made in (closing.CHECK_PATH,):
        build.keys._made[made] = hashlib.sha256(made.encode()).hexdigest()
    publish = closing.dist_step(build.workspace, build.steps, build.outcomes, {})
    steps: list[Step] = [
        closing.check_step(build.workspace, build.outcomes),
        # The depfile lists the manifests by name: into which files they are split is part of it, and of nothing else.
        msgspec.structs.replace(publish, parameters={**publish.parameters, "manifests": []}),
        closing.report_step(build.workspace, build.outcomes),
    ]
    return {step.id: key_of(build.keys.preimage(step)) for step in steps}


# Spelling ----------------------------------------------------------------------------------------------------------


class Spelling:
    """How a manifest is written down; without `chance` plainly, else each time as it decides."""

    def __init__(self, chance: random.Random | None, *, shuffled: bool = True) -> None:
        self.chance = chance
        self.shuffled = shuffled

    def one_of(self, *choices: Any) -> Any:
        return choices[0] if self.chance is None else self.chance.choice(choices)

    def order(self, items: list[Any]) -> list[Any]:
        return self.chance.sample(items, len(items)) if self.chance is not None and self.shuffled else items

    def comment(self) -> str:
        return str(self.one_of("", "", "  # a comment", "   #[model.none]"))

    def key(self, name: str) -> str:
        return str(self.one_of(name, f'"{name}"', f"'{name}'"))

    def value(self, value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int):
            return str(self.one_of(str(value), f"{value:_}", hex(value), f"+{value}"))
        if isinstance(value, float):
            return str(self.one_of(*_floats(value)))
        if isinstance(value, str):
            escaped = "".join(f"\\u{ord(letter):04x}" for letter in value)
            return str(self.one_of(f'"{value}"', f"'{value}'", f'"{escaped}"', f'"""{value}"""'))
        if isinstance(value, list):
            start, end = self.one_of(("[", "]"), ("[ # first\n", ",\n]")) if value else ("[", "]")
            return f"{start}{', '.join(map(self.value, value))}{end}"
        inner = ", ".join(f"{self.key(name)} = {self.value(part)}" for name, part in self.order(list(value.items())))
        return f"{{ {inner} }}"


def _floats(value: float) -> list[str]:
    spellings = [repr(value), f"{value}0", f"{value:e}", f"+{value}"]
    return [*spellings, str(int(value)), f"{int(value)}e0"] if value.is_integer() else spellings


def spelled(tables: Tables, spelling: Spelling) -> dict[str, str]:
    """Return file name to text; shuffled tables lie in up to three files, a model's gate and variants apart."""
    texts: dict[str, list[str]] = {}
    names = ["a.toml", "b.toml", "more/c.toml"] if spelling.shuffled else ["a.toml"]
    for path, table in spelling.order(_apart(tables)):
        lines = texts.setdefault(spelling.one_of(*names), [f"schema = 1{spelling.comment()}"])
        lines += _table(path, table, spelling)
    return {name: "\n".join(lines) + spelling.one_of("\n", "\n\n# the end") for name, lines in texts.items()}


def _apart(tables: Tables) -> list[tuple[tuple[str, ...], Tables]]:
    """Return the tables that may stand in files of their own."""
    found = []
    for section, named in tables.items():
        for name, table in named.items():
            found.append(((section, name), {key: value for key, value in table.items() if key != "variant"}))
            for variant, inner in table.get("variant", {}).items():
                found.append(((section, name, "variant", variant), inner))
    return found


def _table(path: tuple[str, ...], table: Tables, spelling: Spelling) -> list[str]:
    """Write one table: its inner ones inside it, with dotted keys, or under headers of their own."""
    own: list[str] = []
    below: list[str] = []
    for key, value in spelling.order(list(table.items())):
        name = spelling.key(key)
        way = spelling.one_of("inside", "dotted", "header") if isinstance(value, dict) and value else "inside"
        if way == "inside":
            own.append(f"{name} = {spelling.value(value)}{spelling.comment()}")
        elif way == "dotted":
            parts = spelling.order(list(value.items()))
            own += [f"{name}.{spelling.key(inner)} = {spelling.value(part)}" for inner, part in parts]
        else:
            below += _table((*path, key), value, Inside(spelling))
    return [f"[{'.'.join(map(spelling.key, path))}]{spelling.comment()}", *own, "", *below]


class Inside(Spelling):
    """The spelling of a table that is written under its own header: what it holds is written inside it."""

    def __init__(self, other: Spelling) -> None:
        super().__init__(other.chance, shuffled=other.shuffled)

    def one_of(self, *choices: Any) -> Any:
        return choices[0] if "header" in choices else super().one_of(*choices)
