"""A login shell on a node, or a terminal program (behind `--`), that goes on when the connection drops.

At the beginning of a line `~.` leaves it running, `~~` types one ~, `~?` shows this. `--attach` goes on with it, from
anywhere; `--read-only` only looks. Exits with the shell's status.

examples:
  tow shell home
  tow shell home -- vim notes.txt
  tow shell home --attach 7h3k-9mq2
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from towline.base.errors import Exit, UsageError
from towline.base.text import printable
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.jobs import Job
    from towline.client.line import Line, LineEvent
    from towline.client.replay import Replay

_READ = 4096
_HELP = b"\r\n~.  leave, the shell goes on\r\n~~  type one ~\r\n"


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.jobbing import take_command
    from towline.cli.run import disconnect_policy
    from towline.cli.running import add_give_up

    parser.add_argument("alias", metavar="ALIAS")
    take_command(parser, help="a program for the terminal (default: the login shell)")
    parser.add_argument("--attach", metavar="JOB", help="go on with a shell that is there")
    parser.add_argument("--read-only", action="store_true", help="with --attach: look, do not type")
    parser.add_argument("--cwd", default="", metavar="DIR", help="where to start (default: the home folder)")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="set a variable; repeatable")
    parser.add_argument(
        "--detach-keys", type=keys, default=b"", metavar="KEYS", help="leave with these: ctrl-p,ctrl-q"
    )
    parser.add_argument(
        "--on-disconnect",
        type=disconnect_policy,
        default=("keep", None),
        metavar="keep|kill|kill-after=TIME",
        help="what happens to it without a client (default: it is kept for 24h)",
    )
    add_give_up(parser)


def keys(text: str) -> bytes:
    """For argparse: `ctrl-p,ctrl-q` or single characters as the bytes that a terminal sends."""
    sent = b""
    for key in text.split(","):
        if key.startswith("ctrl-") and len(key) == 6 and ("a" <= key[5].lower() <= "z" or key[5] in "@[\\]^_"):
            sent += bytes([ord(key[5].upper()) & 0x1F])
        elif len(key) == 1:
            sent += key.encode()
        else:
            raise argparse.ArgumentTypeError(f"{key!r} is no key; write ctrl-p,ctrl-q or single characters")
    return sent


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("tow shell needs a terminal; tow run passes pipes through.")
    if args.read_only and not args.attach:
        raise UsageError("--read-only looks at a shell that is there: add --attach JOB.")
    return run_async(_shell(args, out))


async def _shell(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.jobbing import tell_end
    from towline.client.connect import connect

    bar = _Bar()
    async with connect(args.alias, give_up=args.give_up, on_event=bar.hear) as line:
        job = line.job(args.attach, terminal=True) if args.attach else await _start(line, args)
        out.event("started", job=job.id, node=args.alias)
        bar.job = job
        with _raw(0):
            seen = _Seen()
            try:
                status = await _converse(job, args, bar, seen)
            finally:  # also when it is lost or given up: our terminal is not the program's any more
                os.write(1, seen.undo())
    if status is None:
        out.event("detached", job=job.id)
        out.note(f"Left running; come back with: tow shell {printable(args.alias)} --attach {job.id}")
        return Exit.OK
    if job.ended is not None:
        tell_end(job.id, job.ended, out)
    return status


class _Seen:
    """What the remote side has switched on in our terminal."""

    def __init__(self) -> None:
        from towline.services.jobs.modes import Modes

        self._modes = Modes()

    def feed(self, data: bytes) -> None:
        self._modes.feed(data)

    def undo(self) -> bytes:
        return self._modes.undo()


async def _start(line: Line, args: argparse.Namespace) -> Job:
    from towline.cli.jobbing import variables

    policy, after = args.on_disconnect
    return await line.start(
        args.command, login=not args.command, cwd=args.cwd, env=variables(args.env), size=_size(),
        term=os.environ.get("TERM", ""), on_disconnect=policy, after=after,
    )  # fmt: skip


async def _converse(job: Job, args: argparse.Namespace, bar: _Bar, seen: _Seen) -> int | None:
    """Until the job has ended (its status) or the person leaves (None)."""
    loop = asyncio.get_running_loop()
    showing = asyncio.ensure_future(_show(job, seen, args))
    keyboard = Keyboard(args.detach_keys)
    left = asyncio.Event()
    typed: asyncio.Queue[bytes] = asyncio.Queue()

    def on_key() -> None:
        try:
            pressed = os.read(0, _READ)
        except OSError:
            pressed = b""
        if not pressed:  # the terminal is gone
            loop.remove_reader(0)
            left.set()
            return
        data, leave = keyboard.feed(pressed)
        if keyboard.wants_help:
            keyboard.wants_help = False
            os.write(1, _HELP)
        if data and not args.read_only:
            typed.put_nowait(data)
        if leave:
            left.set()

    loop.add_reader(0, on_key)
    # uvloop makes what it watches not blocking: for our output, too, which is the same terminal, and for whoever has
    # it after us. A key that is there is read without waiting anyway.
    os.set_blocking(0, True)
    tasks = [showing, asyncio.ensure_future(left.wait())]
    if not args.read_only:
        tasks.append(asyncio.ensure_future(_type(job, typed)))
        loop.add_signal_handler(signal.SIGWINCH, lambda: job.resize(*_size()))
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return job.ended.exit_status if job.ended is not None else None
    finally:
        loop.remove_reader(0)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await job.close()


async def _show(job: Job, seen: _Seen, args: argparse.Namespace) -> None:
    from towline.cli.jobbing import write
    from towline.client.output import Chunk

    fresh = bool(args.attach)
    async for item in job.output(-1 if fresh else 1, screen=fresh, note=fresh):
        if not isinstance(item, Chunk):
            continue
        data = item.data if item.screen is None else await _join(job, item.screen, typing=not args.read_only)
        seen.feed(data)
        await write(1, data)


async def _join(job: Job, replay: Replay, *, typing: bool) -> bytes:
    """Our terminal is a new one: what brings it to where the job's is. Whoever types decides its size, too."""
    from towline.cli.terminal.joining import bring_up

    size = _size()
    if typing and size != replay.size:
        job.resize(*size)
    return await asyncio.to_thread(bring_up, replay, *size)


async def _type(job: Job, typed: asyncio.Queue[bytes]) -> None:
    while True:
        await job.write(await typed.get())


class Keyboard:
    """Finds the escapes in what is typed; everything else goes on."""

    def __init__(self, detach: bytes = b"") -> None:
        self.wants_help = False
        self._detach = detach
        self._held = b""  # the beginning of the detach keys
        self._fresh = True  # at the beginning of a line
        self._tilde = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to send, and whether to leave."""
        sent = bytearray()
        for byte in data:
            self._held += bytes([byte])
            if self._detach and self._held == self._detach:
                return bytes(sent), True
            while self._held and not self._detach.startswith(self._held):
                first, self._held = self._held[0], self._held[1:]
                if self._escape(first, sent):
                    return bytes(sent), True
        return bytes(sent), False

    def _escape(self, byte: int, sent: bytearray) -> bool:
        if self._tilde:
            self._tilde = False
            if byte == ord("."):
                return True
            if byte == ord("?"):
                self.wants_help = True
                return False
            sent += b"~" if byte == ord("~") else bytes([ord("~"), byte])
            self._fresh = byte in b"\r\n"
            return False
        if self._fresh and byte == ord("~"):
            self._tilde = True
            return False
        self._fresh = byte in b"\r\n"
        sent.append(byte)
        return False


class _Bar:
    """Says in the first row that the connection is gone; the program repaints it afterwards."""

    def __init__(self) -> None:
        self.job: Job | None = None
        self._shown = False

    def hear(self, event: LineEvent) -> None:
        from towline.client.line import Reconnecting

        if self.job is None:
            return
        if isinstance(event, Reconnecting):
            if event.attempt >= 2:
                self._shown = True
                os.write(
                    1, b"\x1b7\x1b[1;1H\x1b[7m[tow: the connection is gone; trying again, ~. leaves]\x1b[0m\x1b8"
                )
        elif self._shown:
            self._shown = False
            self.job.resize(*_size())


@contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor, termios.TCSANOW)
    try:
        yield
    finally:
        with suppress(termios.error):  # it may be gone
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _size() -> tuple[int, int]:
    try:
        columns, rows = os.get_terminal_size(1)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80
