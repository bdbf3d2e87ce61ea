"""Pure codecs of the dialects that have boundaries: bytes to messages and back, whatever the reads cut.

Each decoder is fed what one read brought and yields what became complete (iterate to the end: the good messages
before a bad one come out, then the error is raised). For any split of the same bytes the messages are the same. Where
a dialect itself is ambiguous (decimal text without an end; a file name without one) the decoder says `undecided`, and
`settle()` is called once the line has been quiet.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from towline.base.errors import ClosedEarly, DialectError
from towline.base.limits import Limit
from towline.base.text import printable_bytes
from towline.classic.dialects import Endian
from towline.classic.limits import FILE, HEADER, LENGTH_DIGITS, MESSAGE, NAME

INT32_SIZE = 4
_INT32_MAX = 2**31 - 1
# Neither byte occurs in a file name in UTF-8 or GBK, and one of them is in every small or negative length.
_LENGTH_MARKS = (0x00, 0xFF)


def encode_length(count: int, endian: Endian = "little") -> bytes:
    """`count` as C `int`, what `struct.pack('i', count)` gives on the usual machines."""
    if count > _INT32_MAX:
        raise DialectError(f"{count} bytes do not fit a signed 32-bit length.")
    return count.to_bytes(INT32_SIZE, endian, signed=True)


def decode_length(data: bytes, endian: Endian, limit: Limit) -> int:
    """The length in 4 bytes. Raises DialectError when negative, LimitExceeded when above `limit`."""
    count = int.from_bytes(data, endian, signed=True)
    if count < 0:
        raise DialectError(f"A length of {count} was announced; a length is not negative.")
    limit.check(count, what="announced length; is the byte order right?")
    return count


def encode_int32(payload: bytes, endian: Endian = "little") -> bytes:
    """One message of the `int32` dialect."""
    return encode_length(len(payload), endian) + payload


def encode_header(header: dict[str, Any], endian: Endian = "little") -> bytes:
    """A JSON header behind its length, as the `*-json` dialects have it."""
    return encode_int32(json.dumps(header).encode(), endian)


class Int32Decoder:
    """`[int32 n][n bytes]`, again and again."""

    def __init__(self, endian: Endian = "little", limit: Limit = MESSAGE) -> None:
        self._endian = endian
        self._limit = limit
        self._held = bytearray()

    @property
    def held(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Messages that became complete. Raises DialectError or LimitExceeded; the decoder is dead after that."""
        self._held += data
        while (length := self._announced()) is not None and len(self._held) >= INT32_SIZE + length:
            message = bytes(self._held[INT32_SIZE : INT32_SIZE + length])
            del self._held[: INT32_SIZE + length]
            yield message

    def finish(self) -> None:
        """The end of the stream: raises ClosedEarly when it cut a message."""
        if self._held:
            length = self._announced()
            whole = "a length of 4" if length is None else f"a message of {length}"
            got = len(self._held) - (0 if length is None else INT32_SIZE)
            raise ClosedEarly(f"The other side closed after {got} bytes of {whole} bytes.")

    def _announced(self) -> int | None:
        if len(self._held) < INT32_SIZE:
            return None
        return decode_length(bytes(self._held[:INT32_SIZE]), self._endian, self._limit)


class Announced(Struct, frozen=True):
    """A length arrived as text; the sender now waits for any acknowledgement."""

    length: int


class AskDecoder:
    """`"n"`, our acknowledgement, `[n bytes]`: the length ends only by the sender's silence, so by `settle()`."""

    def __init__(self, limit: Limit = MESSAGE) -> None:
        self._limit = limit
        self._held = bytearray()
        self._length: int | None = None

    @property
    def held(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._held)

    @property
    def undecided(self) -> bool:
        """Digits have come and more might."""
        return self._length is None and bool(self._held)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Payloads that became complete (one at most; digits behind it are the next length)."""
        self._held += data
        if self._length is not None:
            if len(self._held) < self._length:
                return
            payload = bytes(self._held[: self._length])
            del self._held[: self._length]
            self._length = None
            yield payload
        self._check_digits()

    def settle(self) -> Announced:
        """The sender has gone quiet: its digits are the whole length. Send the acknowledgement now."""
        text = bytes(self._held).strip()
        if not text:
            raise DialectError("A length in decimal text was expected.")
        self._limit.check(int(text), what="announced length")
        self._length = int(text)
        self._held.clear()
        return Announced(self._length)

    def finish(self) -> None:
        """The end of the stream: raises ClosedEarly when it cut a message."""
        if self._length is not None:
            raise ClosedEarly(f"The other side closed after {len(self._held)} of {self._length} bytes.")
        if self._held:
            raise ClosedEarly("The other side closed after a length, without its payload.")

    def _check_digits(self) -> None:
        text = bytes(self._held).strip()
        if text and not text.isdigit():
            shown = printable_bytes(text, limit=40)
            raise DialectError(f"A length in decimal text was expected, {shown!r} came.")
        LENGTH_DIGITS.check(len(self._held), what="length as text")


class Header(Struct, frozen=True):
    """A JSON header arrived; `size` bytes of payload follow it."""

    fields: dict[str, Any]
    size: int


class Chunk(Struct, frozen=True):
    """A piece of the payload; where it is cut means nothing."""

    data: bytes


class End(Struct, frozen=True):
    """The payload is complete."""


HeaderedEvent = Header | Chunk | End


class HeaderedDecoder:
    """`[int32 h][h bytes JSON][size bytes]`, again and again; `size_key` names the size in the header.

    With `size_key` None the header stands alone. An empty header `{}` has no payload.
    """

    def __init__(self, size_key: str | None, endian: Endian = "little", limit: Limit = FILE) -> None:
        self._size_key = size_key
        self._endian = endian
        self._limit = limit
        self._held = bytearray()
        self._left: int | None = None  # bytes of payload still to come; None between messages
        self._step: dict[bool, Callable[[], list[HeaderedEvent]]] = {True: self._header, False: self._payload}

    @property
    def idle(self) -> bool:
        """Between two messages, with nothing held."""
        return self._left is None and not self._held

    def feed(self, data: bytes) -> Iterator[HeaderedEvent]:
        """What `data` completes. Raises DialectError or LimitExceeded; the decoder is dead after that."""
        self._held += data
        while new := self._step[self._left is None]():
            yield from new

    def feed_one(self, data: bytes) -> tuple[list[HeaderedEvent], bytes]:
        """Like `feed`, but stops behind the first End; what comes after it is handed back."""
        self._held += data
        events: list[HeaderedEvent] = []
        while new := self._step[self._left is None]():
            events += new
            if isinstance(new[-1], End):
                break
        else:
            return events, b""
        rest = bytes(self._held)
        self._held.clear()
        return events, rest

    def finish(self) -> None:
        """The end of the stream: raises ClosedEarly when it cut a message."""
        if self._left is not None:
            raise ClosedEarly(f"The other side closed with {self._left} bytes of the payload still missing.")
        if self._held:
            raise ClosedEarly(f"The other side closed after {len(self._held)} bytes of a header.")

    def _header(self) -> list[HeaderedEvent]:
        if len(self._held) < INT32_SIZE:
            return []
        length = decode_length(bytes(self._held[:INT32_SIZE]), self._endian, HEADER)
        if len(self._held) < INT32_SIZE + length:
            return []
        fields = _json_object(bytes(self._held[INT32_SIZE : INT32_SIZE + length]))
        size = self._size_of(fields)
        del self._held[: INT32_SIZE + length]
        if size == 0:
            return [Header(fields, 0), End()]
        self._left = size
        return [Header(fields, size)]

    def _payload(self) -> list[HeaderedEvent]:
        assert self._left is not None
        data = bytes(self._held[: self._left])
        if not data:
            return []
        del self._held[: len(data)]
        self._left -= len(data)
        if self._left:
            return [Chunk(data)]
        self._left = None
        return [Chunk(data), End()]

    def _size_of(self, fields: dict[str, Any]) -> int:
        if self._size_key is None or not fields:
            return 0
        size = fields.get(self._size_key)
        if type(size) is not int:
            raise DialectError(f"The header has no whole number {self._size_key!r}.")
        if size < 0:
            raise DialectError(f"The header says {self._size_key!r}: {size}; a size is not negative.")
        self._limit.check(size, what=f"{self._size_key!r} in the header")
        return size


class Wanted(Struct, frozen=True):
    """A download request: the bytes of a file name."""

    name: bytes


@dataclass(slots=True)
class FilesRequestDecoder:
    """The server's side of `files-json`: one read of text is a name, a length before JSON is an upload.

    The rule: an upload has a byte 00 or FF among its first four (header lengths are below 64 KiB, so two bytes of
    the length are 00; negative ones have FF), a name in UTF-8 or GBK never has. Three bytes decide; after one or two
    without such a byte the decoder is `undecided` until more comes or the line stays quiet.
    """

    endian: Endian = "little"
    _held: bytes = b""
    _upload: HeaderedDecoder | None = None

    @property
    def undecided(self) -> bool:
        """One or two bytes have come that may be a short name or the start of a length."""
        return bool(self._held)

    def feed(self, data: bytes) -> Iterator[Wanted | HeaderedEvent]:
        """Requests and pieces of an upload in what one read brought."""
        data, self._held = self._held + data, b""
        while data:
            if self._upload is None and not any(byte in data[:4] for byte in _LENGTH_MARKS):
                if len(data) < 3:
                    self._held = data
                else:
                    yield _wanted(data)
                return
            self._upload = self._upload or HeaderedDecoder("lenth", self.endian)
            new, data = self._upload.feed_one(data)
            if new and isinstance(new[-1], End):
                self._upload = None
            yield from new

    def settle(self) -> list[Wanted | HeaderedEvent]:
        """The line has been quiet: one or two bytes are a name after all."""
        data, self._held = self._held, b""
        return [_wanted(data)] if data else []

    def finish(self) -> list[Wanted | HeaderedEvent]:
        """The end of the stream: a short name, or ClosedEarly when it cut an upload."""
        if self._upload is not None:
            self._upload.finish()
        return self.settle()


def text_decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Text in reads of any cut: a character over a boundary is held back, an impossible byte becomes U+FFFD."""
    return codecs.getincrementaldecoder(encoding)(errors="replace")


def _wanted(data: bytes) -> Wanted:
    name = data.removesuffix(b"\n").removesuffix(b"\r")
    NAME.check(len(name), what="file name")
    return Wanted(name)


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise DialectError(f"The header is not JSON: {printable_bytes(data, limit=40)!r}.") from None
    if not isinstance(fields, dict):
        raise DialectError("The header is not a JSON object.")
    return fields
