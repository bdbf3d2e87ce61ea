"""`int32` and `ask` against plain sockets, both ways, and the lengths that nobody should believe."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest

from towline.base.errors import ClosedEarly, DialectError, LimitExceeded, TowlineError
from towline.base.limits import Limit
from towline.classic.lengths import Ask, AskTalker, Int32, Int32Talker

from .kit import ended, int32, naive_server, received, serving, wire_to


def collect(events: Any) -> Any:
    return lambda peer, message: events("kept", message=message)


def test_int32_serves_the_tutorials_client() -> None:
    with serving(lambda events: Int32()) as served, served.connect() as client:
        for text in (b"hello", b"", b"x" * 100_000, "你好abc".encode()):
            client.send(struct.pack("i", len(text)))
            client.sendall(text)
            length = struct.unpack("i", received(client, 4))[0]
            assert received(client, length) == text.upper()


def test_int32_big_endian() -> None:
    with serving(lambda events: Int32("big")) as served, served.connect() as client:
        client.sendall(b"\x00\x00\x00\x02hi")
        assert received(client, 6) == b"\x00\x00\x00\x02HI"


def test_int32_takes_messages_that_stick_and_messages_in_drops() -> None:
    with serving(lambda events: Int32()) as served, served.connect() as client:
        client.sendall(int32(1) + b"a" + int32(2) + b"bc" + int32(3)[:2])
        assert received(client, 11) == int32(1) + b"A" + int32(2) + b"BC"
        client.sendall(int32(3)[2:] + b"d")
        client.sendall(b"ef")
        assert received(client, 7) == int32(3) + b"DEF"


@pytest.mark.parametrize(("length", "name"), [(int32(-5), "dialect"), (b"POST", "limit")])
def test_int32_refuses_lengths_and_lives(length: bytes, name: str) -> None:
    with serving(lambda events: Int32()) as served, served.connect() as other:
        with served.connect() as client:
            client.sendall(int32(2) + b"ok" + length + b"whatever")
            assert received(client, 6) == int32(2) + b"OK"
            assert ended(client)
        served.events.wait("refused", name=name)
        other.sendall(int32(1) + b"x")
        assert received(other, 5) == int32(1) + b"X"


def test_unfinished_messages_of_all_clients_have_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.classic.lengths.MEMORY", Limit("here", 100_000, "bytes", "a test"))
    with serving(lambda events: Int32()) as served, served.connect() as one, served.connect() as two:
        one.sendall(int32(90_000) + b"1" * 60_000)
        served.events.wait("joined", client=2)
        two.sendall(int32(90_000) + b"2" * 60_000)
        refused = served.events.wait("refused", name="limit")
        assert "Limit here" in refused["message"]
        survivor, byte = (one, b"1") if refused["client"] == 2 else (two, b"2")
        survivor.sendall(byte * 30_000)
        assert received(survivor, 90_004)[4:] == byte * 90_000


def test_int32_sink_answers_nothing() -> None:
    with serving(lambda events: Int32(sink=collect(events))) as served, served.connect() as client:
        client.sendall(int32(3) + b"one" + int32(0) + int32(3) + b"two")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
        assert [one["message"] for one in served.events.named("kept")] == [b"one", b"", b"two"]


def test_int32_says_that_a_client_left_in_the_middle() -> None:
    with serving(lambda events: Int32()) as served:
        with served.connect() as client:
            client.sendall(int32(10) + b"half")
        left = served.events.wait("left", client=1)
        assert "4 bytes of a message of 10" in left["reason"]


def test_ask_serves_the_tutorials_client() -> None:
    with serving(lambda events: Ask()) as served, served.connect() as client:
        for text in (b"hello", b"x" * 70_000):
            client.send(str(len(text)).encode("utf-8"))
            assert client.recv(1024) == b"ok"
            client.sendall(text)
            length = int(client.recv(1024).decode("utf-8"))
            client.send(b"ready")
            assert received(client, length) == text.upper()


def test_ask_sink_with_its_own_acknowledgement() -> None:
    with serving(lambda events: Ask("got it", collect(events))) as served, served.connect() as client:
        client.send(b"0")
        assert client.recv(100) == b"got it"
        client.send(b"3")
        assert client.recv(100) == b"got it"
        client.sendall(b"end")
        served.events.wait("kept", message=b"end")
        assert [one["message"] for one in served.events.named("kept")] == [b"", b"end"]


def test_ask_takes_a_length_in_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.classic.lengths.SETTLE_SECONDS", 1.0)  # we may be held up between the pieces
    with serving(lambda events: Ask(sink=collect(events))) as served, served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(b"1")
        client.send(b"2")
        assert client.recv(100) == b"ok"
        client.sendall(b"twelve bytes")
        served.events.wait("kept", message=b"twelve bytes")


@pytest.mark.parametrize(
    ("text", "name"), [(b"-5", "dialect"), (b"many", "dialect"), (b"5hello", "dialect"), (b"99999999999", "limit")]
)
def test_ask_refuses_lengths_and_lives(text: bytes, name: str) -> None:
    with serving(lambda events: Ask()) as served:
        with served.connect() as client:
            client.send(text)
            assert ended(client)
        served.events.wait("refused", name=name)
        with served.connect() as client:
            client.send(b"1")
            assert client.recv(10) == b"ok"


def upper_int32(conn: socket.socket) -> None:
    """A tutorial's server, lengths native."""
    while header := conn.recv(4):
        data = received(conn, struct.unpack("i", header)[0])
        conn.send(struct.pack("i", len(data)))
        conn.sendall(data.upper())


def test_our_int32_talk_with_the_tutorials_server() -> None:
    with naive_server(upper_int32) as address, wire_to(address) as wire:
        talker = Int32Talker()
        assert [talker.exchange(wire, text) for text in (b"a", b"", b"y" * 99_999)] == [b"A", b"", b"Y" * 99_999]


def test_our_int32_talk_takes_an_answer_in_drops() -> None:
    def drops(conn: socket.socket) -> None:
        received(conn, 5)
        for byte in int32(3) + b"abc":
            conn.sendall(bytes([byte]))

    with naive_server(drops) as address, wire_to(address) as wire:
        assert Int32Talker().exchange(wire, b"x") == b"abc"


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (int32(-1), DialectError, "-1"),
        (int32(2**31 - 1), LimitExceeded, "classic_answer"),
        (int32(10) + b"abc", ClosedEarly, "3 of 10 bytes"),
        (b"\x01", ClosedEarly, "1 of 4 bytes"),
        (b"", ClosedEarly, "0 of 4 bytes"),
    ],
)
def test_our_int32_talk_has_an_answer_to_sloppy_servers(
    answer: bytes, kind: type[TowlineError], sentence: str
) -> None:
    def sloppy(conn: socket.socket) -> None:
        received(conn, 5)
        conn.sendall(answer)

    with naive_server(sloppy) as address, wire_to(address) as wire, pytest.raises(kind, match=sentence):
        Int32Talker().exchange(wire, b"x")


def test_our_ask_talk_with_the_tutorials_server() -> None:
    def server(conn: socket.socket) -> None:
        while length := conn.recv(1024):
            conn.send(b"go ahead")
            data = received(conn, int(length.decode()))
            conn.send(str(len(data)).encode())
            assert conn.recv(1024) == b"ok"
            conn.sendall(data.upper())

    with naive_server(server) as address, wire_to(address) as wire:
        talker = AskTalker()
        assert [talker.exchange(wire, text) for text in (b"abc", b"z" * 70_000)] == [b"ABC", b"Z" * 70_000]


@pytest.mark.parametrize(
    ("length", "kind"),
    [(b"-3", DialectError), (b"soon", DialectError), (b"999999999", LimitExceeded), (b"", ClosedEarly)],
)
def test_our_ask_talk_refuses_lengths(length: bytes, kind: type[TowlineError]) -> None:
    def sloppy(conn: socket.socket) -> None:
        conn.recv(1024)
        conn.send(b"ok")
        received(conn, 2)
        conn.sendall(length)

    with naive_server(sloppy) as address, wire_to(address) as wire, pytest.raises(kind):
        AskTalker().exchange(wire, b"hi")


def test_an_answer_that_sticks_to_the_acknowledgement_of_no_bytes() -> None:
    def sticky(conn: socket.socket) -> None:
        assert conn.recv(1024) == b"0"
        conn.send(b"ok4")
        assert conn.recv(1024) == b"ok"
        conn.send(b"none")

    with naive_server(sticky) as address, wire_to(address) as wire:
        assert AskTalker().exchange(wire, b"") == b"none"


def test_our_talks_speak_with_our_servers() -> None:
    with serving(lambda events: Ask()) as served, served.wire() as wire:
        assert [AskTalker().exchange(wire, text) for text in (b"abc", b"")] == [b"ABC", b""]
    with serving(lambda events: Int32("big")) as served, served.wire() as wire:
        assert Int32Talker("big").exchange(wire, b"abc") == b"ABC"
