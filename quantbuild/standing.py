"""What stood at the end of the last build, so that a build with nothing to do need not plan.

A snapshot keeps, by step, the files that its freshness rests on (record, outputs, every input) with their
digests, and once for all what else enters a key: manifests, quantbuild's code, tool versions, CPU, devices. Where all
of that is unchanged a step is up to date, since freshness is a pure function of nothing else. Anything that differs, or
that cannot be told, sends the build through the manifests and the keys: a snapshot never makes a step run or a key.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from quantbuild import aside
from quantbuild.code import package_stamp
from quantbuild.digests import Digests, Stamp, sha256_of_bytes
from quantbuild.errors import StepError
from quantbuild.tools import cpu, version

SNAPSHOT_SCHEMA = 3
MANIFEST_FOLDER = "manifests"


class Task(msgspec.Struct, frozen=True, array_like=True):
    """One doit task: its name, the tasks it needs, its line in `doit list`."""

    name: str
    needs: tuple[str, ...]
    doc: str


class Device(msgspec.Struct, frozen=True, array_like=True):
    """One device whose fingerprint enters a key, as its runner's options in JSON."""

    runner: str
    options: bytes
    fingerprint: dict[str, str]


Place = TypeVar("Place")


class RestsOn(NamedTuple, Generic[Place]):
    """What a step's freshness rests on: what is its own (record, outputs, the user's inputs), and what others made."""

    own: Sequence[Place]
    made: Sequence[Place]


class File(msgspec.Struct, frozen=True, array_like=True):
    """One file or folder that steps rest on; the stamp is absent where it cannot be believed (racy, or a folder)."""

    path: str
    sha256: str
    stamp: Stamp | None


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot file holds."""

    schema: int
    facts: dict[str, str]
    installed: str
    """The stamp of the folders Python finds distributions in, under which the versions need not be looked up."""
    tools: dict[str, str]
    devices: tuple[Device, ...]
    manifests: tuple[File, ...]
    tasks: tuple[Task, ...]
    steps: dict[str, tuple[int, ...]]
    """The files each step rests on by itself (record, outputs, the user's inputs), as places in `files`."""
    made_inputs: bytes
    """The same for the inputs that other steps made, encoded: a build with nothing to do has no use for them."""
    files: tuple[File, ...]
    failed_gates: tuple[dict[str, Any], ...]
    undecided_gates: tuple[dict[str, Any], ...]


_decoder = msgspec.msgpack.Decoder(Snapshot)


class Standing:
    """A snapshot whose common part holds: manifests, code, tools, CPU and devices are as they were."""

    def __init__(self, snapshot: Snapshot, digests: Digests, manifests: tuple[File, ...]) -> None:
        self.snapshot = snapshot
        self._manifests = manifests
        self._digests = digests
        self._altered: set[int] | None = None
        self._restamped: dict[int, File] = {}

    def stands(self, step: str) -> bool:
        """Whether every file that `step` rests on is as it was when the step was found up to date."""
        files = self.snapshot.steps.get(step)
        if files is None:
            return False
        if self._altered is None:
            self._altered = set(self._find_altered())
        return not self._altered or self._altered.isdisjoint(files)

    def is_settled(self, step: str) -> bool:
        """Whether `step` stands; for dist, whether the verdicts in its lock do as well."""
        if step != "dist" or "check" not in self.snapshot.steps:
            return self.stands(step)
        return self.stands(step) and self._stands_on_all_it_needs("check")

    def _stands_on_all_it_needs(self, step: str) -> bool:
        if not self._altered:
            return True
        needs = {task.name: task.needs for task in self.snapshot.tasks}
        seen: set[str] = set()
        waiting = [step]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting.extend(needs[name])
        return all(map(self.stands, seen))

    def _find_altered(self) -> Iterator[int]:
        """Yield the places of the files that differ. One tight pass: this is what a build with nothing to do costs."""
        look = os.stat
        for place, file in enumerate(self.snapshot.files):
            try:
                now = look(file.path)  # relative: doit has made the root the current folder
            except OSError:
                yield place
                continue
            if file.stamp == (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino):
                continue
            if not same_content(file, self._digests):
                yield place
            elif (stamp := self._digests.believed_stamp(file.path)) is not None:
                self._restamped[place] = File(file.path, file.sha256, stamp)

    def restamped(self) -> Snapshot | None:
        """Return the snapshot with the new stamps of files that were touched and are the same, None where none was.

        Without it every later build would look these files up anew.
        """
        if not self._restamped and self._manifests == self.snapshot.manifests:
            return None
        files = [self._restamped.get(place, file) for place, file in enumerate(self.snapshot.files)]
        return msgspec.structs.replace(self.snapshot, files=tuple(files), manifests=self._manifests)


def same_content(file: File, digests: Digests) -> bool:
    """Whether a file whose stamp differs still has the content that a step rested on."""
    try:
        digest = digests.digest(file.path)
    except OSError:  # unreadable: the build proper says so, with the step's name
        return False
    return digest is not None and digest.sha256 == file.sha256


def rested(snapshot: Snapshot) -> dict[str, RestsOn[int]]:
    """Return what each step of a snapshot rests on, as places in its files."""
    made = msgspec.msgpack.decode(snapshot.made_inputs, type=dict[str, tuple[int, ...]])
    return {step: RestsOn(own, made[step]) for step, own in snapshot.steps.items()}


def encode_places(places: dict[str, tuple[int, ...]]) -> bytes:
    """Encode a snapshot's `made_inputs`."""
    return msgspec.msgpack.encode(places)


def read_standing(path: Path, digests: Digests) -> Standing | None:
    """Return the snapshot at `path` if its common part still holds, else None."""
    try:
        snapshot = _decoder.decode(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if snapshot.schema != SNAPSHOT_SCHEMA or snapshot.facts != facts():
        return None
    manifests = _same_manifests(snapshot.manifests, digests)
    holds = (
        manifests is not None
        and (
            snapshot.installed == installed_stamp() or all(version(name) == was for name, was in snapshot.tools.items())
        )
        and all(_is_the_same(device) for device in snapshot.devices)
    )
    return Standing(snapshot, digests, manifests) if holds and manifests is not None else None


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write `snapshot` aside and rename it into place."""
    aside.replace(path, msgspec.msgpack.encode(snapshot))


def facts() -> dict[str, str]:
    """Return what enters every key besides files: code and CPU; and the settings that come from the environment."""
    settings = {name: value for name, value in os.environ.items() if name.startswith("QUANTBUILD_CACHE_")}
    return {"code": package_stamp(), **cpu(), "settings": sha256_of_bytes(repr(sorted(settings.items())).encode())}


def manifest_files(digests: Digests) -> tuple[File, ...]:
    """Return every manifest with its digest; a new or vanished file is a difference."""
    found = []
    for path in _manifest_paths(digests):
        with contextlib.suppress(OSError):  # unreadable: who loads the manifests says so
            digest = digests.digest(path)
            if digest is not None:
                found.append(File(path, digest.sha256, digests.believed_stamp(path)))
    return tuple(found)


def _manifest_paths(digests: Digests) -> list[str]:
    return [path for path in digests.files_below(MANIFEST_FOLDER) if path.endswith(".toml")]


def _same_manifests(manifests: tuple[File, ...], digests: Digests) -> tuple[File, ...] | None:
    """Return the manifests with the stamps they have now, None where one differs, is new or is gone."""
    if [file.path for file in manifests] != _manifest_paths(digests):
        return None
    found = []
    for file in manifests:
        now = os.stat(file.path)  # noqa: PTH116 - as for every file here
        if file.stamp == (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino):
            found.append(file)
        elif same_content(file, digests):
            found.append(File(file.path, file.sha256, digests.believed_stamp(file.path)))
        else:
            return None
    return tuple(found)


def installed_stamp() -> str:
    """Return a digest of the folders on Python's path and their times: installing or removing changes one of them.

    The folder of the running script is left out: it differs between `doit` and `python -m doit`.
    """
    lines = []
    for folder in sys.path[1:]:
        with contextlib.suppress(OSError):
            lines.append(f"{folder} {os.stat(folder).st_mtime_ns}")  # noqa: PTH116 - as for every file here
    return sha256_of_bytes("\n".join(lines).encode())


def _is_the_same(device: Device) -> bool:
    try:
        return fingerprint(device.runner, device.options) == device.fingerprint
    except StepError:  # it does not answer: the build proper says so
        return False


def fingerprint(runner: str, options: bytes) -> Mapping[str, str]:
    """Return what identifies the device that `runner` reaches with `options` (JSON)."""
    import importlib

    module = importlib.import_module(f"quantbuild.runners.{runner}")
    found: Mapping[str, str] = module.fingerprint(msgspec.json.decode(options, type=module.Options))
    return found
