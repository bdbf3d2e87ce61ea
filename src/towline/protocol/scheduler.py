"""What goes out next: control, then interactive, then chat, then bulk; fair within a class.

Strict order between classes keeps a keystroke from waiting for more than the one chunk that is already on its way.
Streams of one class take turns of about one chunk.
"""

from __future__ import annotations

from collections import deque

from towline.base.errors import ControlFlood
from towline.base.limits import CONTROL_QUEUE, KIB
from towline.protocol.codec import Buffer
from towline.protocol.credit import SendWindow
from towline.protocol.stream import Stream
from towline.protocol.table import Class

CHUNK = 64 * KIB
# Bulk leaves this share of the connection's window to the other classes: a file whose reader stalls must not use up
# the credit that a keystroke needs.
_RESERVE = 8
_CLASSES = (Class.INTERACTIVE, Class.CHAT, Class.BULK)


class Scheduler:
    """Frames that wait to be sent. `window` is the connection's own credit; `pending` says whether `take` could give
    something (or finds out that it is blocked)."""

    __slots__ = ("_control", "_quantum", "_reserve", "_rings", "_starved", "pending", "window")

    def __init__(self) -> None:
        self._control: list[bytes] = []
        self._rings: dict[Class, deque[Stream]] = {cls: deque() for cls in _CLASSES}
        self._starved: dict[Stream, None] = {}  # had no turn for want of the connection's credit
        self._quantum = CHUNK
        self._reserve = 0
        self.pending = False
        self.window = SendWindow(0)

    def start(self, window: int, max_body: int) -> None:
        """What the peer announced (bytes): the connection's first credit, the largest body of a frame."""
        self.window = SendWindow(window)
        self._reserve = window // _RESERVE
        self._quantum = min(CHUNK, max_body)

    def push_control(self, frame: bytes) -> None:
        """Queue a frame that this side sends of its own accord."""
        self._control.append(frame)
        self.pending = True

    def push_reply(self, frame: bytes) -> None:
        """Queue a frame that the peer made us send. Raises ControlFlood when it does not read them."""
        if len(self._control) >= CONTROL_QUEUE.value:
            raise ControlFlood(f"Limit control_queue is {CONTROL_QUEUE.value} frames and they are not being read.")
        self.push_control(frame)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._control.clear()
        self._starved.clear()
        for ring in self._rings.values():
            for stream in ring:
                stream.scheduled = False
            ring.clear()
        self.pending = False

    def ready(self, stream: Stream) -> None:
        """`stream` has output, or got credit for it."""
        if not stream.scheduled and stream.has_output:
            stream.scheduled = self.pending = True
            self._rings[stream.scheduling].append(stream)

    def forget(self, stream: Stream) -> None:
        """`stream` is over. One that waited for credit or its turn would be kept as long as the peer likes."""
        self._starved.pop(stream, None)
        if stream.scheduled:
            self._rings[stream.scheduling].remove(stream)
            stream.scheduled = False

    def grow_window(self, credit: int) -> None:
        """The peer returned the connection's own credit."""
        self.window.grow(credit)
        starved, self._starved = self._starved, {}
        for stream in starved:
            self.ready(stream)

    def may_overtake_none(self, stream: Stream, size: int) -> bool:
        """Whether `size` bytes of DATA may go out now without passing anything by, within the credit; spent if so."""
        window = stream.send_window
        if self.pending or self._starved or stream.has_output or stream.scheduling is Class.BULK:
            return False
        if size > min(window.available, self.window.available, self._quantum):
            return False
        window.available -= size
        self.window.available -= size
        return True

    def take(self, limit: int) -> tuple[list[Buffer], list[Stream]]:
        """Buffers to write, about `limit` bytes (never cut inside a frame), and the streams whose driver is to hear
        of it: somebody waits for room there, or it is over."""
        out: list[Buffer] = []
        told: dict[Stream, None] = {}
        size = 0
        if self._control:
            out += self._control
            size = sum(map(len, out))
            self._control.clear()
        for cls, ring in self._rings.items():
            while ring and size < limit:
                stream = ring.popleft()
                before, credit = len(out), self.window.available
                if cls is Class.BULK:
                    credit -= self._reserve
                cost = stream.take_turn(out, self._quantum, credit)
                self.window.available -= cost
                size += cost
                if len(out) > before:
                    if stream.watched or not stream.can_send:
                        told[stream] = None
                    if stream.has_output:
                        ring.append(stream)
                        continue
                elif credit - cost <= stream.send_window.available:
                    self._starved[stream] = None
                stream.scheduled = False  # done, or without credit: CREDIT makes it ready again
        self.pending = size >= limit and any(self._rings.values())
        return out, list(told)
