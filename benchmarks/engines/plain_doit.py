"""doit by itself: file_dep, targets, and the parameter as a value that uptodate compares (config_changed)."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from engines.engine import BENCH, REPORT, SET, STAGE, Engine, Tool

DODO = """from doit.tools import config_changed

DOIT_CONFIG = {{"backend": "sqlite3", "dep_file": ".doit.db", "default_tasks": ["report"]}}
PARAMETERS = {{
{parameters}
}}
BENCHMARKED = {benchmarked}


def task_stage():
    for name, parameter in PARAMETERS.items():
        yield {{
            "name": name,
            "file_dep": ["{model_input}", "{set}"],
            "targets": [f"out/{{name}}.tflite"],
            "uptodate": [config_changed({{"parameter": parameter}})],
            "actions": [f"exec {stage} {model} {set} out/{{name}}.tflite {{name}} {{parameter}}"],
        }}


def task_report():
    artifacts = [f"out/{{name}}.tflite" for name in PARAMETERS]
    return {{
        "file_dep": artifacts,
        "targets": ["report.txt"],
        "actions": ["{report} report.txt " + " ".join(artifacts)],
    }}


def task_benchmarks():
    for name in BENCHMARKED:
        yield {{
            "name": name,
            "file_dep": [f"out/{{name}}.tflite"],
            "targets": [f"out/{{name}}.bench"],
            "actions": [f"{bench} out/{{name}}.tflite out/{{name}}.bench"],
        }}
"""


class PlainDoit(Engine):
    """doit with the sqlite3 backend, of the Python that runs this."""

    name = "doit"
    program_name = "doit"
    state = (".doit.db",)
    worker_fault = "worker"

    @classmethod
    def find(cls, program: str | None = None) -> Tool | None:
        """Return the doit of this Python, or the one given."""
        if program is not None:
            return super().find(program)
        return Tool((sys.executable, "-m", "doit"), importlib.metadata.version("doit"))

    def write(self) -> None:
        """Write dodo.py."""
        text = DODO.format(
            parameters="\n".join(f'    "{name}": {value},' for name, value in self.parameters.items()),
            benchmarked=list(self.benchmarked),
            model=self.model.relative_to(self.root),
            model_input=self.model_input,
            set=SET,
            stage=STAGE,
            report=REPORT,
            bench=BENCH,
        )
        self.manifest.write_text(text)

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command."""
        several = ["-n", str(jobs)] if jobs > 1 else []
        return [*self.tool.program, "run", "--continue", *several, target or "report"]

    @property
    def manifest(self) -> Path:
        """The dodo.py."""
        return self.root / "dodo.py"
