"""Bytes in words: every byte has one span, whatever the bytes are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.protocol.codec import Frame, encode
from towline.protocol.explain import Span, describe, explain
from towline.protocol.table import PREFACE, PREFIX, Kind

HELLO = Frame(Kind.HELLO, header={"agent": "x", "nonce": "ab" * 32, "limits": {}, "lane": "ticket"})


def covered(spans: list[Span], start: int, end: int) -> bool:
    return [s.start for s in spans] == [start, *[s.end for s in spans[:-1]]] and (
        spans[-1].end if spans else start
    ) == end


@given(st.binary(max_size=300), st.booleans(), st.integers(0, 1 << 40))
def test_every_byte_of_noise_has_one_span(data: bytes, expect_preface: bool, offset: int) -> None:
    spans = explain(data, offset=offset, expect_preface=expect_preface)
    assert covered(spans, offset, offset + len(data)) if data else spans == []


@given(st.integers(0, 300), st.integers(0, 255), st.integers(0, 400))
def test_every_byte_of_a_damaged_recording_has_one_span(at: int, value: int, length: int) -> None:
    data = bytearray(PREFACE + encode(HELLO) + encode(Frame(Kind.DATA, 1, 3, {"a": 1}, b"xyz")) * 3)
    data[at % len(data)] = value
    damaged = bytes(data[:length])
    assert covered(explain(damaged), 0, len(damaged)) or not damaged


def test_a_recording_in_words() -> None:
    data = (
        PREFACE + encode(Frame(Kind.DATA, 1, 3, {"a": 1}, b"xyz")) + encode(Frame(Kind.CREDIT, body=(77).to_bytes(8)))
    )
    spans = explain(data)
    assert [(s.name, s.value) for s in spans] == [
        ("magic", "TOWLINE"), ("version", "1"),
        ("kind", "DATA"), ("flags", "MORE"), ("header_len", "7"), ("body_len", "3"), ("stream", "3"),
        ("header", "{a: 1}"), ("body", "3 bytes"),
        ("kind", "CREDIT"), ("flags", "none"), ("header_len", "0"), ("body_len", "8"), ("stream", "0"),
        ("body", "+77"),
    ]  # fmt: skip
    assert not any(s.problem for s in spans)
    assert explain(data[8:], offset=8, expect_preface=False) == spans[2:]


@pytest.mark.parametrize(
    ("data", "name", "problem"),
    [
        (PREFACE + PREFIX.pack(6, 0, 0, 0xFFFF_FFFF, 1), "body_len", "Limit frame_body is 262144 bytes."),
        (PREFACE + PREFIX.pack(6, 0, 0xFFFF, 0, 1), "header_len", "Limit frame_header is 16384 bytes."),
        (PREFACE + b"\x63", "kind", "There is no frame of kind 99."),
        (PREFACE + PREFIX.pack(10, 1, 0, 8, 0), "flags", "PING has no flag 0x01."),
        (PREFACE + PREFIX.pack(10, 0, 0, 7, 0), "body_len", "PING has a body of 8 bytes, not 7."),
        (PREFACE + PREFIX.pack(10, 0, 0, 8, 5), "stream", "PING belongs to the connection, not to stream 5."),
        (PREFACE + PREFIX.pack(9, 0, 0, 0, 5), "header_len", "RESET needs a header."),
        (PREFACE + PREFIX.pack(6, 0, 2, 0, 5) + b"{]", "header", "The header of DATA is not JSON."),
        (PREFACE + PREFIX.pack(9, 0, 2, 0, 5) + b"{}", "header", "RESET needs the field 'code'."),
        (PREFACE + PREFIX.pack(6, 0, 0, 9, 5) + b"abc", "body", "cut short: 3 of 9 bytes are here"),
        (PREFACE + b"\x06\x00\x00", "header_len", "cut short: 1 of 2 bytes are here"),
        (PREFACE[:3], "magic", "cut short: 3 of 7 bytes are here"),
        (b"TOWLINE\x02rest", "version", "speaks version 2"),
        (b"GET / HTTP/1.1\r\n\r\n", "HTTP", "speaks HTTP"),
        (b"SSH-2.0-x\r\n", "SSH", "speaks SSH"),
        (b"\x16\x03\x01\x00\x05hello", "TLS type", "speaks TLS"),
        (b"\x00\x01\x02", "noise", "nothing else that is known"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_wrong(data: bytes, name: str, problem: str) -> None:
    wrong = [span for span in explain(data) if span.problem]
    assert wrong[0].name == name
    assert problem in str(wrong[0].problem)
    assert problem in str(wrong[0])


def test_secrets_are_shown_as_their_length() -> None:
    proof = encode(Frame(Kind.PROVE, header={"method": "invite", "secret": "5ec4e7"}))
    for data in (encode(HELLO), proof, proof[:-3], proof.replace(b"}", b"]")):
        words = "\n".join(map(str, explain(data, expect_preface=False)))
        assert "ticket" not in words.replace("one-time ticket", "")
        assert "5ec4e7" not in words
    assert "secret: <6 characters>" in "\n".join(map(str, explain(proof, expect_preface=False)))


def test_bodies_are_shown_only_on_request() -> None:
    frame = Frame(Kind.DATA, 0, 1, None, b"\x1b[31m" + bytes(100))
    assert describe(frame) == "DATA stream 1 105 bytes"
    assert describe(frame, body=True).startswith(r"DATA stream 1 105 bytes b'\x1b[31m\x00")
    assert describe(frame, body=True).isprintable()
