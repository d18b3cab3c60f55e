"""Fixtures of the action tests. One process, one import of TensorFlow, one build of every tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every model of `tiny_models.build`."""
    folder = tmp_path_factory.mktemp("models")
    tiny_models.build(folder)
    return folder
