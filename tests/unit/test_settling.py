"""What becomes of a step whose device does not answer when its key is made."""

from __future__ import annotations

import copy
from pathlib import Path

import keys_of
import pytest

from quantbuild.build import Build
from quantbuild.errors import UnreachableError
from quantbuild.runners import host


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """A build in which all is done but for what rests on `host`, which is not required and has gone away."""
    tables = copy.deepcopy(keys_of.TABLES)
    tables["device"]["host"]["required"] = False
    search = {"max_accuracy_loss": 1.0, "objective": "latency", "device": "host"}
    tables["model"]["first"]["variant"]["fast"] = {"scheme": "mixed", "search": search}
    build = keys_of.built(keys_of.written(tmp_path / "workspace", tables))

    def gone(options: host.Options) -> dict[str, str]:
        raise UnreachableError("host: no answer; plug it in")

    monkeypatch.setattr(host, "fingerprint", gone)
    return build


def test_a_benchmark_on_a_device_that_is_not_required_is_not_measured(build: Build) -> None:
    assert build.settle(build.steps["benchmark:first/int8@host"])
    assert build.outcomes["benchmark:first/int8@host"].status == "not_measured"


def test_a_variant_that_is_chosen_on_a_device_fails_without_it(build: Build) -> None:
    assert build.settle(build.steps["quantize:first/fast"])
    outcome = build.outcomes["quantize:first/fast"]
    assert (outcome.status, outcome.message) == ("failed", "host: no answer; plug it in")
