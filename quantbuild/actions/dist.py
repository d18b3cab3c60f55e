"""The dist step: publish what was built. Runs in the parent, since it only copies files that are already checked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quantbuild import depfile, dist, leftovers
from quantbuild.digests import sha256_of_file

WORKER = "parent"


def publish(root: Path, parameters: Mapping[str, Any], inputs: Mapping[str, str], *, partial: bool) -> list[str]:
    """Bring dist/ in line with `parameters` (those of ``closing.dist_step``); return the published paths, sorted.

    `inputs` has MODEL/VARIANT:model, MODEL/VARIANT:description and MODEL:labels as paths relative to the root.
    With `partial` only the artifacts named are touched, and the lock's other entries stay as they are.
    """
    old = _old_lock(root)
    noted = leftovers.noted(root)
    may_stand = noted.paths | _paths(old) | _wanted(parameters, inputs)
    leftovers.note(root, may_stand, complete=False)
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
    ship = parameters["ship"] if not partial else {**old.get("ship", {}), **parameters["ship"]}
    outputs += _publish_shipped(root, ship, old.get("ship", {}), entries)
    labels = _publish_labels(root, parameters, inputs, entries, old.get("labels", {}) if partial else {})
    outputs += map(dist.labels_file, labels)
    outputs += [dist.LOCK_PATH, dist.DEPFILE_PATH]
    if not partial:
        for path in may_stand - set(outputs):
            (root / path).unlink(missing_ok=True)
    tools = {**(old.get("tools", {}) if partial else {}), **parameters["tools"]}
    content = {"artifacts": entries, "failed": sorted(failed), "labels": labels, "ship": ship, "tools": tools}
    dist.write_file(root, dist.LOCK_PATH, dist.lock(content))
    sources = {path for entry in entries.values() for path in entry["inputs"]}
    sources |= {path for role, path in inputs.items() if role.endswith(":labels")}
    depends = depfile.dependencies(root, sources, parameters["manifests"])
    dist.write_file(root, dist.DEPFILE_PATH, depfile.rule(depfile.targets(entries, ship), depends))
    # What a publication that was cut short has left is for the next whole one to take away.
    leftovers.note(root, may_stand if partial else outputs, complete=noted.complete or not partial)
    return sorted(outputs)


def _wanted(parameters: Mapping[str, Any], inputs: Mapping[str, str]) -> set[str]:
    """Return the paths that a publication writes."""
    names = [artifact["name"] for artifact in parameters["artifacts"] if not artifact["failed"]]
    models = {name.partition("/")[0] for name in names}
    labels = {dist.labels_file(model) for model in models if f"{model}:labels" in inputs}
    return _variant_paths(names) | labels | _shipped_paths(parameters["ship"]) | {dist.LOCK_PATH, dist.DEPFILE_PATH}


def _paths(lock: Mapping[str, Any]) -> set[str]:
    """Return the paths that stand as a lock says."""
    labels = {dist.labels_file(model) for model in lock.get("labels", {})}
    return _variant_paths(lock.get("artifacts", {})) | labels | _shipped_paths(lock.get("ship", {}))


def _variant_paths(names: Iterable[str]) -> set[str]:
    return {path for name in names for path in (dist.artifact_file(name), dist.contract_file(name))}


def _shipped_paths(ship: Mapping[str, Any]) -> set[str]:
    return {dist.shipped_file(model, purpose) for model, purposes in ship.items() for purpose in purposes}


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


def _publish_labels(
    root: Path,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str],
    entries: Mapping[str, Any],
    old: Mapping[str, str],
) -> dict[str, str]:
    """Publish the class names of each model that a named artifact belongs to; return sha256 by model.

    `old` are those of models that stay as they are. What stands in dist/ of the other variants gets the new names too.
    """
    labels = dict(old)
    standing = {name.partition("/")[0] for name in entries}
    for model in sorted({artifact["name"].partition("/")[0] for artifact in parameters["artifacts"]}):
        path = inputs.get(f"{model}:labels")
        stood = labels.pop(model, None) is not None
        if path is not None and model in standing:
            labels[model] = dist.write_file(root, dist.labels_file(model), root / path)
        elif stood:  # a file that we did not put there is the user's
            (root / dist.labels_file(model)).unlink(missing_ok=True)
        for name in entries:
            if name.startswith(f"{model}/"):
                _relabel(root, dist.contract_file(name), labels.get(model))
    return {model: labels[model] for model in sorted(labels) if model in standing}


def _relabel(root: Path, path: str, labels_sha256: str | None) -> None:
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError):  # the next whole publication writes it anew
        dist.write_file(root, path, dist.relabelled((root / path).read_bytes(), labels_sha256))


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
    for path in (_shipped_paths(old_ship) | set(wanted)) - set(standing):
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
