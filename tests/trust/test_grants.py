"""Grants as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import LimitExceeded, NoGrant, UsageError
from towline.base.text import printable
from towline.trust.grants import VERBS, Grants

_SUBJECTS = st.one_of(
    st.sampled_from(["lobby", "read", "admin", "a=b", "read=x", "音乐", "git status"]),
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=","), min_size=1, max_size=12),
)
_LISTS = st.one_of(st.none(), st.frozensets(_SUBJECTS, min_size=1, max_size=4))


@st.composite
def _grants(draw: st.DrawFn) -> Grants:
    chosen = draw(st.sets(st.sampled_from(list(VERBS))))
    return Grants(tuple((verb, None if verb == "admin" else draw(_LISTS)) for verb in VERBS if verb in chosen))


@given(_grants())
def test_text_and_back(grants: Grants) -> None:
    assert Grants.parse(str(grants)) == grants
    assert str(Grants.parse(str(grants))) == str(grants)


@given(st.text(alphabet="chatredwinum=,. ", max_size=40) | st.text(max_size=40))
def test_whatever_is_typed_gives_grants_or_a_documented_error(text: str) -> None:
    said = ""
    try:
        grants = Grants.parse(text)
    except UsageError as error:  # anything else fails the test
        said = error.sentence
    else:
        assert Grants.parse(str(grants)) == grants
    assert printable(said) == said


def test_words_continue_the_list_before_them() -> None:
    grants = Grants.parse("chat=lobby,ops,read,run=uptime, df ,write=docs")
    assert str(grants) == "chat=lobby,ops,read,write=docs,run=df,uptime"
    assert grants.restricted("chat") == {"lobby", "ops"}
    assert grants.restricted("read") is None
    assert grants.restricted("admin") == frozenset()
    assert grants.allows("run", "df")
    assert not grants.allows("run", "rm")
    assert grants.allows("run")
    assert grants.allows("read", "anything")
    assert not grants.allows("admin")


def test_a_list_is_matched_exactly() -> None:
    grants = Grants.parse("run=df")
    assert not any(grants.allows("run", other) for other in ("", "d", "df -h", "/bin/df", "DF", "df "))


def test_admin_allows_everything() -> None:
    grants = Grants.parse("chat=lobby,admin")
    assert all(grants.allows(verb, "anything") and grants.restricted(verb) is None for verb in VERBS)


def test_a_verb_given_twice_adds_up() -> None:
    assert Grants.parse("chat=a,chat=b") == Grants.parse("chat=b,a")
    assert Grants.parse("chat=a,chat") == Grants.parse("chat,chat=a,b") == Grants.parse("chat")


def test_subjects_that_look_like_grants_survive() -> None:
    grants = Grants.parse("chat=read,chat=a=b,chat=lobby,ops")
    assert grants.restricted("chat") == {"read", "a=b", "lobby", "ops"}
    assert not grants.allows("read")
    assert Grants.parse(str(grants)) == grants


def test_no_text_is_no_grant() -> None:
    nothing = Grants.parse(" ")
    assert nothing == Grants()
    assert str(nothing) == ""
    assert not any(nothing.allows(verb) for verb in VERBS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reed", r"'reed' is not a grant; known are chat, read, write, run, admin\. Did you mean 'read'\?"),
        ("chat,lobby", r"'lobby' is not a grant.*write chat=lobby\."),
        ("sing=loud", r"'sing=loud' is not a grant"),
        ("chat=lobby,sing=loud", r"'sing=loud' is not a grant"),
        ("chat=", r"'chat=' has an empty name"),
        ("chat=a,", r"empty name"),
        ("read,,write", r"'' is not a grant"),
        ("admin=lobby", r"takes no list"),
        ("chat=\x1b[2J", r"'chat=\\x1b\[2J' has characters that cannot be shown"),
        ("\x1b[2J", r"'\\x1b\[2J' is not a grant"),
        ("Chat", r"'Chat' is not a grant.*Did you mean 'chat'"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Grants.parse(text)


def test_too_long_is_refused_by_name() -> None:
    with pytest.raises(LimitExceeded, match="grants_text"):
        Grants.parse("chat=" + "x," * 4096)


def test_require_names_the_missing_grant() -> None:
    grants = Grants.parse("run=df")
    grants.require("run", "df")
    with pytest.raises(NoGrant, match="'run=rm'"):
        grants.require("run", "rm")
    with pytest.raises(NoGrant, match="'chat'"):
        grants.require("chat")
    with pytest.raises(ValueError, match="no grant"):
        grants.allows("sing")
