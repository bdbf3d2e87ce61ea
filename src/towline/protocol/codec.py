"""Frames ⇄ bytes. The decoder takes the stream in any pieces and gives the same frames."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from towline.base.errors import FrameTooLarge, MalformedFrame
from towline.base.limits import FRAME_BODY, FRAME_HEADER
from towline.protocol.table import CONNECTION_STREAM, FRAMES, PREFIX, PREFIX_SIZE, Field, FrameSpec, Type

Header: TypeAlias = dict[str, object]
Buffer: TypeAlias = bytes | bytearray | memoryview

_TYPES: dict[Type, tuple[type, ...]] = {
    Type.INT: (int,),
    Type.STR: (str,),
    Type.BOOL: (bool,),
    Type.OBJECT: (dict,),
    Type.NUMBER: (int, float),
}


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


_decode_json = json.JSONDecoder(parse_constant=_no_constant).decode
_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Frame(NamedTuple):
    """One frame. `header` is None when there is no JSON; `body` is empty when there are no bytes."""

    kind: int
    flags: int = 0
    stream: int = CONNECTION_STREAM
    header: Header | None = None
    body: Buffer = b""

    @property
    def size(self) -> int:
        """Bytes on the wire, prefix included."""
        return len(encode(self))


def encode_prefix(kind: int, flags: int, stream: int, header_len: int, body_len: int) -> bytes:
    """The twelve bytes before a frame whose header and body are sent separately."""
    return PREFIX.pack(kind, flags, header_len, body_len, stream)


def encode_header(header: Header | None) -> bytes:
    """JSON as it stands on the wire: ASCII, no spaces; lone surrogates survive as escapes."""
    return _encode_json(header).encode("ascii") if header is not None else b""


def encode(frame: Frame) -> bytes:
    """The whole frame in one piece. Raises FrameTooLarge where it would break the announced limits."""
    header = encode_header(frame.header)
    _check_sizes(len(header), len(frame.body), FRAME_HEADER.value, FRAME_BODY.value)
    return PREFIX.pack(frame.kind, frame.flags, len(header), len(frame.body), frame.stream) + header + frame.body


class Decoder:
    """Bytes in, frames out. Checks each announced length before it buffers anything.

    `max_header` and `max_body` (bytes) may be raised once the peer is trusted with more; `max_total` bounds the two
    together (before the handshake is done).
    """

    __slots__ = ("_have", "_need", "_parts", "max_body", "max_header", "max_total", "span")

    def __init__(
        self, max_header: int = FRAME_HEADER.value, max_body: int = FRAME_BODY.value, max_total: int | None = None
    ) -> None:
        self.max_header = max_header
        self.max_body = max_body
        self.max_total = max_total
        # The unfinished frame stays in the pieces it came in and is joined once: a peer that sends byte by byte
        # costs linear work.
        self._parts: list[bytes] = []
        self._have = 0
        self._need = PREFIX_SIZE
        self.span = 0  # wire bytes of the frame that came out last

    @property
    def buffered(self) -> int:
        """Bytes of an unfinished frame."""
        return self._have

    def take_rest(self) -> bytes:
        """Hand over what is buffered, for a driver that goes on by itself (a lane)."""
        rest = b"".join(self._parts)
        self._keep(b"", PREFIX_SIZE)
        return rest

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Frames that are complete now, in order; frames before a bad one come out before the error.

        Must be exhausted, or the rest of `data` is lost. Raises FrameTooLarge or MalformedFrame; the decoder is of
        no use after that.
        """
        if self._have:
            self._parts.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._parts)
            self._keep(b"", PREFIX_SIZE)
        position, end, need = 0, len(data), PREFIX_SIZE
        while end - position >= PREFIX_SIZE:
            kind, flags, header_len, body_len, stream = PREFIX.unpack_from(data, position)
            self._check(kind, flags, stream, header_len, body_len)
            body_at = position + PREFIX_SIZE + header_len
            after = body_at + body_len
            if after > end:
                need = after - position
                break
            header = parse_header(data[position + PREFIX_SIZE : body_at], kind) if header_len else None
            if header is None and FRAMES[kind].needs_header:
                raise MalformedFrame(f"{FRAMES[kind].kind.name} needs a header.")
            self.span = after - position
            position = after
            yield Frame(kind, flags, stream, header, data[body_at:after])
        self._keep(data[position:], need)

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts = [rest] if rest else []
        self._have = len(rest)
        self._need = need

    def _check(self, kind: int, flags: int, stream: int, header_len: int, body_len: int) -> None:
        check_prefix(kind, flags, stream, body_len)
        _check_sizes(header_len, body_len, self.max_header, self.max_body)
        if self.max_total is not None and PREFIX_SIZE + header_len + body_len > self.max_total:
            raise FrameTooLarge(
                f"A frame of {PREFIX_SIZE + header_len + body_len} bytes came before the handshake was done; "
                f"limit handshake_frame is {self.max_total} bytes."
            )


def check_prefix(kind: int, flags: int, stream: int, body_len: int) -> FrameSpec:
    """What can be told from the twelve bytes alone. Raises MalformedFrame."""
    spec = FRAMES.get(kind)
    if spec is None:
        raise MalformedFrame(f"There is no frame of kind {kind}.")
    if flags & ~spec.flags:
        raise MalformedFrame(f"{spec.kind.name} has no flag {flags & ~spec.flags:#04x}.")
    if not spec.on_stream and stream != CONNECTION_STREAM:
        raise MalformedFrame(f"{spec.kind.name} belongs to the connection, not to stream {stream}.")
    if spec.body_size is not None and body_len != spec.body_size:
        raise MalformedFrame(f"{spec.kind.name} has a body of {spec.body_size} bytes, not {body_len}.")
    return spec


def _check_sizes(header_len: int, body_len: int, max_header: int, max_body: int) -> None:
    if header_len > max_header:
        raise FrameTooLarge(f"Limit frame_header is {max_header} bytes; a frame announced {header_len}.")
    if body_len > max_body:
        raise FrameTooLarge(f"Limit frame_body is {max_body} bytes; a frame announced {body_len}.")


def parse_header(data: bytes, kind: int) -> Header:
    """The JSON object of a frame, its known fields type-checked. Raises MalformedFrame."""
    name = FRAMES[kind].kind.name
    try:
        header = _decode_json(data.decode("utf-8"))
    except (ValueError, RecursionError):
        raise MalformedFrame(f"The header of {name} is not JSON.") from None
    if not isinstance(header, dict):
        raise MalformedFrame(f"The header of {name} is not a JSON object.")
    for field in FRAMES[kind].fields:
        check_field(header, field, name)
    return header


def check_field(header: Header, field: Field, where: str) -> None:
    """Raise MalformedFrame when `field` is missing though required, or of another type."""
    if field.name not in header:
        if field.required:
            raise MalformedFrame(f"{where} needs the field {field.name!r}.")
        return
    value = header[field.name]
    if not isinstance(value, _TYPES[field.type]) or (isinstance(value, bool) and field.type is not Type.BOOL):
        raise MalformedFrame(f"Field {field.name!r} of {where} is not of type {field.type.value}.")
