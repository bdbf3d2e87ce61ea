"""What is in a record of a room's log, and on the wire. Pure, both ways.

A record's payload is a JSON object without what the keeper adds (epoch, seq, time), so that the same message said
again is the same bytes. On the wire each record is one line: `{"epoch":…,"seq":…,"time":…,` and the payload's rest.
A batch is such lines in the body of one message; a gap is a line with `gap`, a signal one with `signal`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any, ClassVar, TypeAlias, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from towline.base.errors import BadMessage, PeerError
from towline.base.text import printable
from towline.journal import Cursor, Gap, Record
from towline.services.rooms.limits import ROOM_ID, ROOM_NICK, ROOM_TEXT

RECORD_KIND = 1  # of the journal: a record of a room; what it says is in its payload
SAID = ("message", "me")
KINDS = (*SAID, "edit", "delete", "topic", "notice")
_FROM_PEOPLE = (*SAID, "edit", "delete")
_quoted = json.encoder.encode_basestring  # a JSON string that is not kept to ASCII, as the encoder below makes it
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

Fields: TypeAlias = dict[str, Any]


Seq: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 62)]
Epoch: TypeAlias = Annotated[int, Meta(ge=0)]
Moment: TypeAlias = Annotated[float, Meta(ge=0, le=1e11)]  # seconds since 1970, in years that a clock can show


class File(TypedDict):
    """What was uploaded for a room."""

    name: Annotated[str, Meta(max_length=299)]
    path: Annotated[str, Meta(max_length=4999)]
    bytes: Seq


class Entry(Struct, frozen=True, rename={"sender": "from"}):
    """One record of a room. `time`: seconds since 1970, by the node's clock; `sender` is the node's name for whoever
    said it; `ref`: the seq that an edit or delete refers to; `file`: what was uploaded (name, path, bytes)."""

    epoch: Epoch
    seq: Seq
    time: Moment
    id: str
    sender: str
    kind: str
    text: str
    ref: Seq = 0
    nick: str = ""
    file: File | None = None
    removed: bool = False

    @property
    def next(self) -> Cursor:
        """Where reading goes on."""
        return Cursor(self.epoch, self.seq + 1)


class Missed(Struct, frozen=True):
    """Records from `from_` up to, not including, `next` cannot be had any more, and why."""

    from_: Cursor
    next: Cursor
    reason: str
    kind: ClassVar[str] = "gap"
    sender: ClassVar[str] = ""

    @property
    def text(self) -> str:
        """For people."""
        match self.reason:
            case "retention":
                return f"Older messages are not kept any more; it goes on at {self.next.seq}."
            case "restored" | "unknown-epoch":
                return f"The room went back to an older state; it goes on at {self.next.seq}."
            case _:
                count = self.next.seq - self.from_.seq
                missing = "One message is" if count == 1 else f"{count} messages are"
                return f"{missing} missing ({self.reason}); it goes on at {self.next.seq}."


class Signal(Struct, frozen=True):
    """Something that is in no log: `presence`, `people`, `typing`."""

    signal: str
    fields: Fields = field(default_factory=dict)


Item: TypeAlias = Entry | Missed


class Post(Struct, frozen=True):
    """What somebody wants to say: checked."""

    room: str
    id: str
    kind: str
    text: str
    ref: int
    nick: str
    file: Fields | None

    def payload(self, person: str) -> bytes:
        """The record's bytes; the same for the same post."""
        # Put together by hand, for this is done for every message: a third of what the encoder of objects takes.
        ref = f',"ref":{self.ref}' if self.ref else ""
        nick = f',"nick":{_quoted(self.nick)}' if self.nick else ""
        file = f',"file":{_encode(self.file)}' if self.file is not None else ""
        said = f'{{"id":{_quoted(self.id)},"from":{_quoted(person)},"kind":"{self.kind}","text":{_quoted(self.text)}'
        return f"{said}{ref}{nick}{file}}}".encode()

    def key(self, owner: bytes) -> bytes:
        """The journal's id; `owner` as `owner_key`, so that nobody can use up the ids of somebody else."""
        return owner + self.id.encode()


def owner_key(person: str) -> bytes:
    """What the journal's ids of one person begin with."""
    return sha256(person.encode()).digest()[:12]


# --- what is said ---


def parse_post(body: bytes) -> Post:
    """One request to say something. Raises BadMessage, LimitExceeded."""
    fields = _object(body)
    kind = _text(fields, "kind", "message")
    if kind not in _FROM_PEOPLE:
        raise BadMessage(f"A message's kind is none of {', '.join(_FROM_PEOPLE)}.")
    text, id_ = _text(fields, "text", ""), _text(fields, "id")
    ROOM_TEXT.check(len(utf8(text)), what="text of one message")
    ROOM_ID.check(len(utf8(id_)))
    if not id_:
        raise BadMessage("A message needs an id.")
    if kind in SAID and not text:
        raise BadMessage("A message needs a text.")
    ref = fields.get("ref", 0)
    if not isinstance(ref, int) or isinstance(ref, bool) or not 0 <= ref < 1 << 62 or (ref == 0) != (kind in SAID):
        raise BadMessage("An edit or delete refers to a seq, and nothing else does.")
    return Post(_text(fields, "room"), id_, kind, text, ref, nick_of(_text(fields, "nick", "")), _file(fields))


def nick_of(text: str) -> str:
    """Checked. Raises LimitExceeded."""
    ROOM_NICK.check(len(text))
    utf8(text)
    return text


def said(room: str, id_: str, kind: str, text: str, **more: object) -> bytes:
    """The request that `parse_post` takes."""
    return _encode({"room": room, "id": id_, "kind": kind, "text": text, **more}).encode("utf-8", "surrogatepass")


def note_payload(kind: str, person: str, text: str, **more: object) -> bytes:
    """A record that the node itself writes: topic, notice, delete."""
    return _encode({"id": "", "from": person, "kind": kind, "text": text, **more}).encode()


def fields_of(payload: bytes) -> Fields:
    """A payload that we wrote ourselves."""
    found = json.loads(payload)
    assert isinstance(found, dict)
    return found


# --- the wire ---


def record_line(record: Record, *, removed: bool = False) -> bytes:
    """One record as a line."""
    payload = record.payload
    if removed:
        payload = _encode({**fields_of(payload), "text": "", "file": None, "removed": True}).encode()
    seconds, micros = divmod(record.time_ns // 1000, 1_000_000)
    return b'{"epoch":%d,"seq":%d,"time":%d.%06d,' % (record.epoch, record.seq, seconds, micros) + payload[1:]


def gap_line(gap: Gap) -> bytes:
    """A gap as a line."""
    return _encode({"gap": gap.reason, "from": [*gap.from_], "to": [*gap.to]}).encode()


def signal_line(signal: str, **fields: object) -> bytes:
    """A signal as a line."""
    return _encode({"signal": signal, **fields}).encode()


def parse_lines(body: bytes) -> Iterable[Item | Signal]:
    """A batch. Whoever sent it may be anybody: each field has its type and its range. Raises PeerError."""
    for line in body.split(b"\n"):
        try:
            yield _parse_line(line)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise PeerError("The node's batch of messages cannot be understood.") from None


def _parse_line(line: bytes) -> Item | Signal:
    which = _decode(line, _Which)
    if which.seq is not None:
        return _decode(line, Entry)
    if which.gap is not None:
        gap = _decode(line, _GapLine)
        return Missed(Cursor(*gap.from_), Cursor(*gap.to), gap.gap)
    fields: Fields = _decode(line, dict[str, Any])
    signal = _decode(line, _SignalLine).signal
    msgspec.convert(fields, _SIGNALS.get(signal, _SignalLine))
    return Signal(signal, fields)


_T = TypeVar("_T")


def _decode(line: bytes, kind: type[_T]) -> _T:
    return msgspec.json.decode(line, type=kind)


class _Which(Struct):
    seq: Any = None
    gap: Any = None


class _GapLine(Struct):
    gap: str
    from_: tuple[Epoch, Seq] = field(name="from")
    to: tuple[Epoch, Seq]


class _SignalLine(Struct):
    signal: str


class _Somebody(Struct):
    who: str
    state: str = "here"


class _People(Struct):
    people: list[_Somebody]


class _Typing(Struct):
    who: str


_SIGNALS: dict[str, Any] = {"people": _People, "presence": _Somebody, "typing": _Typing}


# --- fields ---


def utf8(text: str) -> bytes:
    """Raises BadMessage where JSON smuggled in half of a surrogate pair."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadMessage("The text is not valid Unicode (UTF-8).") from None


def _object(body: bytes) -> Fields:
    try:
        found = json.loads(body.decode())
    except UnicodeDecodeError:
        raise BadMessage("The message is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise BadMessage("The message is not JSON.") from None
    if not isinstance(found, dict):
        raise BadMessage("The message is not a JSON object.")
    return found


def _text(fields: Fields, name: str, default: str | None = None) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str):
        raise BadMessage(f"The message needs the text {name!r}.")
    return value


def _file(fields: Fields) -> Fields | None:
    match fields.get("file"):
        case None:
            return None
        case {"name": str(name), "path": str(path), "bytes": int(size)} if len(name) < 300 and len(path) < 5000:
            utf8(name), utf8(path)
            return {"name": name, "path": path, "bytes": size}
        case _:
            raise BadMessage("A file needs a name, a path and its bytes.")


def shown(text: str) -> str:
    """For error sentences."""
    return printable(text, limit=80)
