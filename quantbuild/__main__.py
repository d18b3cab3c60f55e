"""`python -m quantbuild`: the command line, where the environment's scripts are not on the path."""

from __future__ import annotations

from quantbuild.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
