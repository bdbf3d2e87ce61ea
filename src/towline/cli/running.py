"""Running asynchronous verbs: the loop, Ctrl-C, and the options that every client verb has."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import TypeVar

from towline.base.errors import Interrupted, UsageError
from towline.base.quantity import parse_duration, parse_size
from towline.base.text import printable
from towline.cli import cycles
from towline.cli.output import Output
from towline.cli.signals import ENDING, leave_to_system, on_ending
from towline.client.line import LineEvent, Reconnecting
from towline.runtime.loops import new_event_loop

T = TypeVar("T")
LONG_WAIT = 5.0  # seconds that nobody sits through without a word


def run_async(work: Coroutine[object, object, T]) -> T:
    """Run to the end on the quickest loop there is; the first Ctrl-C or SIGTERM cancels and raises Interrupted, and
    a second one ends the process as it would any other, whatever hangs."""
    cycles.as_usual()
    before = {number: signal.getsignal(number) for number in ENDING}
    stopped = False

    async def guarded() -> T:
        task = asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()
            for number in ENDING:
                leave_to_system(number)

        on_ending(stop)
        try:
            return await task
        except asyncio.CancelledError:
            raise Interrupted from None

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(guarded())
    finally:
        if not stopped:
            for number, handler in before.items():
                signal.signal(number, handler)


def duration(text: str) -> float:
    """For argparse: a duration in seconds."""
    try:
        return parse_duration(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.sentence) from None


def count(text: str) -> int:
    """For argparse: a number above zero."""
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)


def size(text: str) -> int:
    """For argparse: a size in bytes."""
    try:
        return parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.sentence) from None


def add_give_up(parser: argparse.ArgumentParser) -> None:
    """`--give-up`, for all verbs that reach a node."""
    parser.add_argument(
        "--give-up",
        type=duration,
        metavar="TIME",
        help="how long to try to (re)connect: 30s, 10m (default: 10m after a cut, 3s if the node was never reached)",
    )


def worth_a_word(event: Reconnecting) -> bool:
    """The first attempt mostly succeeds at once; but a busy node may have asked for a long pause before it."""
    return event.attempt == 2 or event.attempt % 10 == 0 or (event.attempt == 1 and event.wait >= LONG_WAIT)


def gone(event: Reconnecting) -> str:
    """That the line is down, and why, for a person."""
    reason = printable(event.error.sentence).removesuffix(".")
    return f"The connection is gone ({reason}); trying again …"


def tell_line_events(out: Output, **fields: object) -> Callable[[LineEvent], None]:
    """A listener that says when the line is down and up again; `fields` are in its events."""

    def tell(event: LineEvent) -> None:
        if isinstance(event, Reconnecting):
            reason = printable(event.error.sentence)
            out.event("reconnecting", attempt=event.attempt, wait=round(event.wait, 3), reason=reason, **fields)
            if worth_a_word(event):
                out.note(gone(event))

    return tell
