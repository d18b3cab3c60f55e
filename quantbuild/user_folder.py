"""The folder below which all workspaces of a user share what they keep: the local cache, locks of devices."""

from __future__ import annotations

import os
from pathlib import Path


def user_folder() -> Path:
    """Return quantbuild's part of the user's cache folder, made or not.

    As the XDG Base Directory Specification says, a relative XDG_CACHE_HOME counts for nothing.

    Raises:
        RuntimeError: there is no home folder to be found.
    """
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (named if named.is_absolute() else Path.home() / ".cache") / "quantbuild"
