"""The pages say what the code says: the command line's reference, the events' reference, links, the READMEs."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import cli_docs
from tools.docs import REFERENCE, ROOT

import towline
from towline.cli.main import VERBS

PAGES = sorted(str(path.relative_to(ROOT)) for path in [*Path(ROOT).glob("*.md"), *Path(ROOT, "docs").rglob("*.md")])
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def read(page: str) -> str:
    return Path(ROOT, page).read_text(encoding="utf-8")


def test_the_command_line_reference_is_what_the_parsers_say() -> None:
    assert not cli_docs.stale(), "run: python -m tools.cli_docs"


def test_every_verb_has_its_place_in_the_reference() -> None:
    page = cli_docs.page()
    assert all(f"\n## tow {verb}\n" in page for verb in VERBS)


def emitted() -> Iterator[tuple[str, str, str]]:
    """(file, event, field) of each call `….event("name", field=…)` in the command line's modules."""
    for path in sorted(Path(ROOT, "src", "towline", "cli").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in {"event", "event_"} and isinstance(node.args[0].value, str):
                    yield path.name, node.args[0].value, ""
                    for keyword in node.keywords:
                        if keyword.arg:
                            yield path.name, node.args[0].value, keyword.arg


def test_every_event_and_field_is_in_the_reference() -> None:
    page = read("docs/reference/events.md")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    documented: dict[str, str] = {}
    for row in rows:
        for event in re.findall(r"`([\w-]+)`", row.split("|")[1]):
            documented[event] = documented.get(event, "") + row
    found = set(emitted())
    assert len({event for _, event, _ in found}) > 20, "the search finds the events"
    missing = {
        f"{file}: {event}.{field}".rstrip(".")
        for file, event, field in found
        if event not in documented or (field and f"`{field}`" not in documented[event])
    }
    assert not missing, f"docs/reference/events.md does not say: {sorted(missing)}"


@pytest.mark.parametrize("page", PAGES)
def test_links_inside_the_repository_lead_somewhere(page: str) -> None:
    text = re.sub(r"```.*?```", "", read(page), flags=re.DOTALL)
    folder = os.path.dirname(os.path.join(ROOT, page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            full = os.path.normpath(os.path.join(folder, path)) if path else os.path.join(ROOT, page)
            assert os.path.exists(full), f"{page} links to {target}"
            if anchor and full.endswith(".md"):
                assert anchor in anchors(Path(full).read_text(encoding="utf-8")), f"{page} links to {target}"


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_commands_in_the_readme_exist(page: str) -> None:
    shown = re.findall(r"^\s*(?:\$ )?(?:.*\| )?tow ([a-z]+)", read(page), re.MULTILINE)
    assert len(shown) > 8
    assert set(shown) <= set(VERBS), set(shown) - set(VERBS)


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_python_in_the_readme_uses_names_that_exist(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", read(page), re.DOTALL)
    assert blocks
    for block in blocks:
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "towline":
                assert hasattr(towline, node.attr), f"towline.{node.attr}"


def test_both_readmes_have_the_same_parts() -> None:
    english, chinese = read("README.md"), read("README.zh.md")
    for mark in (r"^## ", r"^```"):
        assert len(re.findall(mark, english, re.MULTILINE)) == len(re.findall(mark, chinese, re.MULTILINE)), mark
    assert len(CHINESE.findall(chinese)) > 1200


def test_the_index_names_every_page() -> None:
    index = read("docs/README.md")
    pages = [page.removeprefix("docs/") for page in PAGES if page.startswith("docs/") and page != "docs/README.md"]
    missing = [page for page in pages if f"({page})" not in index and not page.startswith("decisions/")]
    assert not missing, f"docs/README.md does not name {missing}"
    assert os.path.isdir(REFERENCE)


def test_decisions_are_dated_and_in_their_index() -> None:
    index = read("docs/decisions/README.md")
    for page in PAGES:
        name = os.path.basename(page)
        if os.path.dirname(page) == "docs/decisions" and name != "README.md":
            assert re.match(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md$", name), name
            assert f"({name})" in index, name
