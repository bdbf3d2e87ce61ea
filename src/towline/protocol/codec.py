"""Frames ⇄ bytes. The decoder takes the stream in any pieces and gives the same frames."""

from __future__ import annotations

import json
import math
from collections.abc import Generator
from typing import NamedTuple, TypeAlias

from towline.base.errors import BadMessage, FrameTooLarge, LimitExceeded, MalformedFrame
from towline.base.limits import FRAME_BODY, FRAME_HEADER, KIB
from towline.protocol.describe import describe
from towline.protocol.table import CONNECTION_STREAM, FRAMES, PREFIX, PREFIX_SIZE, Field, FrameSpec, Kind, Type

Header: TypeAlias = dict[str, object]
Buffer: TypeAlias = bytes | bytearray | memoryview

_TYPES: dict[Type, tuple[type, ...]] = {
    Type.INT: (int,),
    Type.STR: (str,),
    Type.BOOL: (bool,),
    Type.OBJECT: (dict,),
    Type.NUMBER: (int, float),
}


# Plain numbers for the paths that every frame takes: arithmetic on enumerations costs a microsecond.
_DATA = int(Kind.DATA)
_FLAG_MASKS = {kind: ~int(spec.flags) for kind, spec in FRAMES.items()}
_BODY_SIZES = {kind: spec.body_size for kind, spec in FRAMES.items()}
_NEEDS_HEADER = frozenset(kind for kind, spec in FRAMES.items() if spec.needs_header)


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999 is JSON, but could not be written back
        raise ValueError(f"{text} is too large")
    return number


_json = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
_encode_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_tuple = tuple.__new__
_LARGE = 16 * KIB  # what is worth a call not to copy it


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

    def __str__(self) -> str:
        return describe(self)

    def __repr__(self) -> str:
        return f"<{describe(self)}>"


def encode_prefix(kind: int, flags: int, stream: int, header_len: int, body_len: int) -> bytes:
    """The twelve bytes before a frame whose header and body are sent separately."""
    return PREFIX.pack(kind, flags, header_len, body_len, stream)


def encode_header(header: Header | None, limit: int | None = None) -> bytes:
    """JSON as it stands on the wire: ASCII, no spaces; lone surrogates survive as escapes.

    `limit` (bytes): what the other side takes. Raises LimitExceeded above it, BadMessage if there is no JSON for it.
    """
    if header is None:
        return b""
    try:
        encoded = _encode_json(header).encode("ascii")
    except (ValueError, TypeError, RecursionError) as error:
        raise BadMessage(f"A header cannot be written as JSON: {error}.") from None
    if limit is not None and len(encoded) > limit:
        raise LimitExceeded(f"Limit frame_header is {limit} bytes at the other side; {len(encoded)} were to be sent.")
    return encoded


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

    def hold(self, data: bytes) -> None:
        """Add `data` to what `take_rest` will hand over, undecoded."""
        self._parts.append(data)
        self._have += len(data)

    def feed(self, data: bytes) -> Generator[Frame, None, None]:
        """Frames that are complete now, in order; frames before a bad one come out before the error.

        Whoever stops early must `close` the generator: the rest is kept then. Raises FrameTooLarge or
        MalformedFrame; the decoder is of no use after that.
        """
        position = 0
        if self._have:
            position = self._need - self._have
            if self._need > PREFIX_SIZE and len(data) - position > _LARGE:
                yield from self._complete(data, position)
            else:
                self._parts.append(data)
                self._have += len(data)
                if self._have < self._need:
                    return
                data, position = b"".join(self._parts), 0
                self._keep(b"", PREFIX_SIZE)
        end, need = len(data), PREFIX_SIZE
        unpack_from = PREFIX.unpack_from
        try:
            while end - position >= PREFIX_SIZE:
                kind, flags, header_len, body_len, stream = unpack_from(data, position)
                if kind != _DATA or flags > 1:
                    check_prefix(kind, flags, stream, body_len)
                if header_len > self.max_header or body_len > self.max_body or self.max_total is not None:
                    self._check_sizes(header_len, body_len)
                body_at = position + PREFIX_SIZE + header_len
                after = body_at + body_len
                if after > end:
                    need = after - position
                    break
                header = None
                if header_len:
                    header = parse_header(data[position + PREFIX_SIZE : body_at], kind)
                elif kind in _NEEDS_HEADER:
                    raise MalformedFrame(f"{FRAMES[kind].name} needs a header.")
                self.span = after - position
                position = after
                # Half the price of Frame(...); this line runs once for every frame.
                yield _tuple(Frame, (kind, flags, stream, header, data[body_at:after]))
        finally:
            if position < end:
                self._keep(data[position:], need)

    def _complete(self, data: bytes, missing: int) -> Generator[Frame, None, None]:
        """The unfinished frame, without a copy of the much that stands behind it."""
        whole = b"".join([*self._parts, data[:missing]])
        self._keep(b"", PREFIX_SIZE)
        try:
            yield from self.feed(whole)
        except GeneratorExit:
            self._keep(data[missing:], PREFIX_SIZE)
            raise

    def _keep(self, rest: bytes, need: int) -> None:
        self._parts = [rest] if rest else []
        self._have = len(rest)
        self._need = need

    def _check_sizes(self, header_len: int, body_len: int) -> None:
        _check_sizes(header_len, body_len, self.max_header, self.max_body)
        size = PREFIX_SIZE + header_len + body_len
        if self.max_total is not None and size > self.max_total:
            raise FrameTooLarge(
                f"A frame of {size} bytes came before the handshake was done; "
                f"limit handshake_frame is {self.max_total} bytes."
            )


def check_prefix(kind: int, flags: int, stream: int, body_len: int) -> FrameSpec:
    """What can be told from the twelve bytes alone. Raises MalformedFrame."""
    spec = FRAMES.get(kind)
    if spec is None:
        raise MalformedFrame(f"There is no frame of kind {kind}.")
    if flags & _FLAG_MASKS[kind]:
        raise MalformedFrame(f"{spec.name} has no flag {flags & _FLAG_MASKS[kind]:#04x}.")
    if stream != CONNECTION_STREAM and not spec.on_stream:
        raise MalformedFrame(f"{spec.name} belongs to the connection, not to stream {stream}.")
    if _BODY_SIZES[kind] is not None and body_len != _BODY_SIZES[kind]:
        raise MalformedFrame(f"{spec.name} has a body of {_BODY_SIZES[kind]} bytes, not {body_len}.")
    return spec


def _check_sizes(header_len: int, body_len: int, max_header: int, max_body: int) -> None:
    if header_len > max_header:
        raise FrameTooLarge(f"Limit frame_header is {max_header} bytes; a frame announced {header_len}.")
    if body_len > max_body:
        raise FrameTooLarge(f"Limit frame_body is {max_body} bytes; a frame announced {body_len}.")


def parse_header(data: bytes, kind: int) -> Header:
    """The JSON object of a frame, its known fields type-checked. Raises MalformedFrame."""
    spec = FRAMES[kind]
    try:
        text = data.decode("utf-8")
        header, end = _json.raw_decode(text) if text.startswith("{") else (None, 0)
        if end != len(text):  # white space around it, or no JSON
            header = _json.decode(text)
    except (ValueError, RecursionError):
        raise MalformedFrame(f"The header of {spec.name} is not JSON.") from None
    if not isinstance(header, dict):
        raise MalformedFrame(f"The header of {spec.name} is not a JSON object.")
    for field in spec.fields:
        check_field(header, field, spec)
    return header


def check_field(header: Header, field: Field, where: FrameSpec) -> None:
    """Raise MalformedFrame when `field` is missing though required, or of another type."""
    if field.name not in header:
        if field.required:
            raise MalformedFrame(f"{where.name} needs the field {field.name!r}.")
        return
    value = header[field.name]
    if not isinstance(value, _TYPES[field.type]) or (isinstance(value, bool) and field.type is not Type.BOOL):
        raise MalformedFrame(f"Field {field.name!r} of {where.name} is not of type {field.type.value}.")
