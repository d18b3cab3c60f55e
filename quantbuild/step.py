"""What one step is: one action on declared inputs. Plain data, no effects."""

from __future__ import annotations

from typing import Any

import msgspec


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """One declared input of a step.

    `path` is relative to the workspace root, with forward slashes; a file or a folder.
    `step` is the id of the step that makes it, None for a file of the user's.
    """

    path: str
    step: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One action on declared inputs. Its key is computed from this and the inputs' digests alone."""

    id: str
    action: str
    parameters: dict[str, Any]
    inputs: dict[str, Input]
    outputs: dict[str, str]
    """Role to path, relative to the root. The first one is the artifact that the record stands beside."""
    needs: tuple[str, ...] = ()
    """Ids of the steps that must be done before; a failed one blocks this step unless `tolerant`."""
    code: tuple[str, ...] = ()
    """Modules that implement it, besides the action's; their imports inside quantbuild are followed."""
    tools: tuple[str, ...] = ()
    """Distributions whose versions enter the key."""
    by_cpu: bool = False
    """Whether the CPU's architecture and instruction set can change the result."""
    runner: str | None = None
    """The runner whose device's fingerprint enters the key: a latency, or what was chosen by one, is never served for
    another device."""
    driver: str | None = None
    """The module in quantbuild/drivers/ that makes this step out of others; None for a step of one worker's."""
    tolerant: bool = False
    """Whether failures of what it needs are data for it (check, dist, report) and do not block it."""


def file_name(step_id: str) -> str:
    """Return a name for a step's files: a name holds dots but no "+", so no two steps share one."""
    return step_id.replace(":", ".", 1).replace("/", "+")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker gets: a step with every path made absolute and outputs in a scratch folder."""

    step: str
    action: str
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    root: str
    scratch: str
