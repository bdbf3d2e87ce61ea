"""`tow classic talk`: lines from a person or a pipe, the dialect's answers back."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from towline.base.errors import Exit, TimedOut, TowlineError, UsageError
from towline.base.quantity import format_size, parse_duration
from towline.base.text import printable
from towline.classic.address import Address, parse_address
from towline.classic.chat_client import ChatTalker
from towline.classic.dialects import Over
from towline.classic.files_client import FilesTalker, Moved
from towline.classic.gate import Gate, read_secret
from towline.classic.lengths import AskTalker, Int32Talker
from towline.classic.shell import ShellInt32Talker, ShellJsonTalker, ShellTalker
from towline.classic.talk import Talker, Wire, dial
from towline.classic.text import ReplyTalker, UpperTalker
from towline.cli.classic import check_over
from towline.cli.output import Output

_TIMEOUT = 10.0
_CHAT_TURN = 1.0  # how long a chat line from a pipe waits for an answer to the one before it


def talk(args: argparse.Namespace, out: Output) -> int:
    """Talk to the end of input (or one `--get`/`--put`); the exit status."""
    over: Over = args.over or ("unix" if args.address.startswith(("/", "./")) else "tcp")
    check_over(args.dialect, over)
    address = parse_address(over, args.address)
    if args.output is not None and args.get is None:
        raise UsageError("-o goes with --get.")
    if args.retry < 0:
        raise UsageError("--retry is a number of times; it is not negative.")
    secret, lax = read_secret(args.secret_file) if args.secret_file else (b"", "")
    if lax:
        out.event("warning", message=lax)
        out.note(f"!!! {printable(lax)}")
    gate = Gate(secret, args.hmac) if secret else None
    if gate is not None and over == "udp":
        raise UsageError("--secret-file needs a connection; UDP has none.")
    with _connect(args, address, out) as wire:
        if gate is not None:
            wire.prove(gate)
        if args.dialect == "chat":
            return _chat(args, wire, out)
        if args.dialect == "files-json":
            return _Files(args, wire, out).run()
        return _messages(args, wire, out)


def _connect(args: argparse.Namespace, address: Address, out: Output) -> Wire:
    def report(event: str, /, **fields: Any) -> None:
        out.event(event, **fields)
        if event == "retry":
            out.note(f"{address}: {printable(fields['reason'])}; attempt {fields['attempt']} of {fields['of']}")
        elif sys.stdin.isatty():
            out.note(f"connected to {address}; no encryption")

    timeout = parse_duration(args.timeout) if args.timeout is not None else _TIMEOUT
    if timeout <= 0:
        raise UsageError("--timeout must be longer than nothing.")
    return dial(address, timeout=timeout, retry=args.retry, on_event=report)


# --- one message, one answer ---


def _messages(args: argparse.Namespace, wire: Wire, out: Output) -> int:
    talker = _talker(args)
    empty_allowed = talker.empty_allowed or wire.datagrams
    status: int = Exit.OK
    for line in _lines():
        message = _encoded(line, args.encoding)
        if not message and not empty_allowed:
            out.event("skipped", reason="empty")
            out.note("An empty message cannot be sent in this dialect: no bytes are no message.")
            continue
        try:
            answer = talker.exchange(wire, message)
        except TimedOut as error:
            if not wire.datagrams and args.dialect not in {"shell", "upper", "reply"}:
                raise
            # here the next message can still be tried: a datagram got lost, or a command prints nothing
            out.error(error, verb="classic")
            status = Exit.OK if args.dialect == "shell" else error.exit_status
            continue
        if not args.no_answer:
            _show(out, answer, args.encoding)
    rest = wire.end_input()
    if rest and args.dialect in {"shell", "upper", "reply"}:
        _show(out, rest, args.encoding)
    return status


def _talker(args: argparse.Namespace) -> Talker:
    makers: dict[str, Callable[[], Talker]] = {
        "upper": UpperTalker,
        "reply": ReplyTalker,
        "int32": lambda: Int32Talker(args.endian, answered=not args.no_answer),
        "ask": lambda: AskTalker(args.ack, answered=not args.no_answer),
        "shell": ShellTalker,
        "shell-int32": lambda: ShellInt32Talker(args.endian),
        "shell-json": lambda: ShellJsonTalker(args.endian),
    }
    return makers[args.dialect]()


def _lines() -> Iterator[bytes]:
    """Lines of standard input without their ends; a person is prompted."""
    if not sys.stdin.isatty():
        for line in sys.stdin.buffer:
            yield line.removesuffix(b"\n").removesuffix(b"\r")
        return
    while True:
        try:
            yield os.fsencode(input("> "))
        except EOFError:
            return


def _encoded(line: bytes, encoding: str) -> bytes:
    """A line as the dialect's bytes; in UTF-8 nothing is touched."""
    if encoding.lower().replace("_", "-") in {"utf-8", "utf8"}:
        return line
    return line.decode(errors="replace").encode(encoding, "replace")


def _show(out: Output, answer: bytes, encoding: str) -> None:
    text = answer.decode(encoding, "replace")
    out.event("answer", bytes=len(answer), text=text)
    out.line(_clean(text))


def _clean(text: str) -> str:
    """Safe for a terminal; line ends and tabs, which commands print, stay."""
    lines = text.removesuffix("\n").replace("\r\n", "\n").split("\n")
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in lines)


# --- chat ---


def _chat(args: argparse.Namespace, wire: Wire, out: Output) -> int:
    def show(text: str) -> None:
        out.event("message", text=text)
        out.line(_clean(text))

    turn = parse_duration(args.timeout) if args.timeout is not None else _CHAT_TURN
    patience = None if sys.stdin.isatty() else turn
    source = sys.stdin.fileno()
    end = ChatTalker(wire, source, show, encoding=args.encoding, patience=patience).run()
    out.event("left", reason=end)
    out.note(f"ended: {end}")
    return Exit.OK


# --- files ---


class _Files:
    """`--get`, `--put`, or the lines `get NAME [FILE]` and `put FILE [NAME]`."""

    def __init__(self, args: argparse.Namespace, wire: Wire, out: Output) -> None:
        self._args = args
        self._out = out
        self._bar: Any = None
        self._began = 0.0
        self._talker = FilesTalker(
            wire,
            endian=args.endian,
            encoding=args.encoding,
            overwrite=args.overwrite,
            on_progress=self._progress if sys.stderr.isatty() and not out.json else None,
        )

    def run(self) -> int:
        if self._args.get is not None:
            self._move("get", self._args.get, self._args.output)
            return Exit.OK
        if self._args.put is not None:
            self._move("put", self._args.put, None)
            return Exit.OK
        status: int = Exit.OK
        for line in _lines():
            try:
                self._line(os.fsdecode(line))
            except TowlineError as error:
                if not self._talker.in_step:
                    raise
                status = error.exit_status
                self._out.error(error, verb="classic")
        return status

    def _line(self, line: str) -> None:
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{error}.") from None
        if not words:
            return
        if "\0" in line:
            raise UsageError("No file has a NUL in its name.")
        if words[0] not in {"get", "put"} or len(words) not in {2, 3}:
            raise UsageError("Write `get NAME [FILE]` or `put FILE [NAME]`.")
        self._move(words[0], words[1], words[2] if len(words) == 3 else None)

    def _move(self, verb: str, what: str, target: str | None) -> None:
        try:
            moved: Moved = (self._talker.fetch if verb == "get" else self._talker.put)(what, target)
        finally:
            bar, self._bar = self._bar, None
            if bar is not None:
                bar.stop()
        direction = "received" if verb == "get" else "sent"
        self._out.event("file", direction=direction, name=moved.name, bytes=moved.size, md5=moved.md5)
        self._out.line(f"{direction} {printable(moved.name)}, {format_size(moved.size)}, md5 {moved.md5}")

    def _progress(self, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            # Rich's own size and speed columns count in powers of ten; everything else here says MiB.
            columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._bar.add_task("", total=total)
            self._began = time.monotonic()
        rate = done / max(time.monotonic() - self._began, 0.001)
        said = f"{format_size(done)} of {format_size(total)}, {format_size(int(rate))}/s"
        self._bar.update(self._bar.task_ids[0], completed=done, description=said)
