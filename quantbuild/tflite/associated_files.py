"""The files that TensorFlow Lite metadata packs behind a model: a zip archive after the flatbuffer.

Source: TensorFlow Lite metadata, "Pack metadata and associated files into the model".
"""

from __future__ import annotations

import io
import zipfile


def carried(packed: bytes, model: bytes) -> bytes:
    """Return `model` with the associated files of `packed` behind it; `model` itself where there are none."""
    source = io.BytesIO(packed)
    if not zipfile.is_zipfile(source):
        return model
    target = io.BytesIO(model)
    with zipfile.ZipFile(source) as files, zipfile.ZipFile(target, "a") as copies:
        for entry in files.infolist():
            copies.writestr(entry, files.read(entry))
    return target.getvalue()
