"""Six build engines on one pipeline: what each does again, what it gets wrong, and what it costs, in one run.

The pipeline is a model and a set of samples, a stage for each variant, and a report over all. Every engine runs the
same script for a stage. An engine is looked for on PATH, or where --program says; one that is not there is told as
"not installed", and nothing is ever installed. docs/engine.md says how each is set up.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from engines.dvc import Dvc
from engines.engine import Engine, Tool
from engines.make import Make
from engines.ninja import Ninja
from engines.plain_doit import PlainDoit
from engines.quantbuild import Quantbuild
from engines.rows import ROWS, WRONG, Row
from engines.snakemake import Snakemake
from engines.table import MISSING, row_table, section, timing_table, written_into
from engines.timing import OURS, Figures, measure

ENGINES: tuple[type[Engine], ...] = (Quantbuild, PlainDoit, Make, Ninja, Snakemake, Dvc)
NAMES = tuple(engine.name for engine in ENGINES)
PAGE = Path(__file__).parents[1] / "docs" / "engine.md"

Found = dict[str, tuple[type[Engine], Tool]]


def main() -> int:
    options = _options()
    found = _find(dict(options.program), options.engine)
    for name in NAMES:
        print(f"{name}: {found[name][1].version if name in found else MISSING}")
    if options.write and (len(found) < len(NAMES) or options.row):
        sys.exit("--write: the page is written from a run of all rows with all six engines; give --program NAME=PATH")
    rows = [row for row in ROWS if not options.row or row.id in options.row]
    with tempfile.TemporaryDirectory() as folder:
        for name, (engine, tool) in found.items():
            _check(engine(Path(folder, "check", name, "w"), tool))
        cells = {row.id: _cells(row, found, Path(folder)) for row in rows}
        figures = measure(found, Path(folder), stages=options.stages, runs=options.runs)
    print("\n".join(["", *row_table(rows, NAMES, cells), "", *timing_table(NAMES, figures)]))
    if options.write:
        said = _said(found, options.stages, options.runs)
        PAGE.write_text(written_into(PAGE.read_text(), section(NAMES, cells, figures, said)))
        print(f"\nwrote {PAGE.name}")
    unwanted = [row.id for row in rows if cells[row.id][OURS] != row.wanted]
    if unwanted:
        print(f"not as wanted: {', '.join(unwanted)}")
    print(json.dumps(_result(found, cells, figures, unwanted, options)))
    return 1 if unwanted else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stages", type=int, default=100, help="stages of the pipeline that is timed")
    parser.add_argument("--runs", type=int, default=5, help="rounds of each timing")
    parser.add_argument("--row", action="append", choices=[row.id for row in ROWS], help="this row alone; repeatable")
    parser.add_argument("--engine", action="append", choices=NAMES, help="this engine beside quantbuild; repeatable")
    parser.add_argument(
        "--program", action="append", default=[], type=_program, metavar="NAME=PATH", help="where an engine is"
    )
    parser.add_argument("--write", action="store_true", help=f"write the tables into {PAGE.name}")
    return parser.parse_args()


def _program(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if name not in NAMES or name == OURS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(NAMES[1:])}")
    if shutil.which(path) is None:
        raise argparse.ArgumentTypeError(f"{path!r} is no program")
    return name, path


def _find(programs: dict[str, str], wanted: list[str] | None) -> Found:
    found = {}
    for engine in ENGINES:
        if wanted is None or engine.name in (OURS, *wanted):
            tool = engine.find(programs.get(engine.name))
            if tool is not None:
                found[engine.name] = (engine, tool)
    return found


def _check(engine: Engine) -> None:
    """Make sure that an engine builds the pipeline, and then has nothing to do: no cell may come of a broken set-up."""
    engine.prepare(2, benchmarks=2)
    for executed in (3, 0):
        count, run = engine.executions_of_a_build()
        if count != executed or run.code != 0 or not engine.is_right():
            raise RuntimeError(f"{engine.name}: {count} executed, exit code {run.code}:\n{run.output[-3000:]}")


def _cells(row: Row, found: Found, folder: Path) -> dict[str, str]:
    """Measure one row with each engine; a process says how far it is on standard error."""
    cells = {}
    for name, (engine, tool) in found.items():
        root = folder / row.id / name / "w"
        cells[name] = row.measure(engine(root, tool))
        shutil.rmtree(root.parent)
        print(f"{row.title}: {name}: {cells[name]}", file=sys.stderr)
    return cells


def _said(found: Found, stages: int, runs: int) -> dict[str, str]:
    versions = ", ".join(f"{name} {tool.version}" for name, (_, tool) in found.items())
    machine = f"{_cpu_model()}, {len(os.sched_getaffinity(0))} processors, {platform.system()} {platform.release()}"
    return {
        "when": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine,
        "versions": f"{versions}, CPython {platform.python_version()}",
        "stages": str(stages),
        "runs": str(runs),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _result(
    found: Found,
    cells: dict[str, dict[str, str]],
    figures: dict[str, dict[str, Figures]],
    unwanted: list[str],
    options: argparse.Namespace,
) -> dict[str, object]:
    timings = {timing: {name: f.as_json() for name, f in found.items()} for timing, found in figures.items()}
    return {
        "ratio": timings["null"].get("doit", {}).get("quantbuild_by_it"),
        "ratio_of": "processor time with nothing to do, quantbuild by doit",
        "timings": timings,
        "stages": options.stages,
        "runs": options.runs,
        "rows": cells,
        "not_as_wanted": unwanted,
        "wrong": {name: sum(row[name].endswith(WRONG) for row in cells.values()) for name in found},
        "versions": {name: found[name][1].version if name in found else None for name in NAMES},
    }


if __name__ == "__main__":
    sys.exit(main())
