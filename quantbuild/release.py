"""Releases of a runtime as their numbers, which compare as numbers do: 2.9 comes before 2.14."""

from __future__ import annotations


def numbers(release: str) -> tuple[int, ...]:
    """Return ``2.14`` as (2, 14), with zeros at the end left out, so that 2.14 and 2.14.0 are one."""
    parts = [int(part) for part in release.split(".")]
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)
