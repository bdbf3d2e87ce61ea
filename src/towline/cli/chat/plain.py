"""The plain mode of `tow chat`: lines in, lines out; for pipes and scripts."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from towline.base.errors import BadMessage, DiskError, Exit, LimitExceeded, TowlineError
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.rooms import Room
    from towline.journal import Cursor

_LAST_WORDS_SECONDS = 10.0  # until what we said ourselves has come back
_WINDOW = 1000  # lines that wait for their acknowledgement; more are not read


def run_plain(args: argparse.Namespace, out: Output) -> int:
    """Until standard input ends or says q, and all is acknowledged."""
    from towline.cli.running import run_async

    return run_async(_chat(args, out))


async def _chat(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.roomy import tell_refused
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        line.on_refused = tell_refused(out)
        room = line.room(args.room)
        room.nick = args.nick
        talk = Talk(room, out)
        reading = asyncio.create_task(talk.listen(args.since))
        reading.add_done_callback(lambda _: talk.ended.set())
        try:
            return await talk.speak(reading)
        finally:
            reading.cancel()
            await asyncio.wait([reading])


class Talk:
    """Both directions of one room."""

    def __init__(self, room: Room, out: Output) -> None:
        self._room, self._out = room, out
        self._heard = 0
        self._news = asyncio.Event()
        self._wanted = 0
        self._failed: TowlineError | None = None
        self._told: set[str] = set()
        self._waiting = 0
        self.ended = asyncio.Event()
        self._opened = asyncio.Event()

    async def listen(self, since: object) -> None:
        """Print what is said, our own words in their place."""
        from towline.cli.roomy import show

        async for item in self._room.follow(
            since,  # type: ignore[arg-type]  # argparse keeps no types; `roomy.since` made it
            create=True,
            on_open=lambda _: self._opened.set(),
        ):
            show(self._out, item)
            self._heard = item.next.seq
            self._news.set()

    async def speak(self, reading: asyncio.Task[None]) -> int:
        """Say each line; then wait for the answers, and for our words to come back."""
        await _first(self._opened, self.ended)
        if reading.done():
            reading.result()
        lines: asyncio.Queue[str | TowlineError | None] = asyncio.Queue()
        room_made = threading.Semaphore(_WINDOW)
        _Reader(asyncio.get_running_loop(), lines, room_made).start()
        while True:
            line = await _first_of(lines, self.ended)
            if reading.done():
                reading.result()
            if line is None:
                break
            room_made.release()
            if isinstance(line, TowlineError):
                self._fail(line)
            elif line.strip():
                self._say(line)
            await self._answers(_WINDOW - 1, reading)
        await self._answers(0, reading)
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while self._heard <= self._wanted > 0 and not self.ended.is_set():
                    await self._changed()
        except TimeoutError:
            pass  # it is acknowledged; only the echo is late
        return self._failed.exit_status if self._failed is not None else Exit.OK

    async def _answers(self, most: int, reading: asyncio.Task[None]) -> None:
        """Until so many at most are waiting for their answer. Raises what ended the listening."""
        while self._waiting > most:
            await self._changed()
            if reading.done():
                reading.result()

    def _say(self, line: str) -> None:
        try:
            future = self._room.post(line)
        except TowlineError as error:
            self._fail(error)
            return
        self._waiting += 1
        future.add_done_callback(self._answered)

    def _answered(self, done: asyncio.Future[Cursor]) -> None:
        self._waiting -= 1
        self._news.set()
        error = None if done.cancelled() else done.exception()
        if isinstance(error, TowlineError):
            self._fail(error)
        elif error is None and not done.cancelled():
            self._wanted = max(self._wanted, done.result().seq)
            self._out.event("accepted", epoch=done.result().epoch, seq=done.result().seq)

    def _fail(self, error: TowlineError) -> None:
        self._failed = self._failed or error
        if error.retryable and error.sentence in self._told:
            return  # a line that goes down is one failure, however many messages wait for it
        self._told.add(error.sentence)
        self._out.error(error, verb="chat")

    async def _changed(self) -> None:
        await _first(self._news, self.ended)
        self._news.clear()


class _Reader(threading.Thread):
    """Standard input may be anything, so a thread reads it; it does not read far ahead."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lines: asyncio.Queue[str | TowlineError | None],
        room_made: threading.Semaphore,
    ) -> None:
        super().__init__(name="standard-input", daemon=True)
        self._loop, self._lines, self._room_made = loop, lines, room_made

    def run(self) -> None:
        try:
            for line in _lines():
                self._room_made.acquire()
                self._give(line)
            self._give(None)
        except RuntimeError:
            pass  # the loop has ended before standard input did

    def _give(self, line: str | TowlineError | None) -> None:
        self._loop.call_soon_threadsafe(self._lines.put_nowait, line)


def _lines() -> Iterator[str | TowlineError]:
    """The lines up to q alone, each checked; a line that is too long is not held whole.

    Read by descriptor: a thread that waits inside Python's own buffer could not be left behind at exit.
    """
    from towline.services.rooms.limits import ROOM_TEXT

    longest, held, size, data = ROOM_TEXT.value, b"", 0, b"-"
    while data:
        try:
            data = os.read(sys.stdin.fileno(), 64 * 1024)
        except OSError as error:
            yield DiskError(f"Standard input cannot be read: {error.strerror}.")
            return
        *lines, rest = (held + data).split(b"\n")
        if not data and rest:
            lines.append(rest)
        for line in lines:
            if line.strip() in (b"q", b"Q"):
                return
            yield _checked(line.removesuffix(b"\r"), size + len(line), longest)
            size = 0
        if len(rest) > longest:  # keep only how much it is
            size, rest = size + len(rest) - longest, rest[:longest]
        held = rest


def _checked(line: bytes, size: int, longest: int) -> str | TowlineError:
    if size > longest:
        return LimitExceeded(f"Limit room_text is {longest} bytes; a line of {size} was not sent.")
    try:
        return line.decode()
    except UnicodeDecodeError:
        return BadMessage("A line is not UTF-8; it was not sent.")


async def _first(*events: asyncio.Event) -> None:
    waiters = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()


async def _first_of(
    lines: asyncio.Queue[str | TowlineError | None], ended: asyncio.Event
) -> str | TowlineError | None:
    """The next line; None when there is none, or nobody listens any more."""
    line, over = asyncio.ensure_future(lines.get()), asyncio.ensure_future(ended.wait())
    try:
        await asyncio.wait((line, over), return_when=asyncio.FIRST_COMPLETED)
        return line.result() if line.done() else None
    finally:
        line.cancel()
        over.cancel()
