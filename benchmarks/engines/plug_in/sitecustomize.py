"""On PYTHONPATH, makes the plug-ins beside it quantbuild's own, in the build's process and in its workers alike.

In a worker it also notes in the log each time the report is made, as ``report.sh`` does for the other engines. It
imports little, since every start of Python pays for it.
"""

import os
import sys

import quantbuild.runners
import quantbuild.schemes
import quantbuild.sources

for package in (quantbuild.runners, quantbuild.schemes, quantbuild.sources):
    package.__path__.append(f"{os.path.dirname(__file__)}/{package.__name__.rpartition('.')[2]}")  # noqa: PTH120

if "quantbuild.worker_main" in sys.orig_argv:
    from quantbuild.actions import report

    render = report.run

    def noted(job):
        with open(f"{os.environ['STAGE_CONTROL']}/log", "a") as log:  # noqa: PTH123
            log.write("report\n")
        return render(job)

    report.run = noted
