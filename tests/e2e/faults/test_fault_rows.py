"""Every row of the comparison in docs/engine.md: quantbuild gives what is wanted, measured as its rivals are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from engines.quantbuild import Quantbuild
from engines.rows import ROWS, Row


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_every_row_is_as_wanted(row: Row, tmp_path: Path) -> None:
    tool = Quantbuild.find()
    assert tool is not None
    assert row.measure(Quantbuild(tmp_path / "workspace", tool)) == row.wanted, row.title
