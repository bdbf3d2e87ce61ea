"""What goes out next: control, then interactive, then chat, then bulk; fair within a class.

Strict order between classes keeps a keystroke from waiting for more than the one chunk that is already on its way.
Streams of one class take turns of about one chunk.
"""

from __future__ import annotations

from collections import deque

from towline.base.errors import ControlFlood
from towline.base.limits import CONTROL_QUEUE, FRAME_BODY, KIB
from towline.protocol.codec import Buffer
from towline.protocol.credit import SendWindow
from towline.protocol.stream import Stream
from towline.protocol.table import Class

CHUNK = 32 * KIB
# Bulk leaves this share of the connection's window to the other classes: a file whose reader stalls must not use up
# the credit that a keystroke needs.
_RESERVE = 8
_CLASSES = (Class.INTERACTIVE, Class.CHAT, Class.BULK)


class Scheduler:
    """Frames that wait to be sent. `window` is the connection's own credit; `max_body` the peer's announced limit."""

    __slots__ = ("_control", "_rings", "_starved", "max_body", "window")

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._rings: tuple[deque[Stream], ...] = (deque(), deque(), deque())
        self._starved: dict[Stream, None] = {}  # had no turn for want of the connection's credit
        self.window = SendWindow(0)
        self.max_body = FRAME_BODY.value

    def push_control(self, frame: bytes) -> None:
        """Queue a frame that this side sends of its own accord."""
        self._control.append(frame)

    def push_reply(self, frame: bytes) -> None:
        """Queue a frame that the peer made us send. Raises ControlFlood when it does not read them."""
        if len(self._control) >= CONTROL_QUEUE.value:
            raise ControlFlood(f"Limit control_queue is {CONTROL_QUEUE.value} frames and they are not being read.")
        self._control.append(frame)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._control.clear()
        self._starved.clear()
        for ring in self._rings:
            ring.clear()

    def ready(self, stream: Stream) -> None:
        """`stream` has output, or got credit for it."""
        if not stream.scheduled and stream.has_output:
            stream.scheduled = True
            self._rings[stream.scheduling - 1].append(stream)

    def grow_window(self, credit: int) -> None:
        """The peer returned the connection's own credit."""
        self.window.grow(credit)
        starved, self._starved = self._starved, {}
        for stream in starved:
            self.ready(stream)

    def take(self, limit: int) -> tuple[list[Buffer], list[Stream]]:
        """Buffers to write, about `limit` bytes (never cut inside a frame), and the streams that got shorter."""
        out: list[Buffer] = list(self._control)
        size = sum(map(len, out))
        self._control.clear()
        moved: dict[Stream, None] = {}
        for cls in _CLASSES:
            ring = self._rings[cls - 1]
            reserve = self.window.initial // _RESERVE if cls is Class.BULK else 0
            while ring and size < limit:
                stream = ring.popleft()
                before, credit = len(out), self.window.available - reserve
                cost = stream.take_turn(out, min(CHUNK, self.max_body), credit)
                self.window.spend(cost)
                size += cost
                if len(out) > before:
                    moved[stream] = None
                    if stream.has_output:
                        ring.append(stream)
                        continue
                elif credit - cost <= stream.send_window.available:
                    self._starved[stream] = None
                stream.scheduled = False  # done, or without credit: CREDIT makes it ready again
        return out, list(moved)

    @property
    def pending(self) -> bool:
        """Whether `take` could give something (or finds out that it is blocked)."""
        return bool(self._control) or any(self._rings)
