"""Our client against servers that talk without end, or end their half and never read: it waits, but not for ever."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import pytest

from towline.base.errors import TimedOut

from .kit import DEADLINE, naive_server, wire_to

MORE_THAN_SOCKETS_HOLD = bytes(32 * 1024 * 1024)


def ends_its_half(conn: socket.socket, left: threading.Event) -> None:
    conn.shutdown(socket.SHUT_WR)
    left.wait(DEADLINE)


def talks_without_end(conn: socket.socket, left: threading.Event) -> None:
    with contextlib.suppress(OSError):  # our client went away
        while not left.wait(0.01):
            conn.sendall(b".")


@pytest.mark.parametrize("behaviour", [ends_its_half, talks_without_end])
def test_a_server_that_never_reads_is_given_up(behaviour: Callable[[socket.socket, threading.Event], None]) -> None:
    left = threading.Event()
    with naive_server(lambda conn: behaviour(conn, left)) as address:
        try:
            with wire_to(address, timeout=0.3) as wire, pytest.raises(TimedOut, match="does not take what we send"):
                wire.send(MORE_THAN_SOCKETS_HOLD)
        finally:
            left.set()


def test_a_server_that_talks_on_after_our_end_is_left() -> None:
    left = threading.Event()
    with naive_server(lambda conn: talks_without_end(conn, left)) as address:
        try:
            with wire_to(address, timeout=0.3) as wire:
                assert set(wire.end_input()) == {ord(".")}
        finally:
            left.set()
