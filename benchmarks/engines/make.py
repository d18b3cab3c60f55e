"""GNU make: a file of parameters for each variant, since make notices changed files and no changed rule."""

from __future__ import annotations

from pathlib import Path

from engines.engine import BENCH, REPORT, SET, STAGE, Engine

MAKEFILE = """.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules
variants := {variants}
include $(variants:%=parameters/%.mk)

report.txt: $(variants:%=out/%.tflite)
\t{report} $@ $^

out/%.tflite: {model_input} {set} parameters/%.mk
\t{stage} {model} {set} $@ $* $(parameter_$*)

.PHONY: benchmarks
benchmarks: {benchmarks}
out/%.bench: out/%.tflite
\t{bench} $< $@
"""


class Make(Engine):
    """GNU make with .DELETE_ON_ERROR."""

    name = "make"
    program_name = "make"

    def write(self) -> None:
        """Write the Makefile, and the parameter files that are new or changed."""
        (self.root / "parameters").mkdir(exist_ok=True)
        for name, value in self.parameters.items():
            path, text = self.root / f"parameters/{name}.mk", f"parameter_{name} := {value}\n"
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        text = MAKEFILE.format(
            variants=" ".join(self.parameters),
            benchmarks=" ".join(f"out/{name}.bench" for name in self.benchmarked),
            model=self.model.relative_to(self.root),
            model_input=self.model_input,
            set=SET,
            stage=STAGE,
            report=REPORT,
            bench=BENCH,
        )
        (self.root / "Makefile").write_text(text)

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command."""
        return [*self.tool.program, "-k", f"-j{jobs}", target or "report.txt"]

    @property
    def manifest(self) -> Path:
        """The first variant's own file."""
        return self.root / f"parameters/{next(iter(self.parameters))}.mk"
