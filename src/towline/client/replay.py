"""What brings a fresh terminal to where a job's is: collected from its messages, whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass, field

from towline.base.errors import PeerError
from towline.base.limits import KIB, MIB
from towline.runtime.channel import Message

MOST_BYTES = 4 * MIB  # several times what a node keeps in mind for a screen
_PART_BYTES = 1 * KIB  # that each part counts for beside its own: there is no end of empty ones
Size = tuple[int, int]


@dataclass(slots=True)
class Replay:
    """What was printed last, in `parts` of one size (rows, columns) each; `size` is the terminal's by now; `modes`
    switch on what is on. `exact`: nothing is missing. Otherwise the program was asked to paint itself anew."""

    parts: list[tuple[Size, bytes]] = field(default_factory=list)
    size: Size = (0, 0)
    modes: bytes = b""
    exact: bool = False
    _bytes: int = 0

    def take(self, message: Message) -> int | None:
        """One message of it; where output goes on behind it when it is complete. Raises PeerError."""
        match message.header:
            case {"screen": [int(rows), int(columns)], "q": int(seq), "exact": bool(exact)}:
                self.size, self.modes, self.exact = (rows, columns), message.body, exact
                return seq
            case {"screen": [int(rows), int(columns)]}:
                self.parts.append(((rows, columns), message.body))
                self._bytes += len(message.body) + _PART_BYTES
                if self._bytes > MOST_BYTES:
                    raise PeerError("The node sends more for a screen than a screen can need.")
        return None
