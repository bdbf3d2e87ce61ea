"""Pure codecs: any split of the bytes gives the same messages; what is absurd is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towline.base.errors import ClosedEarly, DialectError, LimitExceeded, TowlineError
from towline.base.limits import Limit
from towline.classic.codecs import (
    AskDecoder,
    Chunk,
    End,
    FilesRequestDecoder,
    Header,
    HeaderedDecoder,
    Int32Decoder,
    Wanted,
    encode_header,
    encode_int32,
    encode_length,
    text_decoder,
)

PLAIN = settings(derandomize=True, deadline=None, max_examples=80)
CUTS = st.lists(st.integers(0, 4000), max_size=30)
ENDIANS = st.sampled_from(["little", "big"])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut for cut in cuts if 0 < cut < len(data)})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def joined(events: Iterable[Any]) -> list[Any]:
    """Events with neighbouring chunks joined: where a payload is cut means nothing."""
    out: list[Any] = []
    for event in events:
        if isinstance(event, Chunk) and out and isinstance(out[-1], Chunk):
            out[-1] = Chunk(out[-1].data + event.data)
        else:
            out.append(event)
    return out


@PLAIN
@given(st.lists(st.binary(max_size=300), max_size=8), CUTS, ENDIANS)
def test_int32_messages_survive_any_split(messages: list[bytes], cuts: list[int], endian: Any) -> None:
    wire = b"".join(encode_int32(message, endian) for message in messages)
    decoder = Int32Decoder(endian)
    assert [message for piece in split(wire, cuts) for message in decoder.feed(piece)] == messages
    decoder.finish()


def test_int32_is_what_struct_gives_on_the_usual_machines() -> None:
    assert encode_int32(b"hello") == b"\x05\x00\x00\x00hello"
    assert encode_int32(b"hello", "big") == b"\x00\x00\x00\x05hello"
    with pytest.raises(DialectError):
        encode_length(2**31)


@pytest.mark.parametrize(
    ("length", "kind"), [(b"\xff\xff\xff\xff", DialectError), (b"\xff\xff\xff\x7f", LimitExceeded)]
)
def test_int32_refuses_absurd_lengths_after_the_good_messages(length: bytes, kind: type[TowlineError]) -> None:
    decoder = Int32Decoder()
    messages = decoder.feed(encode_int32(b"good") + length)
    assert next(messages) == b"good"
    with pytest.raises(kind):
        next(messages)


def test_int32_says_where_the_end_cut_a_message() -> None:
    decoder = Int32Decoder()
    assert list(decoder.feed(b"\x05\x00\x00\x00he")) == []
    with pytest.raises(ClosedEarly, match="2 bytes of a message of 5"):
        decoder.finish()
    short = Int32Decoder()
    list(short.feed(b"\x05"))
    with pytest.raises(ClosedEarly, match="a length of 4"):
        short.finish()


@PLAIN
@given(st.lists(st.binary(max_size=200), max_size=5), CUTS, CUTS)
def test_ask_payloads_survive_any_split(messages: list[bytes], cuts: list[int], digit_cuts: list[int]) -> None:
    decoder, got = AskDecoder(), []
    for message in messages:
        for piece in split(str(len(message)).encode(), digit_cuts):
            assert list(decoder.feed(piece)) == []
            assert decoder.undecided
        assert decoder.settle().length == len(message)
        assert not decoder.undecided
        for piece in split(message, cuts):
            got += decoder.feed(piece)
    assert got == messages
    decoder.finish()


@pytest.mark.parametrize("text", [b"-5", b"hello", b"12x", b"0x10", b"1.5", "٣".encode(), b"1 2"])
def test_ask_refuses_what_is_no_number(text: bytes) -> None:
    with pytest.raises(DialectError):
        list(AskDecoder().feed(text))


def test_ask_refuses_absurd_numbers() -> None:
    decoder = AskDecoder(Limit("here", 100, "bytes", "a test"))
    list(decoder.feed(b"101"))
    with pytest.raises(LimitExceeded, match="here"):
        decoder.settle()
    with pytest.raises(LimitExceeded):
        list(AskDecoder().feed(b"9" * 100))


@PLAIN
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=300)), max_size=5), CUTS, ENDIANS)
def test_headers_and_payloads_survive_any_split(files: list[tuple[str, bytes]], cuts: list[int], endian: Any) -> None:
    wire, expected = b"", []
    for name, payload in files:
        fields = {"filename": name, "total_size": len(payload)}
        wire += encode_header(fields, endian) + payload
        expected += [Header(fields, len(payload)), *([Chunk(payload)] if payload else []), End()]
    decoder = HeaderedDecoder("total_size", endian)
    assert joined(event for piece in split(wire, cuts) for event in decoder.feed(piece)) == expected
    decoder.finish()


@PLAIN
@given(st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=300)), max_size=5), CUTS, ENDIANS)
def test_uploads_survive_any_split(files: list[tuple[str, bytes]], cuts: list[int], endian: Any) -> None:
    wire, expected = b"", []
    for name, payload in files:
        fields = {"filename": name, "lenth": len(payload), "md5": "0"}
        wire += encode_header(fields, endian) + payload
        expected += [Header(fields, len(payload)), *([Chunk(payload)] if payload else []), End()]
    decoder = FilesRequestDecoder(endian)
    assert joined(event for piece in split(wire, cuts) for event in decoder.feed(piece)) == expected
    assert decoder.finish() == []


@PLAIN
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=3, max_size=60),
    st.sampled_from(["utf-8", "gbk"]),
)
def test_a_read_of_text_is_a_name(name: str, encoding: str) -> None:
    raw = name.encode(encoding, "ignore")
    if len(raw) >= 3:
        assert list(FilesRequestDecoder().feed(raw)) == [Wanted(raw)]


def test_one_or_two_bytes_are_a_name_only_when_nothing_follows() -> None:
    decoder = FilesRequestDecoder()
    assert list(decoder.feed(b"a")) == []
    assert decoder.undecided
    assert decoder.settle() == [Wanted(b"a")]
    assert not decoder.undecided
    wire = encode_header({"filename": "x", "lenth": 1, "md5": ""}) + b"!"
    assert wire[:1] == b"("  # a length's first byte that looks like a letter
    assert list(decoder.feed(wire[:1])) == []
    assert joined(decoder.feed(wire[1:]))[1:] == [Chunk(b"!"), End()]
    assert list(decoder.feed(b"-")) == []
    assert decoder.finish() == [Wanted(b"-")]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\xff\xff\xff\xff", DialectError),
        (b"\x00\x00\x00\x40", LimitExceeded),
        (b"\x02\x00\x00\x00[]", DialectError),
        (b"\x03\x00\x00\x00{x}", DialectError),
        (encode_int32(b"[" * 9000), DialectError),
        (encode_header({"filename": "a"}), DialectError),
        (encode_header({"lenth": -1}), DialectError),
        (encode_header({"lenth": True}), DialectError),
        (encode_header({"lenth": 1.5}), DialectError),
        (encode_header({"lenth": "7"}), DialectError),
        (encode_header({"lenth": 2**60}), LimitExceeded),
        (encode_int32(b'{"lenth": ' + b"9" * 5000 + b"}"), DialectError),
        (b"n" * 5000, LimitExceeded),
    ],
)
def test_a_bad_upload_is_refused_by_name(data: bytes, kind: type[TowlineError]) -> None:
    with pytest.raises(kind):
        list(FilesRequestDecoder().feed(data))


def test_an_empty_header_has_no_payload() -> None:
    assert list(HeaderedDecoder("lenth").feed(encode_header({}))) == [Header({}, 0), End()]


def test_a_cut_payload_is_named() -> None:
    decoder = HeaderedDecoder("lenth")
    list(decoder.feed(encode_header({"lenth": 10}) + b"1234"))
    with pytest.raises(ClosedEarly, match="6 bytes"):
        decoder.finish()


@PLAIN
@given(st.binary(max_size=400), CUTS)
@pytest.mark.parametrize(
    "make",
    [
        Int32Decoder,
        AskDecoder,
        FilesRequestDecoder,
        lambda: HeaderedDecoder("lenth"),
        lambda: Int32Decoder(limit=Limit("here", 100, "bytes", "a test")),
    ],
)
def test_random_bytes_raise_documented_errors_only(make: Callable[[], Any], data: bytes, cuts: list[int]) -> None:
    decoder = make()
    try:
        for piece in split(data, cuts):
            list(decoder.feed(piece))
            if getattr(decoder, "undecided", False):
                decoder.settle()
        decoder.finish()
    except TowlineError:
        pass


@PLAIN
@given(st.text(max_size=100), CUTS, st.sampled_from(["utf-8", "gb18030"]))
def test_text_survives_any_split(text: str, cuts: list[int], encoding: str) -> None:
    text = text.encode(encoding, "ignore").decode(encoding)
    decoder = text_decoder(encoding)
    assert "".join(decoder.decode(piece) for piece in split(text.encode(encoding), cuts)) == text


def test_the_wire_of_a_header_is_plain_json_behind_its_length() -> None:
    header = {"lenth": 5, "md5": "é", "size(MB)": 0.0}
    wire = encode_header(header)
    assert json.loads(wire[4:]) == header
    assert int.from_bytes(wire[:4], "little") == len(wire) - 4
