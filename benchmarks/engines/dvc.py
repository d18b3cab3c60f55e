"""DVC: a stage for each variant by foreach, parameters in params.yaml, the run cache on, the cache shared by clones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from engines.engine import BENCH, REPORT, SET, STAGE, Engine

PIPELINE = """stages:
  stage:
    foreach: ${{parameters}}
    do:
      cmd: {stage} {model} {set} out/${{key}}.tflite ${{key}} ${{item}}
      deps: [{model_input}, {set}]
      outs: ["out/${{key}}.tflite"]
  report:
    cmd: {report} report.txt {artifacts}
    deps: [{listed}]
    outs: [report.txt]
"""

BENCHMARKS = """  bench:
    foreach: [{names}]
    do:
      cmd: {bench} out/${{item}}.tflite out/${{item}}.bench
      deps: ["out/${{item}}.tflite"]
      outs: ["out/${{item}}.bench"]
"""


class Dvc(Engine):
    """DVC without Git, which it needs for neither stages nor cache."""

    name = "DVC"
    program_name = "dvc"
    state = (".dvc/tmp",)
    committed = ("dvc.lock",)

    def write(self) -> None:
        """Write dvc.yaml and params.yaml; make the repository first."""
        if not (self.root / ".dvc").exists():
            for command in (["init", "--no-scm", "-q"], ["cache", "dir", "-q", str(self.cache)]):
                subprocess.run([*self.tool.program, *command], cwd=self.root, env=self.environment, check=True)
        artifacts = [f"out/{name}.tflite" for name in self.parameters]
        text = PIPELINE.format(
            artifacts=" ".join(artifacts),
            listed=", ".join(artifacts),
            model=self.model.relative_to(self.root),
            model_input=self.model_input,
            set=SET,
            stage=STAGE,
            report=REPORT,
        )
        if self.benchmarked:
            text += BENCHMARKS.format(names=", ".join(self.benchmarked), bench=BENCH)
        (self.root / "dvc.yaml").write_text(text)
        lines = [f"  {name}: {value}\n" for name, value in self.parameters.items()]
        self.manifest.write_text("parameters:\n" + "".join(lines))

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command; DVC runs one stage at a time, whatever `jobs` says."""
        targets = [f"bench@{name}" for name in self.benchmarked] if target == "benchmarks" else [target or "report"]
        return [*self.tool.program, "repro", "--keep-going", *targets]

    def stage_target(self, name: str) -> str:
        """Return the stage's name."""
        return f"stage@{name}"

    @property
    def environment(self) -> dict[str, str]:
        """No analytics, no look for updates, no state outside the folder."""
        site = {"DVC_SITE_CACHE_DIR": str(self.control / "home" / "dvc-site")}
        return super().environment | {"DVC_NO_ANALYTICS": "1", "CI": "true"} | site

    @property
    def manifest(self) -> Path:
        """The parameters."""
        return self.root / "params.yaml"

    def lose_state(self) -> None:
        """The state database lies outside the folder."""
        super().lose_state()
        shutil.rmtree(self.control / "home" / "dvc-site", ignore_errors=True)
