"""Finds the line of every key in a TOML text that is known to parse; used only when there is an error to place.

No kept TOML library of Python returns positions, so this follows the TOML grammar (https://toml.io/en/v1.0.0)
just far enough to skip values and to resolve tables, arrays of tables, dotted keys and inline tables.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import tomli

KeyPath = tuple[str | int, ...]
"""A key's place in the parsed data; an int is an index into an array."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_BARE_VALUE = re.compile(r"[^,\]}#\r\n]*")
# A closing delimiter may be preceded by up to two quotes that belong to the text.
_STRINGS = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}(?!")' r"|'''.*?'{3,5}(?!')" r'|"(?:\\.|[^"\\\n])*"' r"|'[^'\n]*'", re.DOTALL
)


class Position(NamedTuple):
    """Where a key stands."""

    line: int
    explicit: bool
    """False for a table that only exists as a prefix of another key."""
    column: int = 1
    """In characters, from 1."""


def locate(text: str) -> dict[KeyPath, Position]:
    """Return the position of every key, table and array element of `text`, which must be valid TOML."""
    return _Scanner(text.replace("\r\n", "\n")).scan()


class _Scanner:
    """One pass over a text; `_at` is where it stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._counted_to = 0
        self._positions: dict[KeyPath, Position] = {}
        self._array_sizes: dict[KeyPath, int] = {}

    def scan(self) -> dict[KeyPath, Position]:
        table: KeyPath = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)
        return self._positions

    def _header(self) -> KeyPath:
        is_array = self._text.startswith("[[", self._at)
        place = self._here()
        self._at += 1 + is_array
        *parents, last = self._dotted_key()
        self._at += 1 + is_array
        path: KeyPath = ()
        for part in parents:
            path = self._last_element((*path, part))
            self._note(path, place, explicit=False)
        path = (*path, last)
        if is_array:
            self._note(path, place, explicit=True)
            self._array_sizes[path] = self._array_sizes.get(path, 0) + 1
            path = self._last_element(path)
        self._note(path, place, explicit=True)
        return path

    def _last_element(self, path: KeyPath) -> KeyPath:
        return (*path, self._array_sizes[path] - 1) if path in self._array_sizes else path

    def _pair(self, table: KeyPath) -> None:
        place = self._here()
        path = table
        for part in self._dotted_key():
            path = (*path, part)
            self._note(path, place, explicit=False)
        self._note(path, place, explicit=True)
        self._at += 1  # "="
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at]
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._skip(_STRINGS if opening in "\"'" else _BARE_VALUE)

    def _array(self, path: KeyPath) -> None:
        index = 0
        while self._next_item("]"):
            self._note((*path, index), self._here(), explicit=True)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        while self._next_item("}"):
            self._pair(path)

    def _next_item(self, closing: str) -> bool:
        """Step over "[", "{" or ",", and over the closing bracket if it comes next."""
        self._skip(_GAP)
        if self._text[self._at] in "[{,":
            # An array's first element may be an array: only the bracket that opened this one is stepped over.
            self._at += 1
            self._skip(_GAP)
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _dotted_key(self) -> list[str]:
        parts = []
        while True:
            self._skip(_BLANK)
            start = self._at
            self._skip(_KEY)
            parts.append(_key_text(self._text[start : self._at]))
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _note(self, path: KeyPath, place: tuple[int, int], *, explicit: bool) -> None:
        known = self._positions.get(path)
        if known is None or (explicit and not known.explicit):
            line, column = place
            self._positions[path] = Position(line, explicit, column)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise ValueError(f"line {self._here()[0]}: not the TOML that was parsed")
        self._at = found.end()

    def _here(self) -> tuple[int, int]:
        """Return line and column."""
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line, self._at - self._text.rfind("\n", 0, self._at)


def _key_text(written: str) -> str:
    if written[0] not in "\"'":
        return written
    return next(iter(tomli.loads(f"{written} = 0")))
