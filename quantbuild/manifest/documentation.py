"""What is known of a key without reading its code: its meaning and its default, for the schema and the docs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any

import msgspec
from msgspec import Struct, structs

from quantbuild.manifest.problems import quoted


def key_docs(definition: type[Struct]) -> dict[str, str]:
    """Return the text below each field of a definition, where it has one; plug-ins document their keys so."""
    (class_node,) = ast.parse(textwrap.dedent(inspect.getsource(definition))).body
    assert isinstance(class_node, ast.ClassDef)
    docs: dict[str, str] = {}
    for field, below in zip(class_node.body, class_node.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            docs[field.target.id] = " ".join(str(text).split())
    return docs


def default_words(field: structs.FieldInfo) -> str:
    """Return a key's default as the documentation writes it; "required" and "none" where it has none."""
    extra: dict[str, Any] = getattr(msgspec.inspect.type_info(field.type), "extra", None) or {}
    if "default" in extra:
        return str(extra["default"])
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT or field.default is None or isinstance(field.default, msgspec.Struct):
        return "none"
    return quoted(field.default)
