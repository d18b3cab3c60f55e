"""Ninja: a build file written out, as its generators do."""

from __future__ import annotations

from pathlib import Path

from engines.engine import BENCH, REPORT, SET, STAGE, Engine

HEAD = f"""rule stage
  command = {STAGE} $model {SET} $out $name $parameter
rule report
  command = {REPORT} $out $in
pool device
  depth = 1
rule bench
  command = {BENCH} $in $out
  pool = device
"""


class Ninja(Engine):
    """Ninja, with a pool of depth 1 for the device."""

    name = "ninja"
    program_name = "ninja"
    state = (".ninja_log", ".ninja_deps")

    def write(self) -> None:
        """Write build.ninja."""
        lines = [HEAD]
        for name, value in self.parameters.items():
            lines.append(f"build out/{name}.tflite: stage {self.model_input} {SET}")
            lines.append(f"  name = {name}\n  parameter = {value}\n  model = {self.model.relative_to(self.root)}")
        lines.append(f"build report.txt: report {' '.join(f'out/{name}.tflite' for name in self.parameters)}")
        lines += [f"build out/{name}.bench: bench out/{name}.tflite" for name in self.benchmarked]
        lines.append(f"build benchmarks: phony {' '.join(f'out/{name}.bench' for name in self.benchmarked)}")
        lines.append("default report.txt\n")
        self.manifest.write_text("\n".join(lines))

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command."""
        return [*self.tool.program, "-k", "0", "-j", str(jobs), target or "report.txt"]

    @property
    def manifest(self) -> Path:
        """The build file."""
        return self.root / "build.ninja"
