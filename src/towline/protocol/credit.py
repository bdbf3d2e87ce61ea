"""Credit: how much DATA may be under way. Counted in whole DATA frames, prefix and header included.

The receiver grants; the sender spends; the receiver returns what its reader has *consumed*, not what has arrived. A
window grows when the sender used it up within two round trips, because then the window was what slowed it down (the
idea of dynamic right-sizing, Fisk and Feng 2001).
"""

from __future__ import annotations

from towline.base.errors import CreditExceeded, ProtocolError
from towline.protocol.timers import Pace

_MOST = 1 << 48  # no window is so large; a sum beyond it is a mistake or an attack


class SendWindow:
    """What the peer lets us send: `available` bytes, from which senders take what they spend."""

    __slots__ = ("available",)

    def __init__(self, initial: int) -> None:
        self.available = initial

    def grow(self, credit: int) -> None:
        """The peer returned or raised credit. Raises ProtocolError when it makes no sense."""
        self.available += credit
        if self.available > _MOST:
            raise ProtocolError(f"A credit of {self.available} bytes makes no sense.")


class ReceiveWindow:
    """What we let the peer send: `size` bytes beyond what was consumed, growing to at most `maximum`.

    `outstanding` (received and not yet returned) and `consumed` (and not yet returned) are counted up by `Streams`
    itself, which does so for every message; the rules are here.
    """

    __slots__ = ("_returned_at", "consumed", "maximum", "outstanding", "size")

    def __init__(self, size: int, maximum: int) -> None:
        self.size = size
        self.maximum = max(size, maximum)
        self.outstanding = 0
        self.consumed = 0
        self._returned_at: float | None = None

    @property
    def unread(self) -> int:
        """Received and not yet consumed."""
        return self.outstanding - self.consumed

    @property
    def untouched(self) -> bool:
        """Whether nothing has ever come in."""
        return not self.outstanding and self._returned_at is None

    @property
    def due(self) -> bool:
        """Whether enough was consumed to tell the peer.

        Credit goes back by half windows. So a sender whose peer has read everything always has more than half a
        window: see `Limits.check`, which keeps that above the largest frame that cannot be cut.
        """
        return self.consumed * 2 >= self.size

    def exceeded(self) -> CreditExceeded:
        """The error for DATA without credit."""
        return CreditExceeded(f"The window is {self.size} bytes; {self.outstanding} were sent.")

    def give_back(self, pace: Pace) -> int:
        """The credit to announce now."""
        credit = self.consumed
        self.outstanding -= credit
        self.consumed = 0
        grown = self._growth(pace)
        self.size += grown
        self._returned_at = pace.now
        return credit + grown

    def _growth(self, pace: Pace) -> int:
        if pace.rtt is None or self._returned_at is None or pace.now - self._returned_at > 2 * pace.rtt:
            return 0
        return min(self.size, self.maximum - self.size)
