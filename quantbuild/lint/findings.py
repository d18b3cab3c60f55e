"""A finding: which rule, how bad, about what, and one message with place, problem and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from quantbuild.lint.rules import Rule

Severity = Literal["info", "warning", "error"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one rule found. An error is ruin: the step fails, or the variants' gate; a warning is shown and kept."""

    rule: Rule
    severity: Severity
    subject: str
    """The dataset, tensor or variant that it is about."""
    message: str
    """``PLACE: problem; remedy``"""
    figures: dict[str, Any] = {}


def kept(findings: Iterable[Finding], ignored: Iterable[str]) -> list[Finding]:
    """Return the findings of rules that are not ignored, the worst first."""
    order: tuple[Severity, ...] = ("error", "warning", "info")
    silent = frozenset(ignored)
    return sorted(
        (finding for finding in findings if finding.rule not in silent),
        key=lambda finding: (order.index(finding.severity), finding.rule, finding.subject),
    )


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Return those that are ruin."""
    return [finding for finding in findings if finding.severity == "error"]


def as_data(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as JSON values."""
    data: list[dict[str, Any]] = msgspec.to_builtins(list(findings))
    return data


def numbers_text(numbers: list[int], shown: int = 5) -> str:
    """Return sample numbers for a message: the first few, and how many more."""
    text = ", ".join(map(str, numbers[:shown]))
    more = len(numbers) - shown
    return f"{text} and {more} more" if more > 0 else text
