"""Target: bytes from a peer. The first byte picks who listens, the second how the bytes are cut."""

from __future__ import annotations

import sys

from fuzz.engine import main
from fuzz.listeners import LISTENERS
from fuzz.seeds import decoder_seeds
from towline.base.errors import TowlineError
from towline.protocol import events as ev
from towline.protocol.codec import Decoder, Frame
from towline.protocol.explain import describe, explain
from towline.protocol.session import Session
from towline.protocol.table import Role, State


def target(data: bytes) -> None:
    """Raises AssertionError, or whatever escapes, when a promise is broken."""
    if len(data) < 2:
        return
    choice, step, wire = data[0] % (len(LISTENERS) + 1), data[1] or 1 << 16, data[2:]
    pieces = [wire[at : at + step] for at in range(0, len(wire), step)]
    _explain(wire, expect_preface=bool(choice & 1))
    if choice == len(LISTENERS):
        _decode(pieces, [wire])
    else:
        _listen(LISTENERS[choice](), pieces)


def _decode(pieces: list[bytes], whole: list[bytes]) -> None:
    one, other = _decoded(pieces), _decoded(whole)
    assert one == other, f"the split matters: {one} {other}"


def _decoded(pieces: list[bytes]) -> tuple[list[Frame], str]:
    frames: list[Frame] = []
    decoder = Decoder()
    try:
        for piece in pieces:
            for frame in decoder.feed(piece):
                describe(frame, body=True)
                frames.append(frame)
    except TowlineError as error:
        return frames, repr(error)
    return frames, str(decoder.buffered)


def _explain(wire: bytes, *, expect_preface: bool) -> None:
    spans = explain(wire, offset=5, expect_preface=expect_preface)
    at = 5
    for span in spans:
        assert span.start == at, "a gap or an overlap"
        assert span.end > at, "an empty span"
        assert str(span).isprintable(), "unprintable words"
        at = span.end
    assert at == 5 + len(wire), "bytes without a span"


def _listen(session: Session, pieces: list[bytes]) -> None:
    events: list[ev.Event] = []
    unproved = session.role is Role.NODE and session.state is State.PREFACE
    heard, said, now = 0, 0, 1.0
    for piece in pieces:
        heard += len(piece)
        events += session.receive(piece, now)
        said += sum(map(len, session.take(1 << 20)))
        events += session.events()
        now += 0.01
    if unproved and not any(isinstance(event, ev.ProofOffered | ev.LaneRequested) for event in events):
        assert said <= heard, f"{said} bytes out for {heard} in"
    for timeout in (30.0, 60.0, 3700.0):
        events += session.tick(now + timeout)
    events += session.receive_eof(now + 4000.0)
    closed = [event for event in events if isinstance(event, ev.Closed)]
    assert closed == events[-1:], "Closed is not the last event, or not once"
    assert session.state is State.CLOSED
    assert session.deadline() is None
    str(closed[0].error)


if __name__ == "__main__":
    sys.exit(main(target, decoder_seeds(), "decoder"))
