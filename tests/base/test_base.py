"""The floor: errors by number, limits by name, sizes and durations, ids, and the text gate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base import ids
from towline.base.errors import (
    Busy,
    Exit,
    LimitExceeded,
    NoGrant,
    PeerError,
    TowlineError,
    UsageError,
    error_from_wire,
    error_types,
)
from towline.base.limits import STREAMS
from towline.base.quantity import format_duration, format_size, parse_duration, parse_size
from towline.base.text import printable, printable_bytes

# --- errors ---


def test_every_error_is_complete() -> None:
    statuses = {value for name, value in vars(Exit).items() if name.isupper()}
    names = [each.name for each in error_types()]
    assert len(set(names)) == len(names)
    for each in error_types():
        assert each.default_sentence().endswith((".", "always.", ".)")), each
        assert each.exit_status in statuses
        assert each.exit_status != Exit.OK
        assert each().sentence == each.default_sentence()


def test_every_error_survives_the_wire() -> None:
    for each in error_types():
        back = error_from_wire(each.code, "why", not each.retryable, 2.5)
        assert type(back) is each
        assert (back.sentence, back.retryable, back.retry_after) == ("why", not each.retryable, 2.5)
        assert each.retryable is not back.retryable, "the class must not be changed by one instance"


def test_an_unknown_number_is_no_crash() -> None:
    error = error_from_wire(64999, "odd", False)
    assert type(error) is PeerError
    assert "64999" in error.sentence


def test_numbers_are_given_once() -> None:
    with pytest.raises(AssertionError, match=str(NoGrant.code)):

        class Twice(TowlineError, code=NoGrant.code, name="twice"):
            """Twice."""


def test_a_repr_names_number_and_sentence() -> None:
    assert repr(Busy("Full.")) == "<Busy 604 busy: Full.>"


# --- limits ---


def test_a_refusal_names_limit_value_and_offer() -> None:
    STREAMS.check(STREAMS.value)
    with pytest.raises(LimitExceeded, match=r"Limit streams is 128 streams; 129 was asked for \(opening\)\."):
        STREAMS.check(129, what="opening")


# --- quantities ---


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", 4096), ("20MB", 20_000_000), ("64KiB", 65536), ("1g", 10**9), (" 1.5 kib ", 1536), ("0", 0)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1 2", "1e9", "1PB", "٣x", "4611687TB", "9" * 400])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("500ms", 0.5), ("24h", 86400), ("1h30m", 5400), ("1w", 604800), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1s", "1h x", "1y", "9999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        parse_duration(text)


def test_quantities_for_people() -> None:
    assert [format_size(n) for n in (0, 1023, 1536, 150 * 1024, 5 << 30, 3 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "150 KiB", "5.0 GiB", "3.0 TiB",
    ]  # fmt: skip
    assert [format_duration(s) for s in (0.05, 2.5, 12, 200, 7500, 360_000)] == [
        "50 ms", "2.5 s", "12 s", "3 min 20 s", "2 h 05 min", "4 d 4 h",
    ]  # fmt: skip


# --- ids ---


@given(st.binary(max_size=40))
def test_base_32_there_and_back(data: bytes) -> None:
    text = ids.encode(data)
    assert ids.decode(text) == data
    assert ids.decode(text.upper().replace("0", "O").replace("1", "l")) == data
    assert set(text) <= set(ids.ALPHABET)


def test_a_short_id() -> None:
    assert ids.short_id(bytes(5)) == "0000-0000"
    assert len(ids.short_id(bytes(range(10)))) == 19


@pytest.mark.parametrize("text", ["u", "é", "zz", "!"])
def test_what_is_no_base_32(text: str) -> None:
    with pytest.raises(ValueError, match=r"base 32|last digit"):
        ids.decode(text)


# --- the text gate ---


@given(st.text())
def test_nothing_that_passes_can_steer_a_terminal(text: str) -> None:
    safe = printable(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in safe)
    assert not set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u2028\ufeff") & set(safe)
    safe.encode()
    assert printable(safe) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain", "plain"), ("灯火 🚢 שלום", "灯火 🚢 שלום"),
        ("\x1b[31mred", r"\x1b[31mred"), ("a\nb\tc", r"a\nb\tc"),
        ("\u202egnp.exe", r"\u202egnp.exe"), ("\x9b", r"\x9b"), ("\U000e0041", r"\U000e0041"),
    ],
)  # fmt: skip
def test_what_passes_and_what_is_shown_as_an_escape(text: str, safe: str) -> None:
    assert printable(text) == safe


def test_limits_newlines_and_bytes() -> None:
    assert printable("abcdef", limit=4) == "abc…"
    assert printable("a\nb\r", keep_newlines=True) == "a\nb\\r"
    assert printable_bytes(b"ok \xff\xc3\xa9") == "ok \\xffé"
