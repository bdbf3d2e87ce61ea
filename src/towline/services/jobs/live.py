"""A job that has not ended, as the node knows it, and who looks at it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from towline.protocol.codec import Header
from towline.services.jobs.keeping import Keeping
from towline.store.jobs import JobRow

RELEASE_SECONDS = 0.005  # between two words to the keeper about what is not needed any more


class Attachment:
    """Somebody who reads a job's output. `acked`: what they need no more (None: they do not say)."""

    __slots__ = ("acked", "detached", "person")

    def __init__(self, person: str) -> None:
        self.person = person
        self.acked: int | None = None
        self.detached = False


@dataclass(slots=True)
class Writer:
    """Somebody whose input comes in, over one stream or (the old one may be half open) more. `at`: the bytes that the
    command has taken; `ended`: there is no input any more."""

    at: int = 0
    ended: bool = False
    streams: int = 0


class Live:
    """A job that has not ended, as far as is known."""

    def __init__(self, row: JobRow) -> None:
        self.row = row
        self.end = 1
        self.bytes = 0
        self.over = False
        self.ending: Header | None = None  # how it ended, in the keeper's words
        self.pulse = asyncio.Event()
        self.gone = False  # the keeper was told to start it
        self.settled = False  # it has answered, or never will
        self.problem: BaseException | None = None  # with that
        self.attached: set[Attachment] = set()
        self.goodbye = True  # nobody looked yet, or whoever looked last has said it
        self.inputs: dict[str, Writer] = {}  # those with a stream; where others are, the keeper knows
        self._acked = self._told = 0  # by all who look; and told to the keeper
        self._telling: asyncio.TimerHandle | None = None  # until the keeper may be told more
        self.alone: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Live {self.row.id} end={self.end} over={self.over} attached={len(self.attached)}>"

    @contextmanager
    def writing(self, name: str) -> Iterator[Writer]:
        """What is known of a writer, kept up as long as one of their streams is open."""
        writer = self.inputs.setdefault(name, Writer())
        writer.streams += 1
        try:
            yield writer
        finally:
            writer.streams -= 1
            if not writer.streams:
                self.inputs.pop(name, None)

    def ring(self) -> None:
        """Something has changed."""
        pulse, self.pulse = self.pulse, asyncio.Event()
        pulse.set()

    async def wait_settled(self) -> JobRow:
        """Wait until it has started; the row as it is then. Raises what kept it from that."""
        while not self.settled:
            await self.pulse.wait()
        if self.problem is not None:
            raise self.problem
        return self.row

    def settle(self, problem: BaseException | None = None) -> None:
        """It has started, or will not."""
        self.settled, self.problem = True, problem
        self.ring()

    def release(self, upto: int, keeping: Keeping) -> None:
        """All who look have got everything up to `upto`: the keeper is told, but not for each."""
        self._acked = max(self._acked, upto)
        if self._telling is None:
            self._tell(keeping)

    def hush(self) -> None:
        """Tell the keeper nothing more."""
        if self._telling is not None:
            self._telling.cancel()

    def _tell(self, keeping: Keeping) -> None:
        self._telling = None
        if self._acked > self._told and not self.over:
            self._told = self._acked
            keeping.tell({"t": "release", "job": self.row.id, "upto": self._told})
            self._telling = asyncio.get_running_loop().call_later(RELEASE_SECONDS, self._tell, keeping)
