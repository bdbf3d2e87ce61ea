"""What a job's output and end are to a program, and how the node's messages say it."""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from towline.base.text import printable
from towline.client.replay import Replay
from towline.runtime.channel import Message

_STREAMS = {1: "stdout", 2: "stderr"}


class Chunk(NamedTuple):
    """Output: `stream` is stdout or stderr; reading on begins at `seq` + 1. `screen` comes first when it was asked
    for, without output of its own."""

    stream: str
    seq: int
    data: bytes
    screen: Replay | None = None


class Missing(NamedTuple):
    """Output from `from_` up to, not including, `to` is no longer kept, or cannot be read."""

    from_: int
    to: int
    reason: str


class Ended(Struct, frozen=True):
    """How a job ended: its `status`, or the name (`TERM`) and `number` of the signal that ended it."""

    status: int | None
    signal: str | None = None
    number: int | None = None
    timed_out: bool = False
    left_open: bool = False

    @property
    def exit_status(self) -> int:
        """As a shell says it: the status, 128 and the signal's number, 124 after a timeout (timeout(1))."""
        if self.timed_out:
            return 124
        if self.number is not None:
            return 128 + self.number
        return self.status if self.status is not None else 1


class Result(Struct, frozen=True):
    """What a command printed and how it ended. `truncated`: not everything is here (a gap, or more than was kept)."""

    stdout: bytes
    stderr: bytes
    status: int | None
    signal: str | None
    job: str
    truncated: bool
    ended: Ended


def item_of(message: Message, replay: Replay) -> Chunk | Missing | None:
    """One message of a stream of output. Raises PeerError."""
    match message.header:
        case {"s": 1 | 2 as stream, "q": int(seq)}:
            return Chunk(_STREAMS[stream], seq, message.body)
        case {"gap": [int(first), int(to)], "reason": str(reason)}:
            return Missing(first, to, printable(reason))
        case {"screen": _}:
            complete = replay.take(message)
            return None if complete is None else Chunk(_STREAMS[1], complete, b"", replay)
        case _:
            return None  # a newer node may say more


def ended_of(said: dict[str, Any]) -> Ended:
    """The `exit` of a trailer."""
    status, signal, number = said.get("status"), said.get("signal"), said.get("number")
    return Ended(
        status if isinstance(status, int) else None,
        printable(signal, limit=20) if isinstance(signal, str) else None,
        number if isinstance(number, int) else None,
        said.get("timed_out") is True,
        said.get("left_open") is True,
    )
