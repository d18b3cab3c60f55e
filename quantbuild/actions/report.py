"""Action: every result there is → report.json and the page, index.html."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from quantbuild.step import Job

WORKER = "light"
TOOLS = ("jinja2",)


def run(job: Job) -> dict[str, Any]:
    """Write ``report`` (JSON, see `quantbuild.report.schema`) and ``page`` (HTML) from the job's inputs.

    Parameters: ``models``, ``steps`` and ``tools``, as `quantbuild.closing.report_step` composes them. Inputs
    by role, each absent where its step was not done: ``MODEL/VARIANT:description``, ``MODEL/VARIANT:evaluation``,
    ``MODEL/VARIANT:sensitivity``, ``MODEL/VARIANT@DEVICE:result``, ``check``. Returns each variant's verdict.
    """
    from quantbuild.report.document import build
    from quantbuild.report.page import render
    from quantbuild.report.schema import validate
    from quantbuild.report.view import page

    results = {
        role: msgspec.json.decode(Path(path).read_bytes())
        for role, path in job.inputs.items()
        # The per-sample arrays of an evaluation may come along; the page shows only what check made of them.
        if not role.endswith(":samples")
    }
    document = build(job.parameters, results)
    validate(document)
    text = msgspec.json.format(msgspec.json.encode(document), indent=2)
    Path(job.outputs["report"]).write_bytes(text + b"\n")
    Path(job.outputs["page"]).write_text(render(page(document)), encoding="utf-8")
    return {
        "verdicts": {
            f"{model['name']}/{variant['name']}": variant["verdict"]
            for model in document["models"]
            for variant in model["variants"]
        }
    }
