"""The dist step: publish what was built. Runs in the parent, since it only copies files that are already checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantbuild import dist
from quantbuild.digests import sha256_of_file

WORKER = "parent"


def publish(root: Path, parameters: Mapping[str, Any], inputs: Mapping[str, str], *, partial: bool) -> list[str]:
    """Bring dist/ in line with `parameters` (those of ``closing.dist_step``); return the published paths, sorted.

    `inputs` has MODEL/VARIANT:model, MODEL/VARIANT:description and MODEL:labels as paths relative to the root.
    With `partial` only the artifacts named are touched, and the lock's other entries stay as they are.
    """
    old = _old_lock(root)
    entries: dict[str, Any] = dict(old.get("artifacts", {})) if partial else {}
    failed = set(old.get("failed", [])) if partial else set()
    outputs: list[str] = []
    for artifact in parameters["artifacts"]:
        name = artifact["name"]
        failed.discard(name)
        entries.pop(name, None)
        if artifact["failed"]:
            dist.remove_variant(root, name)
            failed.add(name)
            continue
        entries[name] = _publish_one(root, artifact, inputs)
        outputs += [dist.artifact_file(name), dist.contract_file(name)]
    if not partial:
        for name in set(old.get("artifacts", {})) - set(entries) - failed:
            dist.remove_variant(root, name)
    ship = parameters["ship"] if not partial else {**old.get("ship", {}), **parameters["ship"]}
    outputs += _publish_shipped(root, ship, old.get("ship", {}), entries)
    tools = {**(old.get("tools", {}) if partial else {}), **parameters["tools"]}
    dist.write_file(root, dist.LOCK_PATH, dist.lock(entries, sorted(failed), ship, tools))
    sources = sorted({path for entry in entries.values() for path in entry["inputs"]})
    dist.write_file(root, dist.DEPFILE_PATH, dist.depfile([dist.artifact_file(name) for name in entries], sources))
    return sorted([*outputs, dist.LOCK_PATH, dist.DEPFILE_PATH])


def _publish_one(root: Path, artifact: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, Any]:
    name = artifact["name"]
    description = json.loads((root / inputs[f"{name}:description"]).read_bytes())
    labels = inputs.get(f"{artifact['contract']['model']}:labels")
    sha256 = dist.write_file(root, dist.artifact_file(name), root / inputs[f"{name}:model"])
    labels_sha256 = sha256_of_file(root / labels) if labels else None
    text = dist.contract(description, artifact["contract"], labels_sha256, sha256)
    dist.write_file(root, dist.contract_file(name), text)
    return {
        "path": f"{name}.tflite",
        "sha256": sha256,
        "size_bytes": description["size_bytes"],
        "scheme": artifact["contract"]["scheme"],
        "key": artifact["key"],
        "inputs": artifact["inputs"],
        "verdict": artifact["verdict"],
    }


def _publish_shipped(
    root: Path, ship: Mapping[str, Any], old_ship: Mapping[str, Any], entries: Mapping[str, Any]
) -> list[str]:
    """Publish the variants that ship; take away those that no longer do or whose variant is not there.

    A published artifact that this run did not make may have been altered or taken away: it is no source to copy from.
    """
    wanted = {
        dist.shipped_file(model, purpose): f"{model}/{variant}"
        for model, purposes in ship.items()
        for purpose, variant in purposes.items()
    }
    standing = {path: name for path, name in wanted.items() if name in entries}
    once = {dist.shipped_file(model, purpose) for model, purposes in old_ship.items() for purpose in purposes}
    for path in (once | set(wanted)) - set(standing):
        (root / path).unlink(missing_ok=True)
    for path, name in standing.items():
        artifact = root / dist.artifact_file(name)
        if artifact.is_file() and sha256_of_file(artifact) == entries[name]["sha256"]:
            dist.write_file(root, path, artifact)
    return sorted(standing)


def _old_lock(root: Path) -> dict[str, Any]:
    try:
        lock = json.loads((root / dist.LOCK_PATH).read_bytes())
    except (FileNotFoundError, ValueError):  # no JSON, or no text at all
        return {}
    return lock if isinstance(lock, dict) and lock.get("schema") == dist.LOCK_SCHEMA else {}
