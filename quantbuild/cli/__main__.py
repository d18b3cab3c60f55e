"""`python -m quantbuild.cli`."""

from __future__ import annotations

import sys

from quantbuild.cli import main

sys.exit(main())
