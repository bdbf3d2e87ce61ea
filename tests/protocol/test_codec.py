"""Frames and bytes: round trips, any split, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import BadMessage, FrameTooLarge, LimitExceeded, MalformedFrame, TowlineError
from towline.base.limits import FRAME_BODY, FRAME_HEADER, HANDSHAKE_FRAME
from towline.protocol.codec import Decoder, Frame, encode, encode_header, parse_header
from towline.protocol.table import FRAMES, PREFIX, Kind, Type

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
_FIELD = {
    Type.INT: st.integers(-(1 << 40), 1 << 40),
    Type.STR: st.text(max_size=30),
    Type.BOOL: st.booleans(),
    Type.OBJECT: st.dictionaries(st.text(max_size=5), st.integers(0, 1 << 40), max_size=3),
    Type.NUMBER: st.integers(0, 1 << 40) | st.floats(allow_nan=False, allow_infinity=False),
}


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    """A valid frame of any kind."""
    spec = FRAMES[draw(st.sampled_from(sorted(FRAMES)))]
    header = {f.name: draw(_FIELD[f.type]) for f in spec.fields if f.required or draw(st.booleans())}
    if spec.open_header:
        header = draw(st.dictionaries(st.text(min_size=1, max_size=8), _JSON, max_size=4)) | header
    body = (
        draw(st.binary(max_size=200))
        if spec.body_size is None
        else draw(st.binary(min_size=spec.body_size, max_size=spec.body_size))
    )
    stream = draw(st.integers(0, 0xFFFF_FFFF)) if spec.on_stream else 0
    flags = draw(st.sampled_from([0, int(spec.flags)]))
    some = spec.needs_header or (header and draw(st.booleans()))
    return Frame(int(spec.kind), flags, stream, header if some else None, body)


def _cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def _decoded(pieces: list[bytes]) -> tuple[list[Frame], str]:
    decoder, out = Decoder(), []
    try:
        for piece in pieces:
            out.extend(decoder.feed(piece))
    except TowlineError as error:
        return out, repr(error)
    return out, f"{decoder.buffered} left"


@given(st.lists(frames(), max_size=5), st.lists(st.integers(0, 10_000), max_size=10))
def test_any_split_gives_the_same_frames(sent: list[Frame], cuts: list[int]) -> None:
    data = b"".join(map(encode, sent))
    got, end = _decoded(_cut(data, cuts))
    assert got == sent
    assert end == "0 left"


@given(st.lists(frames(), max_size=3), st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=8))
def test_any_split_of_broken_bytes_ends_the_same_way(sent: list[Frame], noise: bytes, cuts: list[int]) -> None:
    data = b"".join(map(encode, sent)) + noise
    assert _decoded(_cut(data, cuts)) == _decoded([data])


@given(st.binary(max_size=300))
def test_whatever_comes_in_only_documented_errors_come_out(data: bytes) -> None:
    _decoded([data])  # anything but a TowlineError fails the test


def test_bytes_one_by_one() -> None:
    frame = Frame(Kind.DATA, 1, 7, {"a": [1, {"b": "ü"}]}, b"x" * 100)
    decoder = Decoder()
    out = [each for byte in encode(frame) for each in decoder.feed(bytes([byte]))]
    assert out == [frame]
    assert decoder.span == frame.size


def test_a_length_of_4_gib_is_refused_before_anything_is_held() -> None:
    decoder = Decoder()
    with pytest.raises(FrameTooLarge, match=r"frame_body is 262144 bytes; a frame announced 4294967295"):
        list(decoder.feed(PREFIX.pack(Kind.DATA, 0, 0, 0xFFFF_FFFF, 1)))


def test_limits_are_exact() -> None:
    biggest = Frame(Kind.DATA, 0, 1, None, bytes(FRAME_BODY.value))
    assert list(Decoder().feed(encode(biggest))) == [biggest]
    with pytest.raises(FrameTooLarge):
        encode(Frame(Kind.DATA, 0, 1, None, bytes(FRAME_BODY.value + 1)))
    with pytest.raises(FrameTooLarge, match="frame_header"):
        list(Decoder().feed(PREFIX.pack(Kind.DATA, 0, FRAME_HEADER.value + 1, 0, 1)))
    with pytest.raises(FrameTooLarge, match="handshake_frame is 4096"):
        list(Decoder(max_total=HANDSHAKE_FRAME.value).feed(PREFIX.pack(Kind.HELLO, 0, 4096 - 11, 0, 0)))


def test_frames_before_a_bad_one_come_out_first() -> None:
    good = Frame(Kind.PING, body=bytes(8))
    got, end = _decoded([encode(good) * 2 + PREFIX.pack(99, 0, 0, 0, 0)])
    assert "no frame of kind 99" in end
    assert got == [good, good]


@pytest.mark.parametrize("step", [1_000, 20_000, 65_536, 70_000, 200_000])
def test_large_frames_in_large_pieces(step: int) -> None:
    sent = [Frame(Kind.DATA, 0, number, None, bytes([number]) * (number * 9_000)) for number in range(1, 12)]
    wire = b"".join(map(encode, sent))
    decoder, found, sizes = Decoder(), [], []
    for at in range(0, len(wire), step):
        for frame in decoder.feed(wire[at : at + step]):
            found.append(frame)
            sizes.append(decoder.span)
    assert found == sent
    assert sizes == [frame.size for frame in sent]
    assert not decoder.buffered


def test_whoever_stops_at_a_large_frame_keeps_the_rest() -> None:
    wire = encode(Frame(Kind.DATA, 0, 1, None, bytes(50_000)))
    for stop in (1, 2):  # at the frame that was begun in an earlier piece; at the one behind it
        decoder = Decoder()
        assert not list(decoder.feed(wire[:30_000]))
        frames = decoder.feed(wire[30_000:] + wire + b"the rest" * 10_000)
        for _ in range(stop):
            next(frames)
        frames.close()
        assert decoder.take_rest() == wire * (2 - stop) + b"the rest" * 10_000


def test_whoever_stops_early_keeps_the_rest() -> None:
    decoder = Decoder()
    data = encode(Frame(Kind.PING, body=bytes(8)))
    frames = decoder.feed(data + b"the rest")
    next(frames)
    frames.close()
    decoder.hold(b" and more")
    assert decoder.take_rest() == b"the rest and more"
    assert decoder.buffered == 0


@pytest.mark.parametrize(
    ("prefix", "why"),
    [
        ((0, 0, 0, 0, 0), "no frame of kind 0"),
        ((Kind.PING, 0, 0, 7, 0), "body of 8 bytes, not 7"),
        ((Kind.PING, 0, 0, 8, 3), "belongs to the connection"),
        ((Kind.DATA, 2, 0, 0, 1), "no flag 0x02"),
        ((Kind.END, 1, 0, 0, 1), "no flag 0x01"),
        ((Kind.RESET, 0, 0, 0, 1), "RESET needs a header"),
    ],
)
def test_what_twelve_bytes_tell(prefix: tuple[int, int, int, int, int], why: str) -> None:
    with pytest.raises(MalformedFrame, match=why):
        list(Decoder().feed(PREFIX.pack(*prefix) + bytes(8)))


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"1", b"null", b'"x"', b"\xff{}", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}',
     b'{"a":-1e999}', b"[" * 5000, b'{"a":' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_headers_that_are_none(text: bytes) -> None:
    with pytest.raises(MalformedFrame):
        parse_header(text, Kind.DATA)


@pytest.mark.parametrize("value", ["7", 7.0, True, None, [], {}])
def test_an_integer_is_an_integer(value: object) -> None:
    header = {"code": value, "message": "x", "retryable": False}
    with pytest.raises(MalformedFrame, match="'code' of RESET is not of type integer"):
        parse_header(encode_header(header), Kind.RESET)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(MalformedFrame, match="PROVE needs the field 'method'"):
        parse_header(b"{}", Kind.PROVE)


def test_our_own_headers_are_checked_too() -> None:
    with pytest.raises(BadMessage):
        encode_header({"a": float("nan")})
    with pytest.raises(BadMessage):
        encode_header({"a": b"bytes"})
    with pytest.raises(LimitExceeded, match="frame_header is 10 bytes"):
        encode_header({"a": "too long for that"}, 10)


def test_a_frame_prints_itself_safely() -> None:
    evil = Frame(Kind.OPEN, 0, 3, {"service": "\x1b[2J\u202e", "deep": [[[[[1]]]]]}, b"")
    assert str(evil) == r'OPEN stream 3 {service: "\x1b[2J\u202e", deep: [[[…]]]}'
    assert repr(Frame(77, 3, 5, None, b"xy")) == "<kind 77 stream 5 MORE flag 0x02 2 bytes>"
    assert str(Frame(Kind.CREDIT, body=(500).to_bytes(8))) == "CREDIT stream 0 +500"


def test_secrets_are_not_printed() -> None:
    proof = Frame(Kind.PROVE, header={"method": "invite", "secret": "deadbeef"})
    hello = Frame(Kind.HELLO, header={"lane": "ticket-ticket"})
    assert "deadbeef" not in str(proof) + repr(proof)
    assert "ticket-ticket" not in str(hello)
