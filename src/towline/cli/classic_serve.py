"""`tow classic serve`: puts a dialect, an address and a check together, and prints what happens."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from towline.base.errors import DiskError, UsageError
from towline.base.quantity import format_size, parse_duration, parse_size
from towline.base.text import printable
from towline.classic.address import Address, parse_address
from towline.classic.chat import Chat, listen_to_operator
from towline.classic.dialects import OVERS, SHELLS
from towline.classic.files import Files
from towline.classic.gate import Gate, read_secret
from towline.classic.lengths import Ask, Int32, Sink
from towline.classic.limits import OUTPUT
from towline.classic.server import OnEvent, Peer, Server
from towline.classic.shell import Rules, Shell
from towline.classic.text import DEFAULT_TEMPLATE, Answering, reply_with, upper
from towline.cli.classic import check_over
from towline.cli.output import Output, lasting
from towline.cli.signals import on_ending
from towline.services.files.tree import Root

_WARNING = "NO ENCRYPTION: everybody on the way can read and change what is said."


def serve(args: argparse.Namespace, out: Output) -> int:
    """Serve until SIGINT or SIGTERM; 0."""
    address = _address(args)
    secret, lax = read_secret(args.secret_file) if args.secret_file else (b"", "")
    guard = Gate(secret, args.hmac) if secret else None
    if guard is not None and address.over == "udp":
        raise UsageError("--secret-file needs a connection; UDP has none.")
    with contextlib.ExitStack() as stack:
        asyncio.run(_serve(args, address, guard, Reporter(out, lax), stack))
    return 0


async def _serve(
    args: argparse.Namespace, address: Address, guard: Gate | None, report: OnEvent, stack: contextlib.ExitStack
) -> None:
    dialect = _dialect(args, report, stack)
    server = Server(address, dialect, on_event=report, guard=guard)
    if isinstance(dialect, Chat):
        listen_to_operator(0, dialect.operator)
    stop = asyncio.Event()
    on_ending(stop.set)
    async with server.running():
        await stop.wait()


def _address(args: argparse.Namespace) -> Address:
    over, text = next((name, value) for name in OVERS if (value := getattr(args, name)) is not None)
    check_over(args.dialect, over)
    return parse_address(over, text)


def _dialect(args: argparse.Namespace, report: OnEvent, stack: contextlib.ExitStack) -> Any:
    sink = _sink(args.sink, report, stack)
    if args.dialect == "upper":
        return Answering(upper, args.encoding)
    if args.dialect == "reply":
        template = DEFAULT_TEMPLATE if args.template is None else args.template
        return Answering(reply_with(template, args.encoding), args.encoding)
    if args.dialect == "chat":
        return Chat(report, room=args.room, encoding=args.encoding)
    if args.dialect == "int32":
        return Int32(args.endian, sink)
    if args.dialect == "ask":
        return Ask(args.ack, sink)
    if args.dialect in SHELLS:
        return Shell(args.dialect, _rules(args), args.endian)
    if not args.root:
        raise UsageError("files-json needs --root DIR, the folder that names stay in.")
    root = stack.enter_context(Root.open(args.root, portable=False))
    return Files(root, overwrite=args.overwrite, endian=args.endian, encoding=args.encoding)


def _rules(args: argparse.Namespace) -> Rules:
    if not args.allow_run:
        raise UsageError(f"{args.dialect} runs what any client sends, as you. If that is meant, say --allow-run.")
    allowed = None
    if args.allow is not None:
        allowed = frozenset(word.strip() for word in args.allow.split(",") if word.strip())
        if not allowed:
            raise UsageError("--allow names no command.")
    seconds = parse_duration(args.timeout) if args.timeout is not None else 10.0
    if seconds <= 0:
        raise UsageError("--timeout must be longer than nothing.")
    output = parse_size(args.max_output) if args.max_output is not None else OUTPUT.value
    return Rules(allowed=allowed, seconds=seconds, output=output, encoding=args.encoding)


def _sink(path: str | None, report: OnEvent, stack: contextlib.ExitStack) -> Sink | None:
    if path is None:
        return None
    if path == "-":
        return lambda peer, message: peer.say("message", bytes=len(message), text=message.decode(errors="replace"))
    try:
        file = stack.enter_context(open(path, "ab", buffering=0))  # noqa: SIM115
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}.") from None

    def write(peer: Peer, message: bytes) -> None:
        line = memoryview(message + b"\n")
        try:
            while line:
                line = line[file.write(line) :]  # a disk that gets full takes a part of it and says nothing
        except OSError as error:
            raise DiskError(f"A message was not kept: {error.strerror}.") from None
        peer.say("collected", bytes=len(message))

    return write


class Reporter:
    """Events of a server, as JSON lines or as lines for a person."""

    def __init__(self, out: Output, warning: str = "") -> None:
        self._out = out
        self._lasting = lasting("classic")
        self._warnings = [each for each in (_WARNING, warning) if each]

    def __call__(self, event: str, /, **fields: object) -> None:
        """Print one event; the server goes on where that cannot be done."""
        with self._lasting:
            self._print(event, fields)

    def _print(self, event: str, fields: dict[str, Any]) -> None:
        self._out.event(event, **fields)
        if event == "listening":
            for warning in self._warnings:  # behind it: programs read the address from the first line
                self._out.event("warning", message=warning)
                self._out.note(f"!!! {printable(warning)}")
        if not self._out.json:
            shown = _LINES.get(event, _plain)(fields)
            (self._out.note if event in {"error", "notice"} else self._out.line)(shown)


def _plain(fields: dict[str, Any]) -> str:
    return "  ".join(f"{name} {printable(str(value))}" for name, value in fields.items())


def _request(fields: dict[str, Any]) -> str:
    if "upload" in fields:
        return f"{fields['client']}: wants to upload {printable(fields['upload'])}, {format_size(fields['bytes'])}"
    if "name" in fields:
        return f"{fields['client']}: asks for {printable(fields['name'])}"
    return f"{fields['client']}: {_text(fields)}"


def _ran(fields: dict[str, Any]) -> str:
    how = fields["remark"] or f"status {fields['status']}"
    return f"{fields['client']}: answered {fields['bytes']} bytes, {printable(how)}"


def _text(fields: dict[str, Any]) -> str:
    return printable(str(fields.get("text", "")).rstrip("\r\n"), limit=400)


_LINES: dict[str, Callable[[dict[str, Any]], str]] = {
    "listening": lambda f: f"listening on {printable(f['address'])}",
    "stopped": lambda f: "stopped",
    "joined": lambda f: f"+ {f['client']} {printable(f['peer'])}",
    "left": lambda f: f"- {f['client']} {printable(f['peer'])} ({printable(f['reason'])})",
    "request": _request,
    "ran": _ran,
    "message": lambda f: f"{f['client']}> {_text(f)}",
    "collected": lambda f: f"{f['client']}: {f['bytes']} bytes collected",
    "sent": lambda f: f"to {', '.join(map(str, f['clients']))}: {_text(f)}",
    "file": lambda f: f"{f['client']}: {f['direction']} {printable(f['name'])}, {format_size(f['bytes'])}",
    "refused": lambda f: f"{f['client']}: refused ({f['name']}): {printable(f['message'])}",
    "error": lambda f: f"tow classic: {printable(f['message'])}",
    "notice": lambda f: printable(f["message"]),
}
