"""Fixtures of the action tests. One process, one import of TensorFlow, one build of every tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_models
from selective_models import Calibrated


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of `tiny_models.build`."""
    folder = tmp_path_factory.mktemp("models")
    tiny_models.build(folder)
    return folder


def _calibrated(name: str) -> Callable[[pytest.TempPathFactory], Calibrated]:
    @pytest.fixture(scope="session", name=name)
    def made(tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
        return Calibrated(name, tmp_path_factory.mktemp(name))

    return made


# Models for selective precision and for what takes noise apart, each with its statistics.
branches, loud, awkward, loop = map(_calibrated, ("branches", "loud", "awkward", "loop"))
