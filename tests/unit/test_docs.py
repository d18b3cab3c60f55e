"""The docs say what is true: blocks load, links resolve, commands and plug-ins are named, messages are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from quantbuild.cli.command_line import parser
from quantbuild.lint.rules import MEANING, RULES
from quantbuild.manifest.definitions import METRICS
from quantbuild.manifest.loading import load
from quantbuild.manifest.plugins import installed

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
CODE = "\n".join(path.read_text() for path in (ROOT / "quantbuild").rglob("*.py"))


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        found += [(page.name, block) for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]
    return found


@pytest.mark.parametrize(("page", "block"), blocks())
def test_every_toml_block_loads(page: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "block.toml").write_text(block)
    load(tmp_path, environ={}, check_files=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_resolves(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text()):
        linked = page.parent / target if target else page
        assert linked.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name}: {target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_plug_in_and_metric_is_in_the_docs() -> None:
    plugins = installed()
    for name in (*plugins.datasets, *plugins.sources, *plugins.schemes, *plugins.runners, *METRICS):
        assert re.search(rf"\b{name}\b", TEXT), name


def test_there_are_toml_blocks_to_load() -> None:
    assert {page for page, _ in blocks()} >= {"README.md", "how-to.md", "manifest.md"}


def test_every_command_is_in_the_docs() -> None:
    (commands,) = (action for action in parser()._actions if hasattr(action, "choices") and action.choices)
    for name in commands.choices:
        assert f"quantbuild {name}" in TEXT, name


def test_every_exit_code_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    line = next(part for part in readme.split("\n\n") if part.startswith("Exit codes"))
    for code in ("0 ", "1 ", "2 ", "3 ", "130 "):
        assert code in line


def test_every_message_of_the_troubleshooting_page_is_the_codes() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 40
    for message in messages:
        assert message in CODE, message


def test_every_rule_of_the_lint_is_documented_and_has_a_meaning() -> None:
    rules = (ROOT / "docs" / "data.md").read_text().partition("## The rules")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", rules, re.MULTILINE)) == set(RULES) == set(MEANING)
