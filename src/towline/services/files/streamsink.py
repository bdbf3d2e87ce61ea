"""A receiver's sink that can be written only once: standard output, or any descriptor."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from towline.base.errors import ConnectionLost, InUse, NotFound, StreamClosed, TowlineError, VerificationFailed
from towline.base.oserrors import disk_error
from towline.services.files.digest import FileDigest
from towline.services.files.plan import Entry
from towline.services.files.ranges import Ranges
from towline.services.files.sinks import Writing
from towline.services.files.small import Content
from towline.services.files.tree import Stat

_LOOK_UP = 100  # ms: so soon is an interrupt heard by somebody who waits for a reader


class StreamSink:
    """Standard output, or any descriptor that is written once: the one file of a transfer, in order.

    It lives as long as the command and remembers its position over cuts. What was written cannot be taken back, so
    the digest can only be told afterwards.
    """

    def __init__(self, fd: int) -> None:
        self._writing = _StreamWriting(fd)

    def looking(self) -> AbstractContextManager[Callable[[Entry], Stat | None]]:
        return nullcontext(lambda entry: None)

    def existing(self, entry: Entry) -> Stat | None:
        return None

    def existing_digest(self, entry: Entry, stopped: Callable[[], bool]) -> str:
        raise NotFound

    def existing_link(self, entry: Entry) -> str | None:
        return None

    def begun(self, entry: Entry) -> bool:
        return True

    def open(self, entry: Entry) -> Writing:
        self._writing.begin(entry)
        return self._writing

    def publish_small(self, batch: Sequence[tuple[Entry, Content, bool]]) -> list[TowlineError | None]:
        raise InUse  # `begun` makes every file a ranged one

    def mkdir(self, entry: Entry) -> None:
        raise VerificationFailed("A folder cannot be written to standard output.")

    def symlink(self, entry: Entry, *, replace: bool) -> None:
        raise VerificationFailed("A symlink cannot be written to standard output.")

    def stamp(self, folders: Iterable[Entry]) -> None:
        """A stream has no folders."""

    def interrupt(self) -> None:
        self._writing.stopped = True

    def close(self) -> None:
        """The descriptor is the user's."""


class _StreamWriting:
    restarted_because: str | None = None

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._position = 0
        self._digest = FileDigest()
        self._pin: tuple[int, int] | None = None
        self._poll: select.poll | None = None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            self._poll = select.poll()
            self._poll.register(fd, select.POLLOUT)
        self.stopped = False

    def begin(self, entry: Entry) -> None:
        """For a conversation. Raises VerificationFailed when the source is not what it was."""
        self.stopped = False
        pin = (entry.size, entry.mtime_ns)
        if self._pin not in (None, pin) and self._position:
            raise VerificationFailed("The source changed after a part of it was written to standard output.")
        self._pin = pin

    @property
    def ranges(self) -> Ranges:
        return Ranges([(0, self._position)])

    def write(self, offset: int, data: memoryview) -> None:
        if offset > self._position:
            raise VerificationFailed("Standard output can only be written in order.")
        fresh = data[self._position - offset :]
        self._digest.feed(self._position, fresh)
        try:
            while fresh:
                count = os.write(self._fd, fresh if self._poll is None else fresh[: self._room(self._poll)])
                self._position += count
                fresh = fresh[count:]
        except BrokenPipeError:
            raise StreamClosed("Whoever read standard output has left.") from None
        except OSError as error:
            raise disk_error(error, "standard output") from error

    def _room(self, poll: select.poll) -> int:
        """Wait until a reader has made room; so much can be written without waiting in there (pipe(7), PIPE_BUF)."""
        while not poll.poll(_LOOK_UP):
            if self.stopped:
                raise ConnectionLost("The conversation is over.")
        return select.PIPE_BUF

    def write_zeros(self, offset: int, length: int) -> None:
        zeros = memoryview(bytes(min(length, 1 << 20)))
        for at in range(offset, offset + length, len(zeros) or 1):
            self.write(at, zeros[: offset + length - at])

    def checkpoint(self) -> Ranges:
        return self.ranges

    def digest(self, size: int, stopped: Callable[[], bool]) -> str:
        return self._digest.hexdigest()

    def publish(self, entry: Entry, size: int, *, replace: bool) -> None:
        """It is out already."""

    def distrust(self) -> None:
        """It cannot be taken back."""

    def abandon(self) -> None:
        """Nor can it be left out."""

    def close(self) -> None:
        """It goes on in the next conversation."""
