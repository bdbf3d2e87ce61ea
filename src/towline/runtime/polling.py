"""Busy polling: a loop whose peer answers within microseconds looks again instead of going to sleep.

A processor that sleeps takes 30 to 50 µs to wake in a virtual machine, longer than both ends together need for a
question and its answer. The kernel does the same for its own idle loop (guest_halt_poll_ns, in its document on guest
halt polling) and for sockets (SO_BUSY_POLL, socket(7)). It costs nothing unless messages follow each other so fast.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from time import perf_counter

from towline.protocol.codec import Buffer

# How long (seconds) an answer is looked for: as long as the kernel's guest_halt_poll_ns. Two ends that sleep between
# messages answer each other within this, too, so that a series can begin.
WINDOW = 200e-6
# Looking pays where nearly all answers come within the window. A quick answer counts 1; a late one, and a look in
# vain, take LATE away, so the score rises only where more than four of five are quick. From ENOUGH on the next one is
# looked for; it never passes TOP, so that it falls soon when a series is over.
LATE = 4
ENOUGH = 8
TOP = 32
# Offering the processor takes a microsecond where nobody wants it. Where it took longer than this (seconds), somebody
# who computes had it for a slice, and so would the next one: CROWDED more quick answers are needed first.
SLICE = 1e-3
CROWDED = 1000
# Larger than this (bytes) is no exchange of messages but a stream, which waits for bandwidth.
SMALL = 4 * 1024
# Offers the processor to others (sched_yield(2)). None: where there is one processor, whoever is to answer needs it.
_yield: Callable[[], None] | None = None
if hasattr(os, "sched_yield") and len(os.sched_getaffinity(0)) > 1:
    _yield = os.sched_yield


class BusyPoll:
    """One connection's: is told what comes and goes, and keeps the loop awake while that pays.

    It looks only while nobody else wants the processor.
    """

    __slots__ = ("_asked", "_looking", "_loop", "_score")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._asked = 0.0  # when we first sent something after what we heard last; 0: not yet
        self._looking = False
        self._score = 0

    def heard(self, size: int) -> None:
        """So many bytes have come in."""
        if size > SMALL:
            self._score = 0
        elif perf_counter() - self._asked < WINDOW:
            self._score = min(self._score + 1, TOP)
        else:
            self._late()
        self._asked = 0.0

    def said(self, buffers: Sequence[Buffer]) -> None:
        """These have been handed to the transport."""
        if self._asked:
            return
        self._asked = perf_counter()
        if self._score < ENOUGH or self._looking or _yield is None:
            return
        if sum(map(len, buffers)) > SMALL:
            self._score = 0
            return
        self._looking = True
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        """The loop polls between two calls of this."""
        assert _yield is not None
        self._looking = False
        if not self._asked:
            return  # the answer is here, and nothing was said to it yet
        now = perf_counter()
        if now - self._asked > WINDOW:
            self._late()
            return
        _yield()
        if perf_counter() - now > SLICE:
            self._score = -CROWDED
            return
        self._looking = True
        self._loop.call_soon(self._look)

    def _late(self) -> None:
        if self._score > 0:
            self._score = max(self._score - LATE, 0)
