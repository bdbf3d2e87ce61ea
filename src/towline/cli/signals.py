"""Ctrl-C and SIGTERM for verbs that run on an event loop, also when that loop stands still.

A handler of the loop's own is called by the loop alone, and a loop that is just writing to a full pipe never comes to
it: neither Ctrl-C nor SIGTERM would end the process. These are noticed by the interpreter, in the middle of a write.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

from towline.cli.output import break_off

ENDING = (signal.SIGINT, signal.SIGTERM)
PATIENCE_SECONDS = 0.5  # that the loop has for one signal before the next one ends the process


def on_ending(act: Callable[[], object]) -> None:
    """The running loop calls `act` for Ctrl-C and SIGTERM. What it prints meanwhile for nobody is broken off."""
    for number in ENDING:
        on_signal(number, act, at_once=break_off)


def on_signal(number: int, act: Callable[[], object], *, at_once: Callable[[], object] = lambda: None) -> None:
    """The running loop calls `act` for each such signal, and `at_once` is called wherever it is just then. When the
    loop does not come to it, the next one ends the process as it would any other; so does any that comes when the
    loop is closed. In the main thread."""
    loop = asyncio.get_running_loop()
    since: float | None = None  # when the first came that is not dealt with

    def deal() -> None:
        nonlocal since
        act()  # which may hang itself, for what it says
        since = None

    def notice(*_: object) -> None:
        nonlocal since
        now = time.monotonic()
        if loop.is_closed() or (since is not None and now - since > PATIENCE_SECONDS):
            leave_to_system(number)
            os.kill(os.getpid(), number)
        since = since or now
        loop.call_soon_threadsafe(deal)
        at_once()

    signal.signal(number, notice)


def leave_to_system(number: int) -> None:
    """The next such signal ends the process, at once and wherever it is."""
    signal.signal(number, signal.SIG_DFL)
