"""Every number that a stranger can push on: its value and the reason for it.

A limit is announced (HELLO carries those marked `announced`) and refused by name. `docs/reference/limits.md` is
generated from this table.
"""

from __future__ import annotations

from typing import NamedTuple

from towline.base.errors import LimitExceeded

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


class Limit(NamedTuple):
    """One limit: its wire and configuration name, value, unit and why it is what it is."""

    name: str
    value: int
    unit: str
    reason: str
    announced: bool = False

    def check(self, offered: int, *, what: str = "") -> None:
        """Raise LimitExceeded, naming limit, value and offending value, when `offered` is above it."""
        if offered > self.value:
            about = f" ({what})" if what else ""
            raise LimitExceeded(f"Limit {self.name} is {self.value} {self.unit}; {offered} was asked for{about}.")


HANDSHAKE_FRAME = Limit(
    "handshake_frame", 4 * KIB, "bytes", "a stranger may make us hold no more before proving a key"
)
HANDSHAKE_SECONDS = Limit("handshake_seconds", 10, "seconds", "absolute: bytes that trickle in do not extend it")
FRAME_HEADER = Limit("frame_header", 16 * KIB, "bytes", "JSON headers are small; parsing costs the reader", True)
FRAME_BODY = Limit("frame_body", 256 * KIB, "bytes", "one body is one buffer, held until it is whole", True)
MESSAGE = Limit("message", 1 * MIB, "bytes", "a message is held whole until its last part is there", True)
STREAMS = Limit("streams", 128, "streams", "streams that one connection may have open; each may hold a window", True)
STREAM_WINDOW = Limit("stream_window", 256 * KIB, "bytes", "credit that a new stream starts with", True)
STREAM_WINDOW_MAX = Limit("stream_window_max", 16 * MIB, "bytes", "what a window may grow to for long fat networks")
CONNECTION_WINDOW = Limit("connection_window", 1 * MIB, "bytes", "credit that a connection starts with", True)
CONNECTION_WINDOW_MAX = Limit("connection_window_max", 24 * MIB, "bytes", "all windows of one connection together")
CONTROL_QUEUE = Limit("control_queue", 1024, "frames", "replies that a peer may force without reading them")
RESETS = Limit("resets", 200, "resets", "streams a peer may open and cancel within a minute (CVE-2023-44487)")
