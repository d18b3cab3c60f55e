"""The locator: the line of every key, in every way that TOML has to write one."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbuild.manifest.locate import KeyPath, locate

TRICKY = {
    "a key inside a table": ("[a]\n\nx = 1", ("a", "x"), 3),
    "a table whose parents are never written": ("# c\n[a.b.c]\nx = 1", ("a", "b"), 2),
    "a parent that is written after its child": ("[a.b]\n[a]\n", ("a",), 2),
    "a parent that only a dotted key makes": ("[t]\na.b = 1\na.c = 2", ("t", "a"), 2),
    "the second of two dotted keys": ("[t]\na.b = 1\na . c = 2", ("t", "a", "c"), 3),
    "a header with blanks and quotes": ("[ a . \"b.c\" . 'd e' ]\nx = 1", ("a", "b.c", "d e", "x"), 2),
    "a quoted key with an escape": (r'"a\"=\u0062" = 1', ('a"=b',), 1),
    "a bracket in a quoted key": ("['a]#']\nx = 1", ("a]#", "x"), 2),
    "an empty key": ('"" = 1\n[t]\n"".x = 2', ("t", "", "x"), 3),
    "a number as a key": ("[1.2]\n3 = 4", ("1", "2", "3"), 2),
    "a key after a text that looks like a header": ('a = """\n[b]\nx = 1\n"""\nb = 2', ("b",), 5),
    "a key after a text that ends in quotes": ('a = """x"""""\nb = 2', ("b",), 2),
    "a key after an empty long text": ('a = """"""\nb = 2', ("b",), 2),
    "a key after an escaped quote in a long text": ('a = """\\""""\nb = """\n\\\\"""\nc = 1', ("c",), 4),
    "a key after a literal text with quotes inside": ("a = '''\nit''s\n'''''\nb = 2", ("b",), 4),
    "a key after a literal text with a backslash": ("a = 'c:\\'\nb = 2", ("b",), 2),
    "a key after a text with a hash": ('a = "#" # "\nb = 2', ("b",), 2),
    "a key after a comment with quotes": ("a = 1 # it's '''\nb = 2", ("b",), 2),
    "an element of an array over lines": ("a = [\n  1, # ]\n\n  2,\n]\nb = 1", ("a", 1), 4),
    "a key after an array over lines": ("a = [\n  1, # ]\n\n  2,\n]\nb = 1", ("b",), 6),
    "an element of an array of arrays": ("a = [[1, 2],\n[3,\n4]]", ("a", 1, 1), 3),
    "a key after an empty array": ("a = [ ]\nb = [\n# none\n]\nc = 1", ("c",), 5),
    "a key of an inline table": ("x = { a = 1, b.c = { d = 2 } }", ("x", "b", "c", "d"), 1),
    "a key of an inline table in an array": ("x = [\n{ a = 1 },\n{ a = '}' , b = 2 } ]", ("x", 1, "b"), 3),
    "a key of an inline table over lines": ("x = {\n a = 1, # }\n b = [2],\n}\ny = 1", ("x", "b"), 3),
    "a key after an empty inline table": ("x = {}\ny = { }\nz = 1", ("z",), 3),
    "the second table of an array": ("[[a]]\nx = 1\n[[a]]\nx = 2", ("a", 1, "x"), 4),
    "an array of tables itself": ("\n[[a]]\nx = 1\n[[a]]\n", ("a",), 2),
    "a table of the last element of an array": ("[[a]]\n[a.b]\n[[a]]\n[a.b]\nx = 1", ("a", 1, "b", "x"), 5),
    "an array of tables inside another": ("[[a]]\n[[a.b]]\n[[a]]\n[[a.b]]\n[[a.b]]\nx = 1", ("a", 1, "b", 1, "x"), 6),
    "a key after dates and times": ("a = 1979-05-27 07:32:00Z\nb = 07:32:00\nc = 1e-3", ("c",), 3),
    "a key in a text with carriage returns": ("a = 1\r\n[t]\r\nx = '''\r\n'''\r\ny = 2\r\n", ("t", "y"), 5),
    "a key indented and without blanks": ("[t]\n\t x=1", ("t", "x"), 2),
}


@pytest.mark.parametrize("name", TRICKY)
def test_the_locator_finds(name):
    text, path, line = TRICKY[name]
    assert _paths(tomli.loads(text)) == set(locate(text))
    assert locate(text)[path].line == line


@pytest.mark.parametrize(
    ("text", "path", "column"),
    [
        ("a = 1", ("a",), 1),
        ("[t]\r\n  x = 1", ("t", "x"), 3),
        ("  [t.u]\n", ("t", "u"), 3),
        ('"é" = { b = 1 }', ("é", "b"), 9),
        ("a = [1, 2]", ("a", 1), 9),
    ],
)
def test_the_locator_tells_the_column_in_characters(text, path, column):
    assert locate(text)[path].column == column


def test_a_table_with_a_header_is_explicit_and_a_mere_prefix_is_not():
    found = locate("[a.b]\nx.y = 1\n[[c]]\n")
    assert {path for path, position in found.items() if not position.explicit} == {("a",), ("a", "b", "x")}


KEYS = st.one_of(st.text("abcxyz_-19", min_size=1, max_size=3), st.text(max_size=4))
TEXTS = st.text(st.sampled_from("ab \"'\\\n#[]{}=.,"), max_size=8)
VALUES = st.recursive(
    st.one_of(st.integers(-9, 99), st.booleans(), TEXTS, st.floats(allow_nan=False, allow_infinity=False)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(KEYS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=4)


class Writer:
    """Writes data as TOML in a style drawn at random, and notes the line of each key."""

    def __init__(self, draw: Any) -> None:
        self.text = ""
        self.lines: dict[KeyPath, int] = {}
        self._draw = draw

    def document(self, data: dict[str, Any]) -> None:
        self._body((), data, {})

    def _body(self, path: KeyPath, table: dict[str, Any], tables: dict[KeyPath, dict[str, Any]]) -> None:
        for key, value in table.items():
            if isinstance(value, dict) and self._choose("header", "inline") == "header":
                tables[*path, key] = value
                continue
            self._gap()
            self._pair((*path,), key, value)
            self.text += self._choose("\n", " # '\"]\n", "\n\n")
        mine = {place: inner for place, inner in tables.items() if len(place) == len(path) + 1}
        for place, inner in mine.items():
            self._gap()
            self._note(place)
            self.text += "[" + self._choose(".", " . ").join(self._key(str(part)) for part in place) + "]\n"
            self._body(place, inner, {})

    def _pair(self, path: KeyPath, key: str, value: Any) -> None:
        self._note((*path, key))
        if isinstance(value, dict) and len(value) == 1 and self._choose("dotted", "table") == "dotted":
            self.text += self._key(key) + self._choose(".", " . ")
            ((inner, inner_value),) = value.items()
            self._pair((*path, key), inner, inner_value)
            return
        self.text += self._key(key) + self._choose("=", " = ")
        self._value((*path, key), value)

    def _value(self, path: KeyPath, value: Any) -> None:
        if isinstance(value, list):
            self.text += "["
            for index, item in enumerate(value):
                self.text += self._choose("", " ", "\n", " # ]\n")
                self._note((*path, index))
                self._value((*path, index), item)
                self.text += self._choose(",", " ,", "\n,")
            self.text += self._choose("", "\n") + "]"
        elif isinstance(value, dict):
            self.text += "{"
            for index, (key, item) in enumerate(value.items()):
                self.text += ", " if index else " "
                self._pair(path, key, item)
            self.text += " }"
        elif isinstance(value, str):
            self.text += self._written_text(value)
        else:
            self.text += str(value).lower()

    def _written_text(self, value: str) -> str:
        basic = json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        styles = [basic, f'""{basic}""' if value else '""""""']
        if "'" not in value and "\n" not in value and value.isprintable():
            styles.append(f"'{value}'")
        if "'''" not in value and "\\" not in value and not value.endswith("'"):
            styles.append(f"'''\n{value}'''")
        return self._choose(*styles)

    def _key(self, key: str) -> str:
        bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
        written = json.dumps(key, ensure_ascii=False).replace("\x7f", "\\u007f")
        return self._choose(key, written) if bare else written

    def _gap(self) -> None:
        self.text += self._choose("", "\n", "  ", "# [x]\n")

    def _note(self, path: KeyPath) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def _choose(self, *options: str) -> str:
        return self._draw(st.sampled_from(options))


@settings(max_examples=150, deadline=None)
@given(st.data(), DOCUMENTS)
def test_the_locator_finds_every_key_of_any_document_however_it_is_written(data, document):
    writer = Writer(data.draw)
    writer.document(document)
    parsed = tomli.loads(writer.text)
    assert parsed == document
    found = locate(writer.text)
    assert set(found) == _paths(parsed)
    assert {path: position.line for path, position in found.items()} == writer.lines


def _paths(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ({path} if path else set()).union(*(_paths(inner, (*path, key)) for key, inner in items))
