"""`shell`, `shell-int32`, `shell-json`: one read is a command, its stdout and then its stderr are the answer.

Whoever connects runs commands as the serving user. So: nothing runs without the operator's `--allow-run`; with a list
of allowed first words no shell is involved; every command has a time, an output cap, and its whole process group is
killed at its end (what has left the group by setsid(2) is out of reach).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Literal

from msgspec import Struct

from towline.base.errors import DialectError, VerificationFailed
from towline.base.text import printable
from towline.classic.codecs import Chunk, Header, encode_header, encode_int32
from towline.classic.dialects import Endian
from towline.classic.lengths import Int32Talker
from towline.classic.limits import ANSWER, ANSWER_SECONDS, COMMANDS, OUTPUT
from towline.classic.server import Peer
from towline.classic.talk import Talker, Wire

Framing = Literal["shell", "shell-int32", "shell-json"]

METACHARACTERS = frozenset("|&;<>()$`\\\"'*?[]{}#~!\n\r")
_PIPE_GRACE = 0.2  # for output still in the pipes when the command has ended; a daemon may keep them open for ever
_REAP_SECONDS = 2.0


class Rules(Struct, frozen=True):
    """What may run: `allowed` first words (None: any command line, by /bin/sh), seconds, bytes of output."""

    allowed: frozenset[str] | None = None
    seconds: float = 10.0
    output: int = OUTPUT.value
    encoding: str = "utf-8"

    def argv(self, command: str) -> list[str]:
        """The argument list for `command`. Raises DialectError, the sentence of which is the client's answer."""
        if not command.strip() or "\0" in command:
            raise DialectError("That is not a command.")
        if self.allowed is None:
            return ["/bin/sh", "-c", command]
        used = sorted(METACHARACTERS.intersection(command))
        if used:
            raise DialectError(f"Only plain commands are allowed here; {' '.join(map(repr, used))} is not plain.")
        words = command.split()
        if words[0] not in self.allowed:
            raise DialectError(f"{words[0]!r} is not allowed here; allowed: {', '.join(sorted(self.allowed))}.")
        return words


@dataclass(slots=True)
class Ran:
    """A command's output; `remark` says why it was cut short, `status` is None then."""

    stdout: bytes = b""
    stderr: bytes = b""
    status: int | None = None
    remark: str = ""
    encoding: str = "utf-8"

    @property
    def payload(self) -> bytes:
        """stdout, then stderr, then the remark if there is one: it is ours, so in the encoding that was asked for."""
        remark = f"[{self.remark}]\n".encode(self.encoding, "replace") if self.remark else b""
        return self.stdout + self.stderr + remark


class Shell:
    """The server of the three shell dialects."""

    def __init__(self, framing: Framing, rules: Rules, endian: Endian = "little") -> None:
        self._rules = rules
        framings: dict[Framing, Callable[[str, bytes], bytes]] = {
            "shell": _raw,
            "shell-int32": partial(_behind_length, endian),
            "shell-json": partial(_behind_header, endian),
        }
        self._frame = framings[framing]
        self._slots = asyncio.Semaphore(COMMANDS.value)

    async def converse(self, peer: Peer) -> None:
        """One read, one command, one answer, until the client's end."""
        while data := await peer.read():
            try:
                command = data.decode(self._rules.encoding).rstrip("\r\n")
                argv = self._rules.argv(command)
            except UnicodeDecodeError:
                await self._refuse(peer, "", f"The command is not {self._rules.encoding} text.")
            except DialectError as error:
                await self._refuse(peer, command, error.sentence)
            else:
                await self._run(peer, command, argv)

    async def _run(self, peer: Peer, command: str, argv: list[str]) -> None:
        peer.say("request", text=command)
        async with self._slots:  # held until the output is gone: it is memory as well as a process
            ran = await run(argv, self._rules)
            peer.say("ran", text=command, status=ran.status, bytes=len(ran.payload), remark=ran.remark)
            async with asyncio.timeout(ANSWER_SECONDS.value):
                await peer.send(self._frame(command, ran.payload))

    async def _refuse(self, peer: Peer, command: str, sentence: str) -> None:
        peer.say("refused", code=DialectError.code, name="command-refused", message=sentence)
        ran = Ran(remark=f"refused: {sentence}", encoding=self._rules.encoding)
        await peer.send(self._frame(command, ran.payload))


async def run(argv: list[str], rules: Rules) -> Ran:
    """Run `argv` in a group of its own under `rules`; never raises for what the command does or is."""
    try:
        process = subprocess.Popen(  # noqa: ASYNC220  (starts at once; its end is awaited by descriptor)
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        return Ran(remark=f"not run: {argv[0]}: {error.strerror}", encoding=rules.encoding)
    assert process.stdout is not None
    assert process.stderr is not None
    collected = _Collected(rules.output)
    exited = asyncio.ensure_future(_exited(process))
    full = asyncio.ensure_future(collected.full.wait())
    pipes: list[_Pipe] = []
    try:
        for output in (process.stdout, process.stderr):
            pipes.append(await collected.follow(output))  # noqa: PERF401  (what is open must be closed below)
        done, _ = await asyncio.wait({exited, full}, timeout=rules.seconds, return_when=asyncio.FIRST_COMPLETED)
        if exited in done and not collected.full.is_set():
            await asyncio.wait([pipe.ended for pipe in pipes], timeout=_PIPE_GRACE)
    finally:
        exited.cancel()
        full.cancel()
        _end_group(process)
        for pipe in pipes:
            pipe.close()
    ran = Ran(bytes(pipes[0].data), bytes(pipes[1].data), encoding=rules.encoding)
    if collected.full.is_set():
        ran.remark = f"cut: limit {OUTPUT.name} is {rules.output} {OUTPUT.unit} here; the command was stopped"
    elif not done:
        ran.remark = f"stopped after {rules.seconds:g} s"
    else:
        ran.status = process.returncode
    return ran


@dataclass(slots=True)
class _Collected:
    """Both outputs of one command under one cap."""

    left: int
    full: asyncio.Event = field(default_factory=asyncio.Event)

    async def follow(self, pipe: IO[bytes]) -> _Pipe:
        loop = asyncio.get_running_loop()
        _, protocol = await loop.connect_read_pipe(lambda: _Pipe(self), pipe)
        return protocol

    def take(self, data: bytes) -> bytes:
        """As much of `data` as the cap has room for."""
        taken = data[: self.left]
        self.left -= len(taken)
        if len(taken) < len(data):
            self.full.set()
        return taken


class _Pipe(asyncio.Protocol):
    """One output of a command."""

    def __init__(self, collected: _Collected) -> None:
        self.data = bytearray()
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._collected = collected
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += self._collected.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def _exited(process: subprocess.Popen[bytes]) -> None:
    """Wait until the process has ended, without reaping it: its group's number stays its own."""
    if not hasattr(os, "pidfd_open"):
        await asyncio.to_thread(process.wait)
        return
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, lambda: None if ended.done() else ended.set_result(None))
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the group, then reap its leader."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: init's matter then
        process.wait(_REAP_SECONDS)


def _raw(command: str, payload: bytes) -> bytes:
    return payload


def _behind_length(endian: Endian, command: str, payload: bytes) -> bytes:
    return encode_int32(payload, endian)


def _behind_header(endian: Endian, command: str, payload: bytes) -> bytes:
    md5 = hashlib.md5(payload, usedforsecurity=False).hexdigest()
    header = {"filename": printable(command, limit=255), "md5": md5, "total_size": len(payload)}
    return encode_header(header, endian) + payload


class ShellTalker(Talker):
    """The client of `shell`: the output ends when the line goes quiet; silence may be an empty output."""

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send the command, give its output."""
        wire.send(message)
        return wire.answer()


class ShellInt32Talker(Int32Talker):
    """The client of `shell-int32`: the command goes out raw, the answer comes behind its length."""

    empty_allowed = False

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send the command, give its output."""
        wire.send(message)
        return self.answer(wire)


class ShellJsonTalker(Talker):
    """The client of `shell-json`: the output is shown only when its md5 is right."""

    def __init__(self, endian: Endian = "little") -> None:
        self._endian = endian

    def exchange(self, wire: Wire, message: bytes) -> bytes:
        """Send the command, give its output. Raises VerificationFailed."""
        wire.send(message)
        payload, fields = bytearray(), {}
        for event in wire.headered("total_size", self._endian, ANSWER):
            if isinstance(event, Header):
                fields = event.fields
            elif isinstance(event, Chunk):
                payload += event.data
        check_md5(fields, hashlib.md5(payload, usedforsecurity=False).hexdigest())
        return bytes(payload)


def check_md5(fields: dict[str, object], ours: str) -> None:
    """Compare the header's md5 with that of what arrived. Raises VerificationFailed or DialectError."""
    theirs = fields.get("md5")
    if not isinstance(theirs, str):
        raise DialectError("The header names no md5, so what arrived cannot be verified.")
    if theirs.strip().lower() != ours:
        raise VerificationFailed(f"md5 of what arrived is {ours}, the header says {theirs}; nothing was kept.")
