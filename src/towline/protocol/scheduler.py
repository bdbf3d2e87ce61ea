"""What goes out next: control, then interactive, then chat, then bulk; fair within a class.

Strict order between classes keeps a keystroke from waiting for more than the one bulk chunk that is already on its
way. Bulk is cut into small chunks for that reason.
"""

from __future__ import annotations

from collections import deque

from towline.base.errors import ControlFlood
from towline.base.limits import CONTROL_QUEUE, FRAME_BODY, KIB
from towline.protocol.codec import Buffer
from towline.protocol.credit import SendWindow
from towline.protocol.stream import Stream
from towline.protocol.table import Class

BULK_CHUNK = 32 * KIB
_CLASSES = (Class.INTERACTIVE, Class.CHAT, Class.BULK)


class Scheduler:
    """Frames that wait to be sent. `window` is the connection's own credit; `max_body` the peer's announced limit."""

    __slots__ = ("_control", "_rings", "max_body", "window")

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._rings: tuple[deque[Stream], ...] = (deque(), deque(), deque())
        self.window = SendWindow(0)
        self.max_body = FRAME_BODY.value

    def push_control(self, frame: bytes) -> None:
        """Queue a control frame. Raises ControlFlood when the peer forces replies and does not read them."""
        if len(self._control) >= CONTROL_QUEUE.value:
            raise ControlFlood(f"Limit control_queue is {CONTROL_QUEUE.value} frames and they are not being read.")
        self._control.append(frame)

    def ready(self, stream: Stream) -> None:
        """`stream` has output, or got credit for it."""
        if stream.has_output and not stream.scheduled:
            stream.scheduled = True
            self._rings[stream.scheduling - 1].append(stream)

    def take(self, limit: int) -> tuple[list[Buffer], list[Stream]]:
        """Buffers to write, about `limit` bytes (never cut inside a frame), and the streams that got shorter."""
        out: list[Buffer] = list(self._control)
        size = sum(map(len, out))
        self._control.clear()
        moved: list[Stream] = []
        for cls in _CLASSES:
            ring = self._rings[cls - 1]
            chunk = min(self.max_body, BULK_CHUNK if cls is Class.BULK else self.max_body)
            while ring and size < limit:
                stream = ring.popleft()
                frame = stream.next_frame(chunk, self.window.available)
                if frame is None:  # no credit: CREDIT makes it ready again
                    stream.scheduled = False
                    continue
                head, body, cost = frame
                stream.send_window.spend(cost)
                self.window.spend(cost)
                out.append(head)
                if len(body):
                    out.append(body)
                size += len(head) + len(body)
                moved.append(stream)
                if stream.has_output:
                    ring.append(stream)
                else:
                    stream.scheduled = False
        return out, moved

    @property
    def pending(self) -> bool:
        """Whether `take` could give something (or finds out that it is blocked)."""
        return bool(self._control) or any(self._rings)
