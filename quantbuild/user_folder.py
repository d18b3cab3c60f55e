"""The folder below which all workspaces of a user share what they keep: the local cache, locks of devices."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder() -> Path:
    """Return quantbuild's part of the user's cache folder (XDG Base Directory Specification), made or not.

    Raises:
        RuntimeError: there is no home folder to be found.
    """
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "quantbuild"
