"""Writing a file aside and renaming it into place: at its path there is the old content or the new, never a part."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace(path: Path, content: bytes | Path) -> None:
    """Put `content` (bytes, or a file to copy) at `path`; its folder is there already.

    Raises:
        OSError: it could not be written; `path` is as it was, and nothing is left beside it.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        if isinstance(content, bytes):
            aside.write_bytes(content)
        else:
            shutil.copyfile(content, aside)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        # Of a copy that finds no room, shutil names the source.
        named = content if isinstance(content, Path) and isinstance(error, FileNotFoundError) else path
        raise OSError(error.errno, error.strerror, str(named)) from error
