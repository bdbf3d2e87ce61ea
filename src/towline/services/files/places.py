"""How many large files a transfer has open at once: each takes a descriptor at the sender, three at the receiver."""

from __future__ import annotations

from typing import NamedTuple

from towline.base.limits import Limit

OPEN_FILES = Limit("open_files", 128, "files", "large files under way in one transfer: three descriptors each")
_LEAST = 16  # whatever the process may: there is no transfer without any
_OTHERS = 64  # descriptors for all that is no file of the transfer
_PER_LANE = 128  # a batch of small files, each in a folder of its own


class Places(NamedTuple):
    """A receiver's: for files that its sender `begun`, and for unfinished ones that the sender is to go on with."""

    begun: int
    resumed: int

    @property
    def all(self) -> int:
        return self.begun + self.resumed


def most_lanes(descriptors: int) -> int:
    """Lanes that a process can drive that may have so many descriptors."""
    return max(1, (descriptors - _OTHERS - 3 * _LEAST) // _PER_LANE)


def receiver_places(descriptors: int, lanes: int) -> Places:
    """Where the process may have so many `descriptors` and drives so many `lanes`."""
    files = _at_most(OPEN_FILES.value, (descriptors - _OTHERS - lanes * _PER_LANE) // 3)
    return Places(files - files // 4, files // 4)


def sender_places(descriptors: int) -> int:
    """The same for a sender, whose receiver may have fewer. What is in flight then is 6 MiB or more."""
    return _at_most(OPEN_FILES.value * 3 // 4, descriptors - _OTHERS)


def _at_most(most: int, room: int) -> int:
    return max(_LEAST, min(most, room))
