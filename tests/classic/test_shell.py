"""The three shell dialects against plain sockets, and everything that must not run, last or grow for ever."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import struct
import time
from typing import Any

import pytest

from towline.base.errors import ClosedEarly, DialectError, LimitExceeded, TowlineError, VerificationFailed
from towline.classic.shell import (
    Rules,
    Shell,
    ShellInt32Talker,
    ShellJsonTalker,
    ShellTalker,
    run,
)

from .kit import int32, naive_server, received, serving, wire_to

OPEN = Rules()


def both(conn: socket.socket) -> bytes:
    """A tutorial's client of shell-json."""
    header = json.loads(received(conn, struct.unpack("i", received(conn, 4))[0]))
    payload = received(conn, header["total_size"])
    assert hashlib.md5(payload).hexdigest() == header["md5"]
    assert "filename" in header
    return payload


def test_shell_serves_the_tutorials_client() -> None:
    with serving(lambda events: Shell("shell", OPEN)) as served, served.connect() as client:
        client.send(b"echo out; echo err >&2; echo more")
        assert received(client, 13) == b"out\nmore\nerr\n"
        client.send(b"pwd\n")
        assert client.recv(1024).decode() == os.getcwd() + "\n"


def test_shell_int32_serves_the_tutorials_client() -> None:
    with serving(lambda events: Shell("shell-int32", OPEN)) as served, served.connect() as client:
        for command, answer in ((b"printf %070000d 7", b"0" * 69_999 + b"7"), (b"true", b""), (b"echo hi", b"hi\n")):
            client.send(command)
            assert received(client, struct.unpack("i", received(client, 4))[0]) == answer


def test_shell_json_serves_the_tutorials_client() -> None:
    with serving(lambda events: Shell("shell-json", OPEN)) as served, served.connect() as client:
        client.send(b"echo out; echo err >&2")
        assert both(client) == b"out\nerr\n"
        client.send(b"true")
        assert both(client) == b""


def test_big_endian_headers() -> None:
    with serving(lambda events: Shell("shell-int32", OPEN, "big")) as served, served.connect() as client:
        client.send(b"echo hi")
        assert received(client, 7) == b"\x00\x00\x00\x03hi\n"


def answer_of(rules: Rules, command: bytes, encoding: str = "utf-8") -> str:
    with serving(lambda events: Shell("shell-int32", rules)) as served, served.connect() as client:
        client.send(command)
        return received(client, struct.unpack("i", received(client, 4))[0]).decode(encoding)


@pytest.mark.parametrize(
    "command",
    [
        b"rm x",
        b"echo a; rm x",
        b"echo $(id)",
        b"echo `id`",
        b"echo a > b",
        b"echo a\nid",
        b"echo 'a'",
        b"/bin/echo a",
    ],
)
def test_only_plain_allowed_commands_run(command: bytes) -> None:
    assert answer_of(Rules(allowed=frozenset({"echo", "uname"})), command).startswith("[refused: ")


def test_an_allowed_command_runs_as_words() -> None:
    assert answer_of(Rules(allowed=frozenset({"echo"})), b"echo  a   b") == "a b\n"
    assert "No such file" in answer_of(Rules(allowed=frozenset({"no-such-thing"})), b"no-such-thing")


def test_commands_and_answers_in_gbk() -> None:
    command = "echo 中文; echo 中文 | wc -m".encode("gbk")
    assert answer_of(Rules(encoding="gbk"), command).startswith("中文\n")
    assert "is not utf-8 text" in answer_of(OPEN, command)


def test_what_we_say_ourselves_is_in_the_clients_encoding() -> None:
    rules = Rules(encoding="gbk", allowed=frozenset({"目录"}))
    assert "'删除' is not allowed" in answer_of(rules, "删除".encode("gbk"), "gbk")
    assert "not run: 目录" in answer_of(rules, "目录".encode("gbk"), "gbk")


@pytest.mark.parametrize("command", [b"  ", b"a\0b"])
def test_what_is_no_command_is_refused(command: bytes) -> None:
    assert answer_of(OPEN, command) == "[refused: That is not a command.]\n"


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # an orphan that nobody has reaped yet is dead too
        return file.read().rpartition(")")[2].split()[0] != "Z"


def gone(pid: int) -> bool:
    """Whether the process ends soon (SIGKILL has been sent; its effect takes a moment)."""
    deadline = time.monotonic() + 10
    while alive(pid):
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def test_a_command_over_its_time_is_killed_with_its_whole_group() -> None:
    ran = asyncio.run(run(["/bin/sh", "-c", "sleep 300 & echo $!; sleep 300"], Rules(seconds=0.3)))
    assert ran.remark == "stopped after 0.3 s"
    assert ran.status is None
    assert gone(int(ran.stdout))
    assert ran.payload.endswith(b"[stopped after 0.3 s]\n")


def test_a_daemon_that_keeps_the_pipe_open_holds_nobody() -> None:
    before = time.monotonic()
    ran = asyncio.run(run(["/bin/sh", "-c", "sleep 300 & echo $!"], Rules(seconds=60)))
    assert time.monotonic() - before < 30
    assert ran.status == 0
    assert gone(int(ran.stdout))


def test_output_is_capped() -> None:
    ran = asyncio.run(run(["/bin/sh", "-c", "yes; echo never"], Rules(output=100_000, seconds=60)))
    assert len(ran.stdout) == 100_000
    assert "classic_output" in ran.remark


def test_commands_leave_no_descriptors() -> None:
    async def many() -> int:
        await run(["/bin/true"], OPEN)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            assert (await run(["/bin/true"], OPEN)).status == 0
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(many()) <= 0


def test_our_shell_talk_with_the_tutorials_server() -> None:
    def server(conn: socket.socket) -> None:
        while command := conn.recv(1024):
            conn.sendall(b"ran " + command)

    with naive_server(server) as address, wire_to(address) as wire:
        assert ShellTalker().exchange(wire, b"ls") == b"ran ls"
        assert ShellTalker().exchange(wire, b"pwd") == b"ran pwd"


def test_our_shell_int32_talk_with_the_tutorials_server() -> None:
    def server(conn: socket.socket) -> None:
        while conn.recv(1024):
            out, err = b"o" * 5000, b"err"
            conn.send(struct.pack("i", len(out) + len(err)))
            conn.send(out)
            conn.send(err)

    with naive_server(server) as address, wire_to(address) as wire:
        assert ShellInt32Talker().exchange(wire, b"ls") == b"o" * 5000 + b"err"
        assert ShellInt32Talker().exchange(wire, b"ls") == b"o" * 5000 + b"err"


def json_server(header: dict[str, Any], payload: bytes, *, sticky: bool = False) -> Any:
    """A tutorial's server that answers each command with this."""

    def server(conn: socket.socket) -> None:
        while conn.recv(1024):
            raw = json.dumps(header).encode("utf-8")
            pieces = [struct.pack("i", len(raw)), raw, payload]
            for piece in [b"".join(pieces)] if sticky else pieces:
                conn.sendall(piece)
            if len(payload) != header.get("total_size"):
                break

    return server


@pytest.mark.parametrize("sticky", [False, True])
def test_our_shell_json_talk_with_the_tutorials_server(sticky: bool) -> None:
    payload = b"p" * 100_000
    header = {"filename": "a.txt", "md5": hashlib.md5(payload).hexdigest(), "total_size": len(payload)}
    with naive_server(json_server(header, payload, sticky=sticky)) as address, wire_to(address) as wire:
        assert ShellJsonTalker().exchange(wire, b"ls") == payload
        assert ShellJsonTalker().exchange(wire, b"ls") == payload


@pytest.mark.parametrize(
    ("header", "payload", "kind"),
    [
        ({"md5": "0" * 32, "total_size": 3}, b"abc", VerificationFailed),
        ({"total_size": 3}, b"abc", DialectError),
        ({"md5": "0" * 32, "total_size": 30}, b"abc", ClosedEarly),
        ({"md5": "0" * 32, "total_size": -3}, b"", DialectError),
        ({"md5": "0" * 32, "total_size": 10**12}, b"", LimitExceeded),
        ({"md5": "0" * 32}, b"", DialectError),
    ],
)
def test_our_shell_json_talk_has_an_answer_to_sloppy_servers(
    header: dict[str, Any], payload: bytes, kind: type[TowlineError]
) -> None:
    with naive_server(json_server(header, payload)) as address, wire_to(address) as wire, pytest.raises(kind):
        ShellJsonTalker().exchange(wire, b"ls")


def test_a_header_length_below_zero_or_above_reason_is_refused() -> None:
    for length, kind in ((int32(-1), DialectError), (int32(2**30), LimitExceeded)):

        def sloppy(conn: socket.socket, length: bytes = length) -> None:
            conn.recv(1024)
            conn.sendall(length)

        with naive_server(sloppy) as address, wire_to(address) as wire, pytest.raises(kind):
            ShellJsonTalker().exchange(wire, b"ls")
