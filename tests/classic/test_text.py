"""`upper` and `reply` against plain sockets, both ways."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

import pytest

from towline.base.errors import ClosedEarly, TimedOut, Unreachable
from towline.base.limits import Limit
from towline.classic.address import parse_address
from towline.classic.server import Server
from towline.classic.text import DEFAULT_TEMPLATE, Answering, ReplyTalker, UpperTalker, reply_with, upper

from .kit import DEADLINE, Events, naive_server, naive_udp_server, received, reset, serving, wire_to


def test_upper_serves_the_tutorials_client() -> None:
    with serving(lambda events: Answering(upper)) as served:
        client = served.connect()
        with client:
            for text in ("hello", "sticky packet", "你好 abc ß"):
                client.send(text.encode("utf-8"))
                assert client.recv(1024) == text.encode("utf-8").upper()
        served.events.wait("left", client=1, reason="closed")


def test_a_client_that_comes_as_the_server_ends_is_closed() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(DEADLINE)
            server = Server(parse_address("tcp", "127.0.0.1:0"), Answering(upper), on_event=Events())
            async with server.running():
                server._take(theirs, "")  # its task has not had its first turn when the end comes
            assert theirs.fileno() == -1
            assert ours.recv(1) == b""

    asyncio.run(main())


def test_upper_serves_many_at_once_and_survives_those_that_vanish() -> None:
    with serving(lambda events: Answering(upper)) as served:
        first, second, third = served.connect(), served.connect(), served.connect()
        third.send(b"c")
        assert third.recv(10) == b"C"
        second.send(b"b")
        assert second.recv(10) == b"B"
        first.send(b"a")
        assert first.recv(10) == b"A"
        reset(second)
        served.events.wait("left", client=2, reason="vanished: Connection reset by peer")
        third.close()
        first.send(b"still here")
        assert first.recv(100) == b"STILL HERE"
        first.close()


def test_clients_beyond_the_limit_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.classic.server.CLIENTS", Limit("here", 2, "clients", "a test"))
    with serving(lambda events: Answering(upper)) as served:
        with served.connect() as one, served.connect() as two, served.connect() as three:
            assert "Limit here is 2 clients" in served.events.wait("refused", client=3)["message"]
            assert three.recv(1) == b""
            one.send(b"a")
            assert one.recv(1) == b"A"
            two.close()
            served.events.wait("left", client=2)
        with served.connect() as four:
            four.send(b"d")
            assert four.recv(1) == b"D"


def test_upper_over_a_unix_socket(tmp_path: object) -> None:
    path = f"{tmp_path}/s"
    with serving(lambda events: Answering(upper), "unix", path) as served:
        assert str(served.address) == path
        with served.connect() as client:
            client.sendall(b"unix")
            assert client.recv(1024) == b"UNIX"
    assert not os.path.exists(path)


def test_upper_over_udp_to_each_its_own() -> None:
    with (
        serving(lambda events: Answering(upper), "udp") as served,
        served.connect() as one,
        served.connect() as two,
    ):
        one.send(b"one")
        two.send(b"two")
        two.send(b"")
        assert one.recv(100) == b"ONE"
        assert two.recv(100) == b"TWO"
        assert two.recv(100) == b""
        assert len(served.events.named("joined")) == 2


def test_reply_fills_the_template() -> None:
    with serving(lambda events: Answering(reply_with(DEFAULT_TEMPLATE))) as served, served.connect() as client:
        client.send("在吗".encode())
        assert client.recv(1024).decode() == "我已收到您的请求[在吗],感谢您的关注!"


def test_reply_survives_a_character_cut_by_a_read() -> None:
    character = "你".encode()
    with serving(lambda events: Answering(reply_with("<%s>"))) as served, served.connect() as client:
        client.send(character[:1])
        assert received(client, 3) == b"<" + character[:1] + b">"
        client.send(character[1:])
        assert received(client, 4) == b"<" + character[1:] + b">"
        served.events.wait("request", text="你")


def test_reply_with_a_fixed_answer_over_udp() -> None:
    with serving(lambda events: Answering(reply_with("gun")), "udp") as served, served.connect() as client:
        client.send(b"%s%s")
        assert client.recv(100) == b"gun"


def test_a_percent_sign_from_a_stranger_is_text() -> None:
    assert reply_with("[%s]")(b"%s %d %") == b"[%s %d %]"


def test_an_answer_too_long_for_a_datagram_is_said_and_survived() -> None:
    with (
        serving(lambda events: Answering(reply_with("%s" * 3)), "udp", errors=1) as served,
        served.connect() as client,
    ):
        client.send(b"x" * 60_000)
        served.events.wait("error", name="datagram")
        client.send(b"ok")
        assert client.recv(100) == b"okokok"


def test_our_talk_speaks_to_the_tutorials_server() -> None:
    def server(conn: socket.socket) -> None:
        while True:
            data = conn.recv(1024)
            if not data:
                break
            conn.send(data.upper())

    with naive_server(server) as address, wire_to(address) as wire:
        talker = UpperTalker()
        assert talker.exchange(wire, b"hello") == b"HELLO"
        assert talker.exchange(wire, b"x" * 50_000) == b"X" * 50_000  # in 49 reads over there
        assert talker.exchange(wire, b"bye") == b"BYE"


def test_our_talk_sends_more_than_both_sides_can_hold() -> None:
    with serving(lambda events: Answering(upper)) as served, served.wire() as wire:
        message = b"m" * 20_000_000
        assert UpperTalker().exchange(wire, message) == message.upper()


def test_our_talk_over_udp_and_what_is_lost() -> None:
    with (
        naive_udp_server(lambda data: None if data == b"lost" else data.upper(), 3) as address,
        wire_to(address) as wire,
    ):
        talker = UpperTalker()
        assert talker.exchange(wire, b"a") == b"A"
        patience, wire.timeout = wire.timeout, 0.2
        with pytest.raises(TimedOut, match="UDP may lose"):
            talker.exchange(wire, b"lost")
        wire.timeout = patience
        assert talker.exchange(wire, b"b") == b"B"


def test_our_talk_says_that_nobody_listens_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())  # hears itself alone: nobody is there for us, and nobody else gets the port
        where = f"127.0.0.1:{sock.getsockname()[1]}"
        with wire_to(parse_address("udp", where)) as wire, pytest.raises(Unreachable):
            ReplyTalker().exchange(wire, b"anybody?")


def test_our_talk_names_a_server_that_closes_without_an_answer() -> None:
    def rude(conn: socket.socket) -> None:
        conn.recv(1024)

    def ruder(conn: socket.socket) -> None:
        conn.recv(1024)
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for server in (rude, ruder):
        with naive_server(server) as address, wire_to(address) as wire, pytest.raises(ClosedEarly):
            ReplyTalker().exchange(wire, b"hello")
