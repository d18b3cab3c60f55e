"""quantbuild: a variant for each stage, of a scheme that runs the script that the others run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from pathlib import Path

from engines.engine import SCRIPTS, SET, Engine, Tool

HEAD = """schema = 1
[dataset.data]
loader = "npz"
path = "{set}"
input = "x"
[model.m]
source = "{source}"
path = "{model}"
calibration = "data"
"""
DEVICE = """[device.phone]
runner = "stopwatch"
"""
DODO = "from quantbuild.shell import tasks\nglobals().update(tasks())\n"


class Quantbuild(Engine):
    """quantbuild, of the Python that runs this, with three plug-ins: a scheme, a source, a runner."""

    name = "quantbuild"
    program_name = "quantbuild"
    state = ("build/.state",)
    artifacts = "build/m/{}/model.tflite"
    worker_fault = "worker"

    @classmethod
    def find(cls, program: str | None = None) -> Tool | None:
        """Return the quantbuild of this Python."""
        return Tool((sys.executable, "-m", "doit"), importlib.metadata.version("quantbuild"))

    def write(self) -> None:
        """Write dodo.py and the manifest."""
        (self.root / "manifests").mkdir(exist_ok=True)
        (self.root / "dodo.py").write_text(DODO)
        source = "folder" if self.model_is_folder else "tflite"
        variants = [
            f'[model.m.variant.{name}]\nscheme = "stage"\nparameter = {value}\n'
            for name, value in self.parameters.items()
        ]
        text = HEAD.format(set=SET, source=source, model=self.model_input) + "".join(variants)
        self.manifest.write_text(text + (DEVICE if self.benchmarked else ""))

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command; doit's own -n 1 makes one step at a time, without it as many as there are processors."""
        names = [f"benchmark:m/{name}@phone" for name in self.benchmarked] if target == "benchmarks" else [target]
        serial = ["-n", "1"] if jobs == 1 else []
        return [*self.tool.program, "run", *serial, *(name or "report" for name in names)]

    def stage_target(self, name: str) -> str:
        """Return the step's name."""
        return f"quantize:m/{name}"

    @property
    def environment(self) -> dict[str, str]:
        """The plug-ins on the path, and a cache of its own."""
        plug_in = {"PYTHONPATH": str(SCRIPTS / "plug_in"), "QUANTBUILD_CACHE_DIR": str(self.cache)}
        return super().environment | plug_in

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.root / "manifests/pipeline.toml"

    def report_is_right(self) -> bool:
        """Whether report.json names the artifacts as they should be, and dist/ holds them."""
        path = self.root / "build/report/report.json"
        if not path.is_file():
            return False
        (model,) = json.loads(path.read_bytes())["models"]
        told = {variant["name"]: (variant["artifact"] or {}).get("sha256") for variant in model["variants"]}
        return all(
            told.get(name) == hashlib.sha256(self.expected(name)).hexdigest() and self._published(name)
            for name in self.parameters
        )

    def _published(self, name: str) -> bool:
        path = self.root / f"dist/m/{name}.tflite"
        return path.is_file() and path.read_bytes() == self.expected(name)

    def last_run(self) -> dict[str, set[str]]:
        """Return the steps of the last run by status."""
        found: dict[str, set[str]] = {}
        for step in json.loads((self.root / "build/last_run.json").read_bytes())["steps"]:
            found.setdefault(step["status"], set()).add(step["id"])
        return found
