"""The same load for every contender: what is sent, how answers are timed."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable
from typing import Any

from bench.processes import Failed

PAYLOAD = b"m" * 100


class Beats:
    """Times of answers (seconds) and their distribution in milliseconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def add(self, seconds: float) -> None:
        self._times.append(seconds)

    def answer(self) -> dict[str, Any]:
        ordered = sorted(self._times)
        last = len(ordered) - 1
        return {
            "p50": ordered[last // 2] * 1000,
            "p99": ordered[round(last * 0.99)] * 1000,
            "worst": ordered[last] * 1000,
        }


class Hearing:
    """One message on its way to many readers of this process: when each got it (seconds since 1970).

    The readers are as light as they can be, whoever the contender: they keep the encrypted bytes, and what these say
    is looked at when all have theirs.
    """

    def __init__(self) -> None:
        self.readers: list[Reader] = []
        self._times: list[float] = []
        self._all = asyncio.Event()

    def expect(self) -> None:
        """The next one is about to be sent."""
        self._times = []
        self._all.clear()

    def heard(self) -> None:
        self._times.append(time.time())
        if len(self._times) == len(self.readers):
            self._all.set()

    async def times(self) -> list[float]:
        """Wait until all have it; each has it once, whole."""
        async with asyncio.timeout(20):
            await self._all.wait()
        for reader in self.readers:
            if not reader.has_one():
                raise Failed("a reader has not got the message, or not once")
        return self._times


class Reader(asyncio.Protocol):
    """One connection behind its handshakes. `count(plain)` says how many messages there are in these bytes."""

    def __init__(self, hearing: Hearing, decrypt: Callable[[bytes], bytes], count: Callable[[bytes], int]) -> None:
        self._hearing, self._decrypt, self._count = hearing, decrypt, count
        self._held = self._plain = b""
        hearing.readers.append(self)

    def data_received(self, data: bytes) -> None:
        self._held += data
        if len(data) > _PING_BYTES:
            self._hearing.heard()
        else:
            self._look()

    def has_one(self) -> bool:
        """Whether exactly one came since this was asked last."""
        self._look()
        plain, self._plain = self._plain, b""
        return self._count(plain) == 1

    def _look(self) -> None:
        self._plain += self._decrypt(self._held)
        self._held = b""


_PING_BYTES = 100  # what asks for a sign of life is shorter, encrypted, than any message here


def raise_descriptors() -> None:
    """Thousands of connections in one process."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
