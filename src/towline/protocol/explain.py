"""Bytes in words: every byte of a recording belongs to one named span, also where the bytes are broken.

In: bytes as they stood on the wire. Out: spans. Derived from the frame table; never raises, whatever comes in. What
the decoder would refuse is said in the span's `problem`, and the explanation goes on as far as the lengths carry it.
"""

from __future__ import annotations

from typing import NamedTuple

from towline.base.errors import MalformedFrame
from towline.base.limits import FRAME_BODY, FRAME_HEADER, Limit
from towline.base.text import printable, printable_bytes
from towline.protocol.codec import parse_header
from towline.protocol.describe import describe, describe_header, flag_names
from towline.protocol.handshake import STRANGERS, could_be_preface, stranger
from towline.protocol.table import FRAMES, MAGIC, PREFACE, PREFIX_SIZE, VERSION, FrameSpec, Kind

__all__ = ["Span", "describe", "explain"]

_VALUE = 400


class Span(NamedTuple):
    """Bytes `start` to `end` (exclusive): what they are, what they say, and what is wrong with them, if anything."""

    start: int
    end: int
    name: str
    value: str
    meaning: str
    problem: str | None = None

    def __str__(self) -> str:
        problem = f"  !! {self.problem}" if self.problem else ""
        return f"{self.start:>6}-{self.end:<6} {self.name:<12} {self.value}  ({self.meaning}){problem}"


def explain(data: bytes, *, offset: int = 0, expect_preface: bool = True) -> list[Span]:
    """Spans that cover `data` without gap or overlap, in order.

    `offset`: where `data` begins in the connection's byte stream (spans count from there). `expect_preface`: whether
    it begins with the eight bytes that begin a connection; without, it begins with a frame. Bodies and secrets are
    shown as their length.
    """
    return _Reader(bytes(data), offset).read(expect_preface)


# The prefix, field by field: name, size, meaning. The struct in `table` is the same in one piece.
_PREFIX_FIELDS = (
    ("kind", 1, "which frame this is"),
    ("flags", 1, "what is special about it"),
    ("header_len", 2, "bytes of JSON that follow the prefix"),
    ("body_len", 4, "bytes of body that follow the JSON"),
    ("stream", 4, "which stream it belongs to; 0 is the connection"),
)
assert sum(size for _, size, _ in _PREFIX_FIELDS) == PREFIX_SIZE


class _Reader:
    def __init__(self, data: bytes, offset: int) -> None:
        self._data = data
        self._offset = offset
        self._at = 0
        self._spans: list[Span] = []

    def read(self, expect_preface: bool) -> list[Span]:
        understood = not (expect_preface and self._data) or self._preface()
        while understood and self._at < len(self._data):
            understood = self._frame()
        self._rest("unexplained", "follows something that could not be understood")
        return self._spans

    # --- the beginning ---

    def _preface(self) -> bool:
        first = self._data[: len(PREFACE)]
        if not first.startswith(MAGIC[: len(first)]):
            self._stranger()
            return False
        magic = first[: len(MAGIC)]
        self._field("magic", len(MAGIC), magic.decode(), "a connection begins here", _short(magic, len(MAGIC)))
        if len(first) > len(MAGIC):
            problem = None if could_be_preface(first) else stranger(first).sentence
            self._field("version", 1, str(first[-1]), f"of the protocol; this is version {VERSION}", problem)
            return problem is None
        return True

    def _stranger(self) -> None:
        who = next((name for start, name in STRANGERS if self._data.startswith(start)), "")
        problem = stranger(self._data).sentence if who else "Not a preface, and nothing else that is known here."
        if who == "TLS":
            self._field("TLS type", 1, f"{self._data[0]:#04x}", "handshake record", problem)
            self._field("TLS version", 2, self._data[1:3].hex(), "of the record layer")
            self._field("TLS length", 2, str(int.from_bytes(self._data[3:5])), "bytes in this record")
        elif who:
            end = self._data.find(b"\n") + 1 or len(self._data)
            line = printable_bytes(self._data[:end], limit=_VALUE)
            self._field(who, end, line, "the first line of another protocol", problem)
        name = f"{who} bytes" if who else "noise"
        self._rest(name, "not Towline", problem)

    # --- frames ---

    def _frame(self) -> bool:
        """One frame, or what is there of it; False when nothing can be said about what follows."""
        numbers: dict[str, int] = {}
        for name, size, meaning in _PREFIX_FIELDS:
            part = self._data[self._at : self._at + size]
            numbers[name] = number = int.from_bytes(part)
            if len(part) < size:
                if part:
                    self._field(name, size, part.hex(), meaning, f"cut short: {len(part)} of {size} bytes are here")
                return False
            spec = FRAMES.get(numbers["kind"])
            value, problem = self._prefix_value(name, number, spec)
            said = spec.meaning if spec and name == "kind" else meaning
            self._field(name, size, value, said, problem)
            if spec is None:
                return False
        assert spec is not None
        complete = self._header(spec, numbers["header_len"])
        return self._body(spec, numbers["body_len"]) and complete

    def _prefix_value(self, name: str, number: int, spec: FrameSpec | None) -> tuple[str, str | None]:
        value, problem = str(number), None
        if spec is None:
            problem = f"There is no frame of kind {number}."
        elif name == "kind":
            value = spec.name
        elif name == "flags":
            value = " ".join(flag_names(number)) or "none"
            if number & ~int(spec.flags):
                problem = f"{spec.name} has no flag {number & ~int(spec.flags):#04x}."
        elif name == "header_len":
            problem = _above(FRAME_HEADER, number)
            if not number and spec.needs_header:
                problem = f"{spec.name} needs a header."
        elif name == "body_len":
            problem = _above(FRAME_BODY, number)
            if spec.body_size is not None and number != spec.body_size:
                problem = f"{spec.name} has a body of {spec.body_size} bytes, not {number}."
        elif number and not spec.on_stream:
            problem = f"{spec.name} belongs to the connection, not to stream {number}."
        return value, problem

    def _header(self, spec: FrameSpec, size: int) -> bool:
        part = self._data[self._at : self._at + size]
        if not part:
            return not size
        # What cannot be parsed is shown as it is, but not where a secret may be in it.
        secret = any(field.secret for field in spec.fields)
        value = f"{len(part)} bytes" if secret else printable_bytes(part, limit=_VALUE)
        meaning, problem = "JSON", _short(part, size)
        if problem is None:
            try:
                header = parse_header(part, spec.kind)
                value = printable(describe_header(spec.kind, header), limit=_VALUE)
                known = (f"{field.name}: {field.meaning}" for field in spec.fields if field.name in header)
                meaning = "; ".join(known) or "fields of the service's own"
            except MalformedFrame as error:
                problem = error.sentence
        self._field("header", size, value, meaning, problem)
        return len(part) == size

    def _body(self, spec: FrameSpec, size: int) -> bool:
        part = self._data[self._at : self._at + size]
        if not part:
            return not size
        value = f"{len(part)} byte{'s' * (len(part) != 1)}"
        if spec.kind == Kind.CREDIT and len(part) == size == spec.body_size:
            value = f"+{int.from_bytes(part)}"
        elif spec.body_size:
            value = part[:16].hex()
        self._field("body", size, value, spec.body or "this kind of frame has none", _short(part, size))
        return len(part) == size

    # --- spans ---

    def _field(self, name: str, size: int, value: str, meaning: str, problem: str | None = None) -> None:
        """A span of `size` bytes, or of as many as are left."""
        end = min(self._at + size, len(self._data))
        if end > self._at:
            start = self._offset + self._at
            self._spans.append(Span(start, self._offset + end, name, value, meaning, problem))
            self._at = end

    def _rest(self, name: str, meaning: str, problem: str | None = None) -> None:
        left = self._data[self._at :]
        self._field(name, len(left), printable_bytes(left[:64], limit=_VALUE), meaning, problem)


def _short(part: bytes, size: int) -> str | None:
    return None if len(part) == size else f"cut short: {len(part)} of {size} bytes are here"


def _above(limit: Limit, number: int) -> str | None:
    return f"Limit {limit.name} is {limit.value} {limit.unit}." if number > limit.value else None
