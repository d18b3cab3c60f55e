"""docs/engine.md holds what benchmarks/rivals.py wrote: the rows that it and the tests know, all engines measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import rivals
from engines.rows import EXECUTIONS, FAULTS, ROWS, Row
from engines.table import BEGIN, END, MISSING, row_table, tables_of, written_into
from engines.timing import OURS, TIMINGS

PAGE = Path(__file__).parents[2] / "docs" / "engine.md"


@pytest.mark.parametrize(("place", "rows"), [(0, EXECUTIONS), (1, FAULTS)])
def test_the_page_has_exactly_the_rows_that_are_measured(place: int, rows: tuple[Row, ...]) -> None:
    head, *found = tables_of(PAGE)[place]
    assert head == ["", *rivals.NAMES, "wanted"]
    assert [(line[0], line[-1]) for line in found] == [(row.title, row.wanted) for row in rows]


def test_the_page_was_written_with_every_engine_there() -> None:
    assert MISSING not in [cell for table in tables_of(PAGE) for line in table for cell in line]


def test_quantbuilds_column_is_as_wanted() -> None:
    for table in tables_of(PAGE)[:2]:
        head, *found = table
        assert [line[head.index(OURS)] for line in found] == [line[-1] for line in found]


def test_the_page_has_every_timing_of_every_engine() -> None:
    head, *found = tables_of(PAGE)[2]
    assert head == ["", *rivals.NAMES]
    assert [line[0] for line in found[::2]] == [timing.title for timing in TIMINGS]


def test_ids_and_titles_name_one_row_each() -> None:
    assert len({row.id for row in ROWS}) == len({row.title for row in ROWS}) == len(ROWS)


def test_writing_replaces_what_stood_between_the_markers_and_nothing_else() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert written_into(page, "new | with \\1") == f"before\n{BEGIN}\nnew | with \\1\n{END}\nafter\n"
    with pytest.raises(ValueError, match="no <!-- rivals: begin -->"):
        written_into("a page without markers", "new")


def test_an_engine_that_is_not_there_is_said_to_be_not_installed() -> None:
    row = ROWS[0]
    lines = row_table([row], ["quantbuild", "DVC"], {row.id: {"quantbuild": "0"}})
    assert lines[-1] == f"| {row.title} | 0 | {MISSING} | {row.wanted} |"
