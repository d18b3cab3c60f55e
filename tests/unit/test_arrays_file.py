"""Files of arrays: the same bytes for the same arrays, and a plain word for a file that is none."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantbuild.errors import StepError
from quantbuild.tflite import arrays_file, histograms_file, statistics_file


@dataclass(frozen=True, kw_only=True)
class Some:
    names: tuple[str, ...]
    values: Any


@pytest.mark.parametrize("names", [("a", "long, and\nof two lines"), ()])
def test_what_was_written_is_read_and_no_time_of_writing_is_in_it(tmp_path: Path, names: tuple[str, ...]) -> None:
    path, values = tmp_path / "some.npz", np.arange(6, dtype=np.int16).reshape(2, 3)
    arrays_file.write(path, Some(names=names, values=values))
    found = arrays_file.read(path, Some, "values")
    assert found.names == names
    assert found.values.dtype == np.int16
    assert np.array_equal(found.values, values)
    with zipfile.ZipFile(path) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize(
    ("kind", "what"), [(statistics_file, "calibration statistics"), (histograms_file, "histograms")]
)
def test_a_damaged_file_and_one_of_another_kind_are_refused(tmp_path: Path, kind: Any, what: str) -> None:
    path = tmp_path / "made.npz"
    path.write_bytes(b"no zip")
    with pytest.raises(StepError, match=rf"^made\.npz: no {what} \(.*delete it and run again"):
        kind.read(path)
    np.savez(path, tensor_names=np.array(["a"]))
    with pytest.raises(StepError, match=rf"^made\.npz: no {what} \(.*tensor_indices.*delete it and run again"):
        kind.read(path)
