"""What a step's key is the digest of: made from the step, and from the digests of its inputs as they are now."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from quantbuild import device
from quantbuild.code import CodeDigests
from quantbuild.digests import Digests
from quantbuild.errors import StepError
from quantbuild.freshness import KEY_SCHEMA
from quantbuild.record import Result
from quantbuild.step import Step
from quantbuild.tools import cpu, versions


class Keys:
    """The pre-images of the keys of one build's steps. What steps made is noted, so that it is hashed once."""

    def __init__(self, digests: Digests, code: CodeDigests) -> None:
        self.code = code
        self._digests = digests
        self._made: dict[str, str] = {}

    def preimage(self, step: Step, *, without: Collection[str] = ()) -> dict[str, Any]:
        """Return what the step's key is the digest of, the inputs of the roles `without` left out.

        Raises:
            StepError: an input is missing.
            UnreachableError: the device that it runs on does not answer.
        """
        preimage: dict[str, Any] = {
            "schema": KEY_SCHEMA,
            "action": step.action,
            "code": self.code.digest((f"quantbuild.actions.{step.action}", *step.code)),
            "parameters": step.parameters,
            "inputs": {role: self._of_input(step, role) for role in step.inputs if role not in without},
            "tools": versions(step.tools),
        }
        if step.by_cpu:
            preimage["cpu"] = cpu()
        if step.runner is not None:
            preimage["device"] = device.fingerprint(step)
        return preimage

    def note_made(self, result: Result) -> None:
        """Note what a step made, for the keys of the steps that it is an input of."""
        for output in result.outputs.values():
            self._made[output.path] = output.sha256

    def _of_input(self, step: Step, role: str) -> str:
        given = step.inputs[role]
        made = self._made.get(given.path) if given.step is not None else None
        if made is not None:
            return made
        digest = self._digests.digest(given.path)
        if digest is None:
            raise StepError(f"{step.id}: its input {given.path} is missing; put it there or correct the manifest")
        return digest.sha256
