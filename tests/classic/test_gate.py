"""The legitimacy check, against the tutorials' clients and servers."""

from __future__ import annotations

import hmac
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from towline.base.errors import DialectError, NotFound, NotLegitimate, UsageError
from towline.classic.gate import Gate, read_secret
from towline.classic.lengths import Int32, Int32Talker
from towline.classic.text import Answering, UpperTalker, upper

from .kit import DEADLINE, ended, int32, naive_server, received, serving, wire_to

SECRET = b"linhaifeng bang bang bang"


@pytest.mark.parametrize("name", ["md5", "sha256"])
def test_the_tutorials_client_is_let_in(name: Any) -> None:
    guard = Gate(SECRET, name)
    with serving(lambda events: Answering(upper), guard=guard) as served, served.connect() as client:
        challenge = client.recv(32)
        assert len(challenge) == 32
        client.sendall(hmac.new(SECRET, challenge, name).digest())
        client.sendall(b"hello")
        assert client.recv(100) == b"HELLO"


def test_a_first_message_that_sticks_to_the_answer_is_not_lost() -> None:
    with serving(lambda events: Int32(), guard=Gate(SECRET)) as served, served.connect() as client:
        challenge = client.recv(32)
        client.sendall(hmac.new(SECRET, challenge, "sha256").digest() + int32(2) + b"hi")
        assert received(client, 6) == int32(2) + b"HI"


def test_challenges_differ() -> None:
    with (
        serving(lambda events: Answering(upper), guard=Gate(SECRET)) as served,
        served.connect() as one,
        served.connect() as two,
    ):
        assert one.recv(32) != two.recv(32)


def test_a_wrong_a_late_and_no_answer_are_closed_and_said() -> None:
    guard = Gate(SECRET, seconds=DEADLINE)
    with serving(lambda events: Answering(upper), guard=guard) as served:
        with served.connect() as wrong:
            wrong.recv(32)
            wrong.sendall(b"w" * 32)
            assert ended(wrong)
        said = served.events.wait("refused", client=1)
        assert said["name"] == "not-legitimate"
        assert "wrong" in said["message"]
        served.connect().close()
        assert "left" in served.events.wait("refused", client=2)["message"]
        with served.wire() as wire:
            wire.prove(guard)
            assert UpperTalker().exchange(wire, b"fine") == b"FINE"
    with serving(lambda events: Answering(upper), guard=Gate(SECRET, seconds=0.2)) as served:
        with served.connect() as late:
            late.recv(32)
            late.sendall(b"l" * 31)
            assert ended(late)
        assert "within 0.2 s" in served.events.wait("refused", client=1)["message"]


def test_our_talk_proves_itself_to_the_tutorials_server() -> None:
    def server(conn: socket.socket) -> None:
        challenge = os.urandom(32)
        conn.sendall(challenge)
        expected = hmac.new(SECRET, challenge, "md5").digest()
        if not hmac.compare_digest(expected, conn.recv(len(expected))):
            return
        conn.send(conn.recv(1024).upper())

    with naive_server(server, clients=2) as address:
        with wire_to(address) as wire:
            wire.prove(Gate(SECRET, "md5"))
            assert UpperTalker().exchange(wire, b"hi") == b"HI"
        with wire_to(address) as wire:
            wire.prove(Gate(b"another", "md5"))
            with pytest.raises(NotLegitimate):
                UpperTalker().exchange(wire, b"hi")


def test_our_talk_says_so_with_each_dialect_when_the_secret_is_wrong() -> None:
    with serving(lambda events: Int32(), guard=Gate(SECRET)) as served, served.wire() as wire:
        wire.prove(Gate(b"another"))
        with pytest.raises(NotLegitimate):
            Int32Talker().exchange(wire, b"hi")


def test_our_talk_names_a_server_without_the_check() -> None:
    with (
        naive_server(lambda conn: ended(conn) and None) as address,
        wire_to(address, timeout=0.2) as wire,
        pytest.raises(DialectError, match="no legitimacy check"),
    ):
        wire.prove(Gate(SECRET))


def test_secret_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    with pytest.raises(NotFound):
        read_secret(str(path))
    path.write_bytes(SECRET + b"\n")
    path.chmod(0o644)
    secret, warning = read_secret(str(path))
    assert secret == SECRET
    assert "chmod 600" in warning
    path.chmod(0o600)
    assert read_secret(str(path)) == (SECRET, "")
    path.write_bytes(b"\n")
    with pytest.raises(UsageError):
        read_secret(str(path))
    with pytest.raises(UsageError):
        read_secret(str(tmp_path))


def test_the_secret_is_not_in_the_repr() -> None:
    assert repr(Gate(SECRET)) == "<Gate sha256>"
