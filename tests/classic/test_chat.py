"""`chat` against plain sockets: the operator, several clients, rooms, and the letter q."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
from typing import Any

import pytest

from towline.base.errors import ClosedEarly
from towline.classic.chat import Chat, listen_to_operator, says_quit
from towline.classic.chat_client import ChatTalker

from .kit import DEADLINE, Events, Served, ended, naive_server, naive_udp_server, received, serving, wire_to


class Operated:
    """Makes the dialect for `serving` and lets the test be the operator."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self.chat: Chat | None = None

    def __call__(self, events: Events) -> Chat:
        self.chat = Chat(events, **self._options)
        return self.chat

    def says(self, served: Served, line: str) -> None:
        assert self.chat is not None
        served.loop.call_soon_threadsafe(self.chat.operator, line)


def test_turns_with_the_tutorials_client_until_q() -> None:
    operator = Operated()
    with serving(operator) as served, served.connect() as client:
        client.send("你好".encode())
        served.events.wait("message", client=1, text="你好")
        operator.says(served, "hello yourself")
        assert client.recv(1024) == b"hello yourself"
        client.send(b"Q")
        assert ended(client)
        served.events.wait("left", client=1)
        with served.connect() as other:
            other.send(b"next")
            served.events.wait("message", client=2, text="next")


def test_an_operators_line_without_text_or_with_an_absurd_number() -> None:
    operator = Operated()
    with serving(operator) as served, served.connect() as client:
        client.send(b"hello")
        served.events.wait("message")
        operator.says(served, "@1")
        operator.says(served, "@1 ")
        served.events.wait("notice", message="Nothing was sent: there is no text behind the number.")
        absurd = "@" + "9" * 5000
        operator.says(served, absurd)  # no number of a client: text like any other
        assert received(client, len(absurd)) == absurd.encode()
        assert [event["text"] for event in served.events.named("sent")] == [absurd]


def test_the_operator_answers_any_and_ends_one() -> None:
    operator = Operated()
    with serving(operator) as served, served.connect() as one, served.connect() as two:
        one.send(b"i am one")
        served.events.wait("message", text="i am one")
        two.send(b"i am two")
        served.events.wait("message", text="i am two")
        numbers = {event["text"]: event["client"] for event in served.events.named("message")}
        operator.says(served, f"@{numbers['i am one']} to one")
        assert one.recv(100) == b"to one"
        operator.says(served, "to the last")
        assert two.recv(100) == b"to the last"
        operator.says(served, "@77 nobody")
        served.events.wait("notice", message="Client 77 is not there.")
        operator.says(served, f"@{numbers['i am two']} q")
        assert received(two, 1) == b"q"
        assert ended(two)
        operator.says(served, "still with me?")
        assert one.recv(100) == b"still with me?"


def test_a_room_lets_all_hear_each_other() -> None:
    operator = Operated(room=True)
    with serving(operator) as served, served.connect() as one, served.connect() as two:
        served.events.wait("joined", client=2)
        one.send(b"hi all")
        event = served.events.wait("message", text="hi all")
        assert two.recv(100) == f"[{event['client']}] hi all".encode()
        operator.says(served, "welcome")
        assert one.recv(100) == b"welcome"
        assert two.recv(100) == b"welcome"


def test_a_character_cut_by_a_read_is_not_broken() -> None:
    with serving(Operated()) as served, served.connect() as client:
        raw = "好".encode()
        client.send(raw[:2])
        client.send(raw[2:])
        served.events.wait("message", text="好")


def test_a_client_that_never_reads_is_dropped_and_the_others_stay() -> None:
    operator = Operated(room=True)
    with serving(operator) as served, served.connect() as deaf, served.connect() as other:
        served.events.wait("joined", client=2)
        deaf.send(b"x")
        assert received(other, 5) == b"[1] x"
        line = "@1 " + "y" * 100_000
        for _ in range(200):  # more than both kernels' buffers and the queue hold
            operator.says(served, line)
        served.events.wait("refused", client=1, name="limit")
        operator.says(served, "@2 fine")
        assert received(other, 4) == b"fine"


def test_udp_keeps_one_conversation_for_each_address() -> None:
    operator = Operated()
    with serving(operator, "udp") as served, served.connect() as one, served.connect() as two:
        one.send(b"from one")
        served.events.wait("message", text="from one", client=1)
        two.send(b"from two")
        served.events.wait("message", text="from two", client=2)
        operator.says(served, "@1 hi one")
        assert one.recv(100) == b"hi one"
        operator.says(served, "hi last")
        assert two.recv(100) == b"hi last"
        two.send(b"q")
        served.events.wait("left", client=2)
        two.send(b"again")
        served.events.wait("message", text="again", client=3)
        operator.says(served, "@1 q")
        assert one.recv(100) == b"q"
        served.events.wait("left", client=1)


def test_says_quit() -> None:
    assert says_quit("q")
    assert says_quit("bye\nQ\n")
    assert not says_quit("quit")
    assert not says_quit("")


def test_the_operators_lines_come_from_a_pipe_to_its_end() -> None:
    read, write = os.pipe()
    os.write(write, b"one\nt")
    os.write(write, "wo\n最后".encode())
    os.close(write)

    async def main() -> list[str]:
        lines: list[str] = []
        done = asyncio.Event()

        def take(line: str) -> None:
            lines.append(line)
            if len(lines) == 3:
                done.set()

        listen_to_operator(read, take)
        await asyncio.wait_for(done.wait(), 10)
        return lines

    assert asyncio.run(main()) == ["one", "two", "最后"]
    os.close(read)


def test_the_operator_may_type_at_a_terminal_that_is_not_our_own() -> None:
    master, terminal = pty.openpty()  # as under setsid, or in a container
    lines: list[str] = []

    async def main() -> None:
        typed = asyncio.Event()

        def take(line: str) -> None:
            lines.append(line)
            typed.set()

        listen_to_operator(terminal, take)
        os.write(master, b"hello\n")
        async with asyncio.timeout(DEADLINE):
            await typed.wait()

    try:
        asyncio.run(main())
    finally:
        os.close(master)  # ends the thread that reads
        os.close(terminal)
    assert lines == ["hello"]


class Person:
    """Lines into a pipe for our client, what it shows in a list."""

    def __init__(self, text: str) -> None:
        self.source, write = os.pipe()
        os.write(write, text.encode())
        os.close(write)
        self.shown: list[str] = []

    def talk(self, wire: Any, patience: float | None = 10.0) -> str:
        try:
            return ChatTalker(wire, self.source, self.shown.append, patience=patience).run()
        finally:
            os.close(self.source)


def test_our_talk_takes_turns_with_the_tutorials_server() -> None:
    heard = []

    def server(conn: socket.socket) -> None:
        while True:
            data = conn.recv(1024)
            heard.append(data)
            if not data or data.decode().upper() == "Q":
                break
            conn.send(f"you said {data.decode()}".encode())

    with naive_server(server, clients=2) as address:
        with wire_to(address) as wire:
            person = Person("hello\n\n你好\nq\nnever\n")
            assert person.talk(wire) == "our q"
        with wire_to(address) as wire:
            other = Person("to the end")
            assert other.talk(wire) == "end of input"
    assert person.shown == ["you said hello", "you said 你好"]
    assert other.shown == ["you said to the end"]
    assert heard == [b"hello", "你好".encode(), b"q", b"to the end", b""]


def test_our_talk_ends_at_the_servers_q() -> None:
    def server(conn: socket.socket) -> None:
        conn.recv(1024)
        conn.send(b"q")
        assert conn.recv(10) == b""

    with naive_server(server) as address, wire_to(address) as wire:
        assert Person("hello\nmore\n").talk(wire) == "their q"


def test_our_talk_says_what_was_not_sent() -> None:
    def server(conn: socket.socket) -> None:
        conn.recv(1024)

    with naive_server(server) as address, wire_to(address) as wire, pytest.raises(ClosedEarly, match="1 lines"):
        Person("hello\nmore\n").talk(wire)


def test_a_person_and_the_server_may_speak_at_any_time() -> None:
    def server(conn: socket.socket) -> None:
        conn.send(b"first word")
        heard = b""
        while not heard.endswith(b"Q"):
            heard += conn.recv(1024)
        assert heard == b"onetwoQ"

    with naive_server(server) as address, wire_to(address) as wire:
        assert Person("one\ntwo\nQ\n").talk(wire, patience=None) == "our q"


def test_our_talk_over_udp() -> None:
    with naive_udp_server(lambda data: b"re: " + data, 2) as address, wire_to(address) as wire:
        person = Person("a\nb\n")
        assert person.talk(wire) == "end of input"
    assert person.shown == ["re: a", "re: b"]
