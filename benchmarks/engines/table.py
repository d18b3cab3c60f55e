"""The comparison as Markdown, and its place in the docs between two markers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.rows import EXECUTIONS, FAULTS, Row
from engines.timing import OURS, TIMINGS, Figures

BEGIN, END = "<!-- rivals: begin -->", "<!-- rivals: end -->"
MISSING = "not installed"

Cells = Mapping[str, Mapping[str, str]]


def row_table(rows: Sequence[Row], names: Sequence[str], cells: Cells) -> list[str]:
    """Return a table with a column for each engine and one for what is wanted; `cells` is row → engine → text."""
    told = [[row.title, *(cells[row.id].get(name, MISSING) for name in names), row.wanted] for row in rows]
    return [_line(["", *names, "wanted"]), _line(["---"] * (len(names) + 2)), *map(_line, told)]


def timing_table(names: Sequence[str], figures: Mapping[str, Mapping[str, Figures]]) -> list[str]:
    """Return the processor seconds: median (range), and quantbuild's by each engine's."""
    lines = [_line(["", *names]), _line(["---"] * (len(names) + 1))]
    for timing in TIMINGS:
        found = figures[timing.id]
        lines.append(_line([timing.title, *(_seconds(found[n]) if n in found else MISSING for n in names)]))
        ratios = [_ratio(found[n].as_json()["quantbuild_by_it"]) if n in found else MISSING for n in names]
        lines.append(_line([f"{timing.title}: {OURS} ÷ this", *ratios]))
    return lines


def _ratio(value: float) -> str:
    return f"{value:.0f}×" if value >= 10 else f"{value:.2g}×"


def _seconds(figures: Figures) -> str:
    told = figures.as_json()
    return f"{told['cpu_s']:.3g} ({told['cpu_s_min']:.3g}–{told['cpu_s_max']:.3g})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def section(
    names: Sequence[str], cells: Cells, figures: Mapping[str, Mapping[str, Figures]], said: Mapping[str, str]
) -> str:
    """Return all that stands between the markers. `said`: versions, machine, and counts of stages and rounds."""
    parts = [
        f"Measured {said['when']} on {said['machine']}: {said['versions']}.",
        "### What is done again",
        "Executions of 20 stages and the report.",
        "\n".join(row_table(EXECUTIONS, names, cells)),
        "### What goes wrong",
        "\n".join(row_table(FAULTS, names, cells)),
        "### What it costs",
        f"Processor seconds of the whole process tree, {said['stages']} stages and the report: median (range) of "
        f"{said['runs']} rounds, the engines in turn; the ratio is the median over the rounds.",
        "\n".join(timing_table(names, figures)),
    ]
    return "\n\n".join(parts)


def written_into(page: str, content: str) -> str:
    """Return a page with what stood between its markers replaced."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"no {BEGIN} … {END} in the page")
    return pattern.sub(lambda _: f"{BEGIN}\n{content}\n{END}", page)


def tables_of(path: Path) -> list[list[list[str]]]:
    """Return the tables between a page's markers, as rows of cells, heads included."""
    text = path.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    blocks = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    return [[_cells(line) for line in block.strip().splitlines() if not line.startswith("| ---")] for block in blocks]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]
