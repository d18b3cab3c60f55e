"""Snakemake: wildcards, params from config.yaml, its default rerun triggers."""

from __future__ import annotations

from pathlib import Path

from engines.engine import BENCH, REPORT, SET, STAGE, Engine

SNAKEFILE = """configfile: "config.yaml"

rule all:
    input: "report.txt", expand("out/{{name}}.tflite", name=config["parameters"])

rule report:
    input: expand("out/{{name}}.tflite", name=config["parameters"])
    output: "report.txt"
    shell: "{report} {{output}} {{input}}"

rule stage:
    input: "{model_input}", "{set}"
    output: "out/{{name}}.tflite"
    params: parameter=lambda wildcards: config["parameters"][wildcards.name]
    shell: "{stage} {model} {set} {{output}} {{wildcards.name}} {{params.parameter}}"

rule benchmarks:
    input: {benchmarks}

rule bench:
    input: "out/{{name}}.tflite"
    output: "out/{{name}}.bench"
    resources: device=1
    shell: "{bench} {{input}} {{output}}"
"""


class Snakemake(Engine):
    """Snakemake with its defaults, and a resource for the device."""

    name = "Snakemake"
    program_name = "snakemake"
    state = (".snakemake",)

    def write(self) -> None:
        """Write Snakefile and config.yaml."""
        text = SNAKEFILE.format(
            benchmarks=[f"out/{name}.bench" for name in self.benchmarked],
            model=self.model.relative_to(self.root),
            model_input=self.model_input,
            set=SET,
            stage=STAGE,
            report=REPORT,
            bench=BENCH,
        )
        (self.root / "Snakefile").write_text(text)
        lines = [f"  {name}: {value}\n" for name, value in self.parameters.items()]
        self.manifest.write_text("parameters:\n" + "".join(lines))

    def command(self, *, jobs: int = 1, target: str | None = None) -> list[str]:
        """Return the command."""
        options = ["--keep-going", "--cores", str(jobs), "--resources", "device=1", "--nocolor"]
        return [*self.tool.program, target or "all", *options]

    @property
    def manifest(self) -> Path:
        """The configuration."""
        return self.root / "config.yaml"
