"""What a session tells its driver. The driver acts; the session has already decided."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from towline.base.errors import TowlineError
from towline.protocol.codec import Buffer, Header
from towline.protocol.records import Hello, Proof, Welcome
from towline.protocol.stream import Stream


class ProofWanted(NamedTuple):
    """Client: the node said HELLO. Sign `transcript`, then call `session.prove`."""

    hello: Hello
    transcript: bytes


class ProofOffered(NamedTuple):
    """Node: a client proves itself. Check it, then call `session.welcome` or `session.fail`."""

    hello: Hello
    proof: Proof
    transcript: bytes


class LaneRequested(NamedTuple):
    """Node: the connection wants to be a lane. Check the ticket, then `session.welcome` or `session.fail`."""

    ticket: str


class Welcomed(NamedTuple):
    """Client: the handshake is done."""

    welcome: Welcome


class StreamOpened(NamedTuple):
    """The peer opened a stream. Answer with `accept` or `reset`; `release` it when its handler has ended.

    Until then it counts against the peer's budget, and its unread data against the connection's credit.
    """

    stream: Stream
    header: Header


class StreamAccepted(NamedTuple):
    """The peer's service took our stream."""

    stream: Stream
    header: Header


class DataReceived(NamedTuple):
    """A message, or with `more` a part of one; each part comes with the message's `header`.

    Call `session.consume(stream, cost)` once the reader has it, and for a part at once: a message may be larger than
    the window, and the rest of it waits for this credit. Parts may be a single byte: gather them in a bytearray.
    """

    stream: Stream
    header: Header | None
    body: Buffer
    more: bool
    cost: int


class StreamEnded(NamedTuple):
    """The peer sends no more on this stream."""

    stream: Stream
    trailer: Header


class StreamReset(NamedTuple):
    """The stream is gone in both directions."""

    stream: Stream
    error: TowlineError


class StreamDrained(NamedTuple):
    """Some of the queued output of a stream that is `watched` (or ended here) went out.

    A driver whose writer waits for room sets `stream.watched` and looks again after this; each event ends the watch.
    """

    stream: Stream


class GoingAway(NamedTuple):
    """The peer takes no new streams on this connection."""

    error: TowlineError


class Closed(NamedTuple):
    """The session is over; send what `take` still gives (a farewell), then close. Always the last event."""

    error: TowlineError


Event: TypeAlias = (
    ProofWanted
    | ProofOffered
    | LaneRequested
    | Welcomed
    | StreamOpened
    | StreamAccepted
    | DataReceived
    | StreamEnded
    | StreamReset
    | StreamDrained
    | GoingAway
    | Closed
)
