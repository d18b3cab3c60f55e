"""Renders the page: one self-contained HTML file from the templates, with nothing to load from anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from markupsafe import Markup

    from quantbuild.report.view import Page

TEMPLATE = "report.html.j2"
PACKAGE_FOLDER = Path(__file__).parents[1]


def templates_folder(package: Path = PACKAGE_FOLDER) -> Path:
    """Return the folder of the templates: inside an installed wheel, or beside the package in a source tree."""
    inside = package / "templates"
    return inside if (inside / TEMPLATE).is_file() else package.parent / "templates"


def template_files(folder: Path | None = None) -> list[Path]:
    """Return every file the page is made of, sorted: they decide its bytes as code does."""
    found = (folder or templates_folder()).rglob("*")
    return sorted(path for path in found if path.is_file() and path.suffix in (".j2", ".css", ".js"))


def render(page: Page, folder: Path | None = None) -> str:
    """Return the HTML of a page. An undefined name in a template is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    place = folder or templates_folder()
    environment = Environment(
        loader=FileSystemLoader(place),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["inlined"] = lambda name: _inlined(place / name)
    environment.filters["embedded_json"] = embedded_json
    return environment.get_template(TEMPLATE).render(page=page)


def embedded_json(value: Any) -> Markup:
    """Return JSON that is safe inside a script element: no ``<``, so that nothing in it can end the element.

    U+2028 and U+2029 end a line in older JavaScript; json.dumps writes all but ASCII as escapes.
    """
    import json

    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above


def _inlined(path: Path) -> Markup:
    """Return one of our own files for a style or script element, where no escape exists."""
    from markupsafe import Markup

    text = path.read_text(encoding="utf-8")
    assert "</script" not in text.lower() and "</style" not in text.lower(), f"{path.name} ends its own element"
    return Markup(text)  # noqa: S704 - a file of the package
