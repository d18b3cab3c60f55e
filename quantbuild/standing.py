"""What stood at the end of the last build, so that a build with nothing to do need not plan.

A snapshot keeps, by step, the files that its freshness rests on (record, outputs, the user's inputs) with their
digests, and once for all what else enters a key: manifests, quantbuild's code, tool versions, CPU, devices. Where all
of that is unchanged a step is up to date, since freshness is a pure function of nothing else. Anything that differs, or
that cannot be told, sends the build through the manifests and the keys: a snapshot never makes a step run or a key.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from quantbuild.code import package_stamp
from quantbuild.digests import Digests, sha256_of_bytes
from quantbuild.tools import cpu, version

SNAPSHOT_SCHEMA = 1
MANIFEST_FOLDER = "manifests"


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One doit task: its name, the tasks it needs, its line in `doit list`."""

    name: str
    needs: tuple[str, ...]
    doc: str


class Device(msgspec.Struct, frozen=True, array_like=True):
    """One device whose fingerprint enters a key, as its runner's options in JSON."""

    runner: str
    options: msgspec.Raw
    fingerprint: dict[str, str]


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot file holds."""

    schema: int
    facts: dict[str, str]
    tools: dict[str, str]
    devices: tuple[Device, ...]
    manifests: dict[str, str]
    tasks: tuple[Task, ...]
    steps: dict[str, tuple[str, ...]]
    digests: dict[str, str]
    failed_gates: tuple[dict[str, Any], ...]


_decoder = msgspec.msgpack.Decoder(Snapshot)


class Standing:
    """A snapshot whose common part holds: manifests, code, tools, CPU and devices are as they were."""

    def __init__(self, snapshot: Snapshot, digests: Digests) -> None:
        self.snapshot = snapshot
        self._digests = digests
        self._same: dict[str, bool] = {}

    def stands(self, step: str) -> bool:
        """Whether every file that `step` rests on is as it was when the step was found up to date."""
        paths = self.snapshot.steps.get(step)
        return paths is not None and all(map(self._is_same, paths))

    def _is_same(self, path: str) -> bool:
        same = self._same.get(path)
        if same is None:
            try:
                digest = self._digests.digest(path)
            except OSError:  # unreadable: the build proper says so, with the step's name
                digest = None
            same = digest is not None and digest.sha256 == self.snapshot.digests[path]
            self._same[path] = same
        return same


def read_standing(path: Path, digests: Digests) -> Standing | None:
    """Return the snapshot at `path` if its common part still holds, else None."""
    try:
        snapshot = _decoder.decode(path.read_bytes())
    except (FileNotFoundError, msgspec.DecodeError):
        return None
    holds = (
        snapshot.schema == SNAPSHOT_SCHEMA
        and snapshot.facts == facts()
        and manifest_digests(digests) == snapshot.manifests
        and all(version(name) == was for name, was in snapshot.tools.items())
        and all(fingerprint(device.runner, device.options) == device.fingerprint for device in snapshot.devices)
    )
    return Standing(snapshot, digests) if holds else None


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write `snapshot` aside and rename it into place."""
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    aside.write_bytes(msgspec.msgpack.encode(snapshot))
    aside.replace(path)


def facts() -> dict[str, str]:
    """Return what enters every key besides files: code and CPU; and the settings that come from the environment."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("QUANTBUILD_CACHE_")}
    return {"code": package_stamp(), **cpu(), "settings": sha256_of_bytes(repr(sorted(settings.items())).encode())}


def manifest_digests(digests: Digests) -> dict[str, str]:
    """Return path to sha256 of every manifest; a new or vanished file is a difference."""
    found = {}
    for path in digests.files_below(MANIFEST_FOLDER):
        if path.endswith(".toml"):
            digest = digests.digest(path)
            found[path] = "" if digest is None else digest.sha256
    return found


def fingerprint(runner: str, options: msgspec.Raw) -> Mapping[str, str]:
    """Return what identifies the device that `runner` reaches with `options` (JSON)."""
    import importlib

    module = importlib.import_module(f"quantbuild.runners.{runner}")
    found: Mapping[str, str] = module.fingerprint(msgspec.json.decode(options, type=module.Options))
    return found


def known_digests(paths: Iterable[str], digests: Digests) -> dict[str, str] | None:
    """Return path to sha256 for `paths`, None if one of them is not there."""
    found = {}
    for path in paths:
        digest = digests.digest(path)
        if digest is None:
            return None
        found[path] = digest.sha256
    return found
