"""On PYTHONPATH, makes the scheme beside it quantbuild's own, in the build's process and in its workers alike."""

import os

import quantbuild.schemes

quantbuild.schemes.__path__.append(f"{os.path.dirname(__file__)}/schemes")  # noqa: PTH120
