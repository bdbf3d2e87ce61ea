"""What is in a record of a room's log, and on the wire. Pure, both ways.

A record's payload is a JSON object without what the keeper adds (epoch, seq, time), so that the same message said
again is the same bytes. On the wire each record is one line: `{"epoch":…,"seq":…,"time":…,` and the payload's rest.
A batch is such lines in the body of one message; a gap is a line with `gap`, a signal one with `signal`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Annotated, Any, ClassVar, NamedTuple, TypeAlias, TypedDict, TypeVar

import msgspec
from msgspec import Meta, Struct, field
from msgspec.json import Decoder, Encoder
from msgspec.structs import replace

from towline.base.errors import BadMessage, PeerError, TowlineError
from towline.base.text import printable
from towline.journal import Cursor, Gap, Record
from towline.services.rooms.limits import ROOM_ID, ROOM_NICK, ROOM_TEXT

RECORD_KIND = 1  # of the journal: a record of a room; what it says is in its payload
SAID = ("message", "me")
KINDS = (*SAID, "edit", "delete", "topic", "notice")
_FROM_PEOPLE = (*SAID, "edit", "delete")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

_CERTAINLY_FITS = ROOM_TEXT.value // 4  # characters
_NO_UNICODE = "The text is not valid Unicode (UTF-8)."

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


class Post(Struct, frozen=True, omit_defaults=True, gc=False):
    """What somebody wants to say: one line of a request. Checked where `parse_posts` gives it."""

    room: str
    id: str
    kind: str = "message"
    text: str = ""
    ref: int = 0
    nick: str = ""
    file: Fields | None = None

    @property
    def is_plain(self) -> bool:
        """Nothing but a text of moderate length, as nearly all are: there is nothing to look up or to measure."""
        return (
            self.kind == "message"
            and 0 < len(self.text) <= _CERTAINLY_FITS
            and 0 < len(self.id) <= ROOM_ID.value
            and self.id.isascii()
            and not (self.ref or self.nick)
            and self.file is None
        )


class Answer(Struct, frozen=True, omit_defaults=True, gc=False):
    """To messages: the position of the first of `ids`, which are kept in a row; or to the one with `id` a refusal."""

    epoch: Epoch = 0
    seq: Seq = 0
    ids: list[str] = field(default_factory=list)
    id: str | None = None
    error: int = 0
    name: str = ""
    sentence: str = ""
    retryable: bool = False


_posts, _answers = Decoder(Post), Decoder(Answer)
_encoder = Encoder()


class Refusal(NamedTuple):
    """A message that is not taken, and why; its id is empty where it cannot be told."""

    id: str
    error: TowlineError


class _Payload(Struct, frozen=True, omit_defaults=True, gc=False):
    """A record's payload, in this order."""

    id: str
    sender: str = field(name="from")
    kind: str
    text: str
    ref: int = 0
    nick: str = ""
    file: Fields | None = None


def entries_of(posts: Iterable[Post], person: str, owner: bytes) -> list[tuple[bytes, bytes]]:
    """What the journal keeps of each: its id and its bytes, which are the same for the same post. The journal's id
    begins with `owner`, see `owner_key`, so that nobody can use up the ids of somebody else."""
    encode = _encoder.encode
    return [
        (
            owner + post.id.encode(),
            encode(_Payload(post.id, person, post.kind, post.text, post.ref, post.nick, post.file)),
        )
        for post in posts
    ]


def owner_key(person: str) -> bytes:
    """What the journal's ids of one person begin with."""
    return sha256(person.encode()).digest()[:12]


# --- what is said ---


def parse_posts(body: bytes, lines: int) -> tuple[list[Post], list[Refusal]]:
    """What is said in that many lines, all decoded in one go; what cannot be taken is refused by itself."""
    refused: list[Refusal] = []
    try:
        posts = _posts.decode_lines(body)
    except (ValueError, RecursionError):
        posts = []
    if len(posts) != lines:  # one is no message at all, or there are empty lines
        posts = list(_one_by_one(body, refused))
    if all(post.is_plain for post in posts):
        return posts, refused
    taken = []
    for post in posts:
        try:
            taken.append(_checked(post))
        except TowlineError as error:
            refused.append(Refusal(post.id, error))
    return taken, refused


def _one_by_one(body: bytes, refused: list[Refusal]) -> Iterator[Post]:
    for line in body.split(b"\n"):
        try:
            yield _posts.decode(line)
        except UnicodeDecodeError:
            refused.append(Refusal("", BadMessage("The message is not UTF-8.")))
        except (ValueError, RecursionError) as error:
            refused.append(Refusal("", BadMessage(f"The message cannot be understood: {error}.")))


def _checked(post: Post) -> Post:
    """Raises BadMessage, LimitExceeded."""
    if post.kind not in _FROM_PEOPLE:
        raise BadMessage(f"A message's kind is none of {', '.join(_FROM_PEOPLE)}.")
    ROOM_TEXT.check(len(post.text.encode()), what="text of one message")
    ROOM_ID.check(len(post.id.encode()))
    if not post.id:
        raise BadMessage("A message needs an id.")
    if post.kind in SAID and not post.text:
        raise BadMessage("A message needs a text.")
    if not 0 <= post.ref < 1 << 62 or (post.ref == 0) != (post.kind in SAID):
        raise BadMessage("An edit or delete refers to a seq, and nothing else does.")
    nick_of(post.nick)
    return replace(post, file=_file(post.file))


def nick_of(text: str) -> str:
    """Checked. Raises LimitExceeded."""
    ROOM_NICK.check(len(text))
    utf8(text)
    return text


def said(posts: Iterable[Post]) -> bytes:
    """The request that `parse_posts` takes. Raises BadMessage."""
    try:
        return _encoder.encode_lines(posts)[:-1]
    except UnicodeEncodeError:
        raise BadMessage(_NO_UNICODE) from None


def kept_line(first: Cursor, ids: list[str]) -> bytes:
    """The acknowledgement of messages that are on the disk one behind the other, the first one there."""
    return _encoder.encode(Answer(epoch=first.epoch, seq=first.seq, ids=ids))


def refused_line(refusal: Refusal) -> bytes:
    """A refusal."""
    error = refusal.error
    answer = Answer(
        id=refusal.id, error=error.code, name=error.name, sentence=error.sentence, retryable=error.retryable
    )
    return _encoder.encode(answer)


def parse_answers(body: bytes) -> list[Answer]:
    """What a node says to messages. Raises PeerError."""
    try:
        return _answers.decode_lines(body)
    except (ValueError, RecursionError):
        raise PeerError("The node's acknowledgement cannot be understood.") from None


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
        raise BadMessage(_NO_UNICODE) from None


def _file(value: object) -> Fields | None:
    match value:
        case None:
            return None
        case {"name": str(name), "path": str(path), "bytes": int(size)} if (
            len(name) < 300 and len(path) < 5000 and 0 <= size < 1 << 62
        ):
            utf8(name), utf8(path)
            return {"name": name, "path": path, "bytes": size}
        case _:
            raise BadMessage("A file needs a name, a path and its bytes.")


def shown(text: str) -> str:
    """For error sentences."""
    return printable(text, limit=80)
