"""The one table of frames: kinds, fields, who may send them, in which state, and where a connection goes next.

A connection starts with the preface, eight bytes: the magic and the version. Then frames, each with a prefix that
says how long it is before it starts (big-endian, unsigned):

    | kind u8 | flags u8 | header_len u16 | body_len u32 | stream u32 | header JSON | body |
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

VERSION = 1
MAGIC = b"TOWLINE"
PREFACE = MAGIC + bytes([VERSION])
ALPN = "towline/1"

PREFIX = struct.Struct(">BBHII")
PREFIX_SIZE = PREFIX.size  # 12 bytes
CONNECTION_STREAM = 0


class Kind(IntEnum):
    """The kind of a frame: its first byte."""

    HELLO = 1
    PROVE = 2
    WELCOME = 3
    OPEN = 4
    ACCEPT = 5
    DATA = 6
    CREDIT = 7
    END = 8
    RESET = 9
    PING = 10
    PONG = 11
    GOAWAY = 12


class Flag(IntFlag):
    """Frame flags; a bit that is not listed for a kind must be zero."""

    NONE = 0
    MORE = 1


class Role(Enum):
    """Which end of the connection this is; the client is the one that dialled."""

    CLIENT = "client"
    NODE = "node"

    @property
    def peer(self) -> Role:
        return Role.NODE if self is Role.CLIENT else Role.CLIENT


class State(Enum):
    """Where a connection stands, as one side sees it; `STATES` says it in words."""

    PREFACE = "preface"
    HELLO = "hello"
    PROVE = "prove"
    VERDICT = "verdict"
    OPEN = "open"
    LANE = "lane"
    CLOSED = "closed"


STATES: dict[State, str] = {
    State.PREFACE: "the eight bytes of the other side's preface are awaited",
    State.HELLO: "the other side's HELLO is awaited",
    State.PROVE: "the client's proof is due: the node awaits it, the client makes it",
    State.VERDICT: "the node decides, about a proof or about a lane's ticket",
    State.OPEN: "streams",
    State.LANE: "ranges of files, or output, and nothing else; whoever drives the lane has the bytes",
    State.CLOSED: "over",
}


class Class(IntEnum):
    """Scheduling classes; a lower number goes out first."""

    CONTROL = 0
    INTERACTIVE = 1
    CHAT = 2
    BULK = 3


class Type(Enum):
    """Types of JSON header fields. `bool` is not an `int` here, and no number is a float."""

    INT = "integer"
    STR = "string"
    BOOL = "boolean"
    OBJECT = "object"
    NUMBER = "number"


class Field(NamedTuple):
    """One field of a frame's JSON header."""

    name: str
    type: Type
    meaning: str
    required: bool = True
    secret: bool = False  # never shown in a log or a picture


class FrameSpec(NamedTuple):
    """Everything that is fixed about one kind of frame."""

    kind: Kind
    meaning: str
    on_stream: bool
    senders: frozenset[Role]
    states: frozenset[State]
    fields: tuple[Field, ...] = ()
    open_header: bool = False
    body: str = ""
    body_size: int | None = 0
    flags: Flag = Flag.NONE
    scheduling: Class = Class.CONTROL

    @property
    def needs_header(self) -> bool:
        return any(field.required for field in self.fields)

    @property
    def name(self) -> str:
        return self.kind.name


_BOTH = frozenset({Role.CLIENT, Role.NODE})
_CLIENT = frozenset({Role.CLIENT})
_NODE = frozenset({Role.NODE})
_OPEN = frozenset({State.OPEN})
_RANGES = frozenset({State.OPEN, State.LANE})

_FAULT = (
    Field("code", Type.INT, "the error's number, see errors.md"),
    Field("message", Type.STR, "one sentence for a person"),
    Field("retryable", Type.BOOL, "whether trying again can help"),
    Field("retry_after", Type.NUMBER, "seconds to wait before trying again", required=False),
)

_SPECS = (
    FrameSpec(
        Kind.HELLO,
        "opens the conversation: version, limits, a nonce",
        on_stream=False,
        senders=_BOTH,
        states=frozenset({State.HELLO}),
        fields=(
            Field("agent", Type.STR, "software and version, for logs"),
            Field("nonce", Type.STR, "32 fresh random bytes, hexadecimal"),
            Field("limits", Type.OBJECT, "announced limits, name to number"),
            Field("lane", Type.STR, "a one-time ticket: this connection wants to be a lane", False, secret=True),
            Field("name", Type.STR, "the node's own name (only from a node)", required=False),
            Field("pad", Type.STR, "fills a client's HELLO so that the node may answer", required=False),
        ),
    ),
    FrameSpec(
        Kind.PROVE,
        "the client proves who it is",
        on_stream=False,
        senders=_CLIENT,
        states=frozenset({State.PROVE}),
        fields=(
            Field("method", Type.STR, "`key`, `invite`, or `peer` (Unix socket: the kernel vouches)"),
            Field("key", Type.STR, "Ed25519 public key, hexadecimal; with `key` and `invite`", required=False),
            Field("signature", Type.STR, "over the transcript, hexadecimal; with `key` and `invite`", required=False),
            Field("secret", Type.STR, "the invite's secret, hexadecimal; with `invite`", False, secret=True),
        ),
    ),
    FrameSpec(
        Kind.WELCOME,
        "the node knows the client and says as whom",
        on_stream=False,
        senders=_NODE,
        states=frozenset({State.VERDICT}),
        fields=(
            Field("person", Type.STR, "the name that the node has for the client"),
            Field("grants", Type.STR, "what that person may do"),
            Field("lane", Type.BOOL, "this connection is a lane from now on", required=False),
        ),
    ),
    FrameSpec(
        Kind.OPEN,
        "opens a stream at a position",
        on_stream=True,
        senders=_BOTH,
        states=_RANGES,
        fields=(
            Field("service", Type.STR, "which service answers (on a lane: empty)", required=False),
            Field("class", Type.INT, "scheduling class: 1 interactive, 2 chat, 3 bulk", required=False),
        ),
        open_header=True,
    ),
    FrameSpec(
        Kind.ACCEPT,
        "the service takes the stream",
        on_stream=True,
        senders=_BOTH,
        states=_OPEN,
        open_header=True,
    ),
    FrameSpec(
        Kind.DATA,
        "a message, or a part of one",
        on_stream=True,
        senders=_BOTH,
        states=_RANGES,
        open_header=True,
        body="the payload; bulk data has no JSON header",
        body_size=None,
        flags=Flag.MORE,
        scheduling=Class.BULK,
    ),
    FrameSpec(
        Kind.CREDIT,
        "returns credit for DATA that was consumed; stream 0 is the connection's own",
        on_stream=True,
        senders=_BOTH,
        states=_OPEN,
        body="u64: wire bytes of DATA frames that may be sent in addition",
        body_size=8,
    ),
    FrameSpec(
        Kind.END,
        "no more DATA from this side; a trailer may follow the data",
        on_stream=True,
        senders=_BOTH,
        states=_RANGES,
        open_header=True,
        scheduling=Class.BULK,
    ),
    FrameSpec(
        Kind.RESET,
        "ends a stream in both directions with an error",
        on_stream=True,
        senders=_BOTH,
        states=_RANGES,
        fields=_FAULT,
    ),
    FrameSpec(
        Kind.PING,
        "are you there?",
        on_stream=False,
        senders=_BOTH,
        states=_OPEN,
        body="8 opaque bytes",
        body_size=8,
    ),
    FrameSpec(
        Kind.PONG,
        "I am, and here are your 8 bytes",
        on_stream=False,
        senders=_BOTH,
        states=_OPEN,
        body="the 8 bytes of the PING",
        body_size=8,
    ),
    FrameSpec(
        Kind.GOAWAY,
        "no new streams here; with the error `draining` the old ones may end, with any other all is over",
        on_stream=False,
        senders=_BOTH,
        states=frozenset({State.HELLO, State.PROVE, State.VERDICT, State.OPEN, State.LANE}),
        fields=_FAULT,
    ),
)

FRAMES: dict[int, FrameSpec] = {int(spec.kind): spec for spec in _SPECS}


# Only the frames that move a connection, received or sent; all others leave it where it is. A missing key is the
# error. (our role, our state, kind, whether the client asked for a lane) -> next state. A client that asks for a lane
# begins in VERDICT: its control connection has heard preface and HELLO already.
TRANSITIONS: dict[tuple[Role, State, int, bool], State] = {
    (Role.NODE, State.HELLO, int(Kind.HELLO), False): State.PROVE,
    (Role.NODE, State.PROVE, int(Kind.PROVE), False): State.VERDICT,
    (Role.NODE, State.VERDICT, int(Kind.WELCOME), False): State.OPEN,
    (Role.NODE, State.HELLO, int(Kind.HELLO), True): State.VERDICT,
    (Role.NODE, State.VERDICT, int(Kind.WELCOME), True): State.LANE,
    (Role.CLIENT, State.HELLO, int(Kind.HELLO), False): State.PROVE,
    (Role.CLIENT, State.PROVE, int(Kind.PROVE), False): State.VERDICT,
    (Role.CLIENT, State.VERDICT, int(Kind.WELCOME), False): State.OPEN,
    (Role.CLIENT, State.VERDICT, int(Kind.WELCOME), True): State.LANE,
}


def _allowed() -> dict[tuple[Role, State], frozenset[int]]:
    moves = {kind for _, _, kind, _ in TRANSITIONS}
    possible = {(role, state, kind) for role, state, kind, _ in TRANSITIONS}
    return {
        (role, state): frozenset(
            int(spec.kind)
            for spec in _SPECS
            if state in spec.states
            and role.peer in spec.senders
            and (spec.kind not in moves or (role, state, int(spec.kind)) in possible)
        )
        for role in Role
        for state in State
    }


# What may arrive: (our role, our state) -> kinds. The frame gate is a look-up in this table.
ALLOWED: dict[tuple[Role, State], frozenset[int]] = _allowed()


class StreamState(IntEnum):
    """Life of one stream: each side ends its own direction; RESET ends both."""

    OPEN = 0
    ENDED_HERE = 1
    ENDED_THERE = 2
    CLOSED = 3


class StreamInput(IntEnum):
    """What moves a stream from state to state."""

    SEND_END = 0
    RECEIVE_END = 1
    RESET = 2


STREAM_TRANSITIONS: dict[tuple[StreamState, StreamInput], StreamState] = {
    (StreamState.OPEN, StreamInput.SEND_END): StreamState.ENDED_HERE,
    (StreamState.OPEN, StreamInput.RECEIVE_END): StreamState.ENDED_THERE,
    (StreamState.OPEN, StreamInput.RESET): StreamState.CLOSED,
    (StreamState.ENDED_HERE, StreamInput.RECEIVE_END): StreamState.CLOSED,
    (StreamState.ENDED_HERE, StreamInput.RESET): StreamState.CLOSED,
    (StreamState.ENDED_THERE, StreamInput.SEND_END): StreamState.CLOSED,
    (StreamState.ENDED_THERE, StreamInput.RESET): StreamState.CLOSED,
}
