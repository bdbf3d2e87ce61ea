from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from towline.base.errors import PathRefused
from towline.services.files.names import (
    are_everyday,
    check_component,
    is_partial,
    is_reserved,
    sort_key,
    sorted_names,
    split_path,
)

ALWAYS = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "a\0b",
    "x" * 256,
    "é" * 128,
    ".towline-x",
    ".TOWLINE-X.part",
    "\ud83d",
    "a\ud800b",
]
PORTABLE_ONLY = [
    "a\nb",
    "\x1b[31m",
    "a\x7f",
    "a\x85b",
    "caf\udce9",
    "a<b",
    "a>b",
    "a:b",
    'a"b',
    "a|b",
    "a?b",
    "a*b",
    "a\\b",
    "a.",
    "a ",
    "...",
    "CON",
    "con",
    "nul.txt",
    "NUL .tar.gz",
    "COM1",
    "com¹",
    "LPT9.log",
    "aux",
    "CONIN$",
]
FINE = [
    "a",
    "x" * 255,
    "é" * 127,
    "name with spaces",
    " leading",
    "你好.txt",
    "🚢 tow",
    ".hidden",
    "..three",
    "a..b",
    "console",
    "com",
    "com10",
    "nulls",
    "-rf",
    "~",
    "$(rm)",
    "a;b",
    "%00",
    ".tow",
    "שלום",
    "e\u0301",
]


@pytest.mark.parametrize("name", ALWAYS)
@pytest.mark.parametrize("portable", [True, False])
def test_names_that_are_never_taken(name: str, portable: bool) -> None:
    with pytest.raises(PathRefused, match="is refused: "):
        check_component(name, portable=portable)


@pytest.mark.parametrize("name", PORTABLE_ONLY)
def test_names_that_some_system_cannot_keep(name: str) -> None:
    with pytest.raises(PathRefused, match="--any-names"):
        check_component(name, portable=True)
    check_component(name, portable=False)


@pytest.mark.parametrize("name", FINE)
def test_names_that_are_fine_everywhere(name: str) -> None:
    check_component(name, portable=True)
    check_component(name, portable=False)


def test_a_refusal_shows_the_name_without_its_escapes() -> None:
    with pytest.raises(PathRefused) as caught:
        check_component("\x1b[2Jgone\n", portable=True)
    assert "\\x1b[2Jgone\\n" in caught.value.sentence
    assert "\x1b" not in caught.value.sentence


@pytest.mark.parametrize(
    ("path", "parts"),
    [("", []), (".", []), ("a", ["a"]), ("a/", ["a"]), ("a/b c/d", ["a", "b c", "d"])],
)
def test_paths_split_into_their_components(path: str, parts: list[str]) -> None:
    assert split_path(path, portable=True) == parts


@pytest.mark.parametrize(
    "path",
    ["/", "/etc", "..", "../a", "a/..", "a/../b", "a//b", "a//", "./a", "a/./b", "//", "a/" * 20_000 + "b", "a\0"],
)
@pytest.mark.parametrize("portable", [True, False])
def test_paths_that_climb_or_pretend_are_refused(path: str, portable: bool) -> None:
    with pytest.raises(PathRefused):
        split_path(path, portable=portable)


@given(st.text(st.characters(exclude_categories=()), max_size=300), st.booleans())
def test_any_text_is_taken_or_refused_and_what_is_taken_stays_one_component(name: str, portable: bool) -> None:
    try:
        parts = split_path(name, portable=portable)
    except PathRefused:
        return
    assert "/".join(parts) == (name.removesuffix("/") if name != "." else "")
    for part in parts:
        assert part not in ("", ".", "..")
        assert "/" not in part
        assert len(part.encode("utf-8", "surrogateescape")) <= 255
        assert not part.lower().startswith(".towline-")
        assert not portable or (
            part.isprintable() or all(ord(char) > 0x9F or 0x20 <= ord(char) < 0x7F for char in part)
        )


@given(st.binary(min_size=1, max_size=255))
def test_any_name_that_a_file_system_gives_can_be_taken_without_the_portable_rule(raw: bytes) -> None:
    name = os.fsdecode(raw)
    try:
        check_component(name, portable=False)
    except PathRefused:
        assert b"/" in raw or b"\0" in raw or raw in (b".", b"..") or raw.lower().startswith(b".towline-")


@given(st.lists(st.binary(max_size=8).map(os.fsdecode), unique=True))
def test_names_are_ordered_by_their_bytes(names: list[str]) -> None:
    assert [sort_key(name) for name in sorted_names(names)] == sorted(sort_key(name) for name in names)


def test_fine_names_can_be_made_and_found_again(tmp_path: Path) -> None:
    for name in FINE + [name for name in PORTABLE_ONLY if name != "..."]:
        (tmp_path / name).touch()
    assert set(os.listdir(tmp_path)) == set(FINE + [name for name in PORTABLE_ONLY if name != "..."])


def test_partials_are_known_by_their_names() -> None:
    assert is_reserved(".towline-anything")
    assert is_partial(".towline-7h3k9mq27h3k9mq27h3k9mq2aa.part")
    assert not is_partial(".towline-notes")
    assert not is_partial("x.part")


@given(st.lists(st.text("acdeiloprnux.019 /-\u212a\u017f:é", max_size=8), max_size=4))
@example(["x" * 201])
@example(["nul .txt"])
@example(["ok/com1", "b"])
def test_what_is_judged_everyday_at_once_is_allowed_by_the_closer_look(names: list[str]) -> None:
    if are_everyday(names):
        for component in "/".join(names).split("/"):
            check_component(component, portable=True)


def test_everyday_names_are_seen_as_such() -> None:
    assert are_everyday(["src/main.py", "a b-c_d/READ ME 1", "console", "x" * 200])
    assert not are_everyday(["src/main.py", ".towline-abcdefgh.part"])
