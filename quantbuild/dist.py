"""What an app build takes: artifacts, contracts, the lock and the depfile in dist/. Stdlib only; runs in the parent.

dist/ is reconciled: the files that should stand are computed, what differs is written aside and renamed, what should
not stand (a failed variant's old file) is removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quantbuild import aside
from quantbuild.digests import sha256_of_bytes, sha256_of_file

LOCK_PATH = "dist/quantbuild.lock.json"
DEPFILE_PATH = "dist/quantbuild.d"
LOCK_SCHEMA = 1
CONTRACT_SCHEMA = 1


def artifact_file(name: str) -> str:
    """Return where MODEL/VARIANT's artifact is published."""
    return f"dist/{name}.tflite"


def contract_file(name: str) -> str:
    """Return where MODEL/VARIANT's contract is published."""
    return f"dist/{name}.json"


def shipped_file(model: str, purpose: str) -> str:
    """Return where a shipped artifact is published; purpose `default` is the plain model.tflite."""
    return f"dist/{model}/model.tflite" if purpose == "default" else f"dist/{model}/model.{purpose}.tflite"


def labels_file(model: str) -> str:
    """Return where a model's class names are published: one file for all its variants."""
    return f"dist/{model}/labels.txt"


def files_of(model: str, variant: str, shipped: Mapping[str, str]) -> list[str]:
    """Return the files in dist/ that hold a variant; `shipped` is the model's variants by purpose."""
    name = f"{model}/{variant}"
    purposes = [purpose for purpose, ships in shipped.items() if ships == variant]
    return [artifact_file(name), contract_file(name), *(shipped_file(model, purpose) for purpose in purposes)]


def contract(description: Mapping[str, Any], said: Mapping[str, Any], labels_sha256: str | None, sha256: str) -> bytes:
    """Return the contract of an artifact as JSON text.

    `description` is the probe's, `said` what the manifest says of the variant (names, scheme, preprocessing).
    """
    tensor_keys = ("name", "shape", "dtype", "scale", "zero_point")
    return _json(
        {
            "schema": CONTRACT_SCHEMA,
            **said,
            "sha256": sha256,
            "size_bytes": description["size_bytes"],
            "signature": description["signature"],
            "inputs": [{key: tensor[key] for key in tensor_keys} for tensor in description["inputs"]],
            "outputs": [{key: tensor[key] for key in tensor_keys} for tensor in description["outputs"]],
            "labels": None if labels_sha256 is None else "labels.txt",
            "labels_sha256": labels_sha256,
            "minimal_runtime": description["minimal_runtime"],
        }
    )


def relabelled(contract: bytes, labels_sha256: str | None) -> bytes:
    """Return the contract of another variant of the model, with the labels that stand beside it now.

    Raises:
        ValueError, TypeError: it is no contract.
    """
    content = json.loads(contract)
    if not isinstance(content, dict):
        raise TypeError("no contract")
    named = {"labels": None if labels_sha256 is None else "labels.txt", "labels_sha256": labels_sha256}
    return _json({**content, **named})


def lock(content: Mapping[str, Any]) -> bytes:
    """Return the lock as JSON text: sorted keys, no times, no absolute paths.

    `content` has ``artifacts``, ``failed``, ``labels`` (sha256 by model), ``ship`` and ``tools``.
    """
    return _json({"schema": LOCK_SCHEMA, **content})


def write_file(root: Path, path: str, content: bytes | Path) -> str:
    """Put `content` (bytes, or a file to copy) at `path` unless it stands there already; return its sha256."""
    target = root / path
    data_sha256 = sha256_of_bytes(content) if isinstance(content, bytes) else sha256_of_file(content)
    if target.is_file() and not target.is_symlink() and sha256_of_file(target) == data_sha256:
        return data_sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(target, content)
    return data_sha256


def remove_variant(root: Path, name: str) -> None:
    """Take a failed variant's artifact and contract out of dist/."""
    for path in (artifact_file(name), contract_file(name)):
        (root / path).unlink(missing_ok=True)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
