"""Acknowledging output: what was taken need not be kept any more."""

from __future__ import annotations

import asyncio

from towline.base.errors import TowlineError
from towline.base.limits import MIB
from towline.runtime.channel import Channel

ACK_BYTES = 1 * MIB
ACK_SECONDS = 0.005  # at the latest: a command that waits for room may wait for just this


class Taking:
    """How far the reader of one stream of output has got; the node is told by and by, as long as it sends more."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._taken = self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Taking {self._taken} {'to be told' if self._timer else 'told'}>"

    def took(self, seq: int, size: int) -> None:
        """Everything up to and including `seq` has been taken; `size` bytes since the last call."""
        self._taken = seq
        self._bytes += size
        if self._bytes >= ACK_BYTES:
            self._tell()
        elif self._timer is None:
            self._timer = self._channel.connection.loop.call_later(ACK_SECONDS, self._tell)

    def close(self) -> None:
        """The last word, if somebody still listens."""
        if self._timer is not None:
            self._tell()

    def _tell(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._bytes = 0
        if not self._channel.ended and self._channel.stream.can_send:
            try:
                self._channel.send_nowait(b"", {"ack": self._taken})
            except TowlineError:
                pass  # lost; whoever opens the stream again says from where
