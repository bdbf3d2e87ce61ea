"""Target: a list of operations on two joined sessions, two bytes each: what is done, and with which argument."""

from __future__ import annotations

import sys

from fuzz.engine import main
from fuzz.listeners import SMALL, fresh, pair
from fuzz.seeds import operation_seeds
from towline.base.errors import ConnectionLost, Draining, NotFound, TowlineError
from towline.protocol import events as ev
from towline.protocol.records import Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.stream import Stream
from towline.protocol.table import Class, Role, State

_SIZES = (0, 1, 100, 1024, 1025, 3000, 5000, 5001)
_CLASSES = (Class.INTERACTIVE, Class.CHAT, Class.BULK, Class.CONTROL)


class End:
    """One side: a session, what it holds, and what is on its way to it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.streams: list[Stream] = []
        self.unread: list[ev.DataReceived] = []
        self.closed = False
        self.coming = bytearray()

    def see(self, events: list[ev.Event]) -> None:
        for event in events:
            assert not self.closed, f"{event} after Closed"
            match event:
                case ev.StreamOpened(stream, _):
                    self.streams.append(stream)
                case ev.DataReceived():
                    assert event.stream.receive_window.outstanding <= event.stream.receive_window.size
                    self.unread.append(event)
                case ev.ProofWanted():
                    self.session.prove(Proof("peer"))
                case ev.ProofOffered():
                    self.session.welcome(Welcome("ada", "read"))
                case ev.LaneRequested():
                    self.session.welcome(Welcome("ada", "read", lane=True))
                case ev.Closed():
                    self.closed = True


def target(data: bytes) -> None:
    """Raises AssertionError, or whatever escapes, when a promise is broken."""
    if not data:
        return
    client, node = pair() if data[0] % 4 else (fresh(Role.CLIENT), fresh(Role.NODE))
    ends = (End(client), End(node))
    now = 1.0
    for at in range(1, len(data) - 1, 2):
        code, argument = data[at], data[at + 1]
        end, other = ends if code & 1 else ends[::-1]
        now += 0.001
        try:
            _do(code >> 1, argument, end, other, now)
        except TowlineError:
            pass  # a documented refusal of a call that makes no sense
        for each in ends:
            each.see(each.session.events())
            assert (each.session.state is State.CLOSED) == each.closed
            assert len(each.session.streams) <= 2 * SMALL.streams


def _do(code: int, argument: int, end: End, other: End, now: float) -> None:
    session = end.session
    stream = end.streams[argument % len(end.streams)] if end.streams else None
    match code % 14:
        case 0:
            end.streams.append(session.open({"service": "x" * (argument * 8)}, _CLASSES[argument % 4]))
        case 1 if stream:
            session.accept(stream, {"n": argument} if argument & 1 else None)
        case 2 if stream:
            session.send(stream, bytes(_SIZES[argument % 8]), {"n": argument} if argument & 8 else None)
        case 3 if stream:
            session.end(stream, {"status": argument} if argument & 1 else None)
        case 4 if stream:
            session.reset(stream, NotFound("\x1b" * argument) if argument & 1 else None)
        case 5 if stream:
            session.release(stream)
        case 6 if end.unread:
            event = end.unread.pop(argument % len(end.unread))
            session.consume(event.stream, event.cost)
        case 7:
            session.ping(now)
        case 8 if argument < 16:
            session.drain(Draining(), now, argument)
        case 9:
            end.see(session.tick(now + argument))
        case 10 if argument < 8:
            ending = session.receive_eof(now) if argument & 1 else session.connection_lost(ConnectionLost(), now)
            end.see(ending)
        case 11 if argument < 8:
            end.coming += bytes([argument, 0, 0, argument, 0, 0, 0, 0, 0, 0, 0, argument])  # noise
        case 12:
            for buffer in session.take(1 << argument % 18):
                other.coming += buffer
        case 13:
            piece = bytes(end.coming[: argument * argument + 1])
            del end.coming[: len(piece)]
            end.see(session.receive(piece, now))
        case _:
            pass


if __name__ == "__main__":
    sys.exit(main(target, operation_seeds(), "operations"))
