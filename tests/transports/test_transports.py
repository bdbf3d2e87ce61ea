"""The transports, each through the whole suite."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest
from tests import kit
from tests.transports.conformance import Ends, Pair, Recorder, TransportSuite
from tests.transports.conftest import Tls

from towline.transports import Peer, memory, tcp, unix
from towline.trust.tls import certificate_fingerprint


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


class _Tcp(TransportSuite):
    kind = "tcp"
    host: ClassVar[str]

    @pytest.fixture
    def pair(self, tls: Tls) -> Pair:
        @asynccontextmanager
        async def make() -> AsyncIterator[Ends]:
            ends = Ends(Recorder(), Recorder())
            server, address = await tcp.listen(self.host, 0, tls.node, lambda: ends.node)
            host, port = tcp.split_address(address)
            try:
                await tcp.connect(host, port, tls.client, ends.client)
                self.fingerprint = tls.fingerprint
                yield ends
            finally:
                server.close()
                await _clean_up(ends)

        return make

    def check_peer(self, peer: Peer, *, at_client: bool) -> None:
        assert peer.host == self.host
        host, port = tcp.split_address(peer.address)
        assert host == self.host
        assert port > 0
        assert peer.uid is None
        if at_client:
            assert peer.certificate is not None
            assert certificate_fingerprint(peer.certificate) == self.fingerprint
        else:
            assert peer.certificate is None


class TestTcp4(_Tcp):
    host = "127.0.0.1"


if _has_ipv6():

    class TestTcp6(_Tcp):
        host = "::1"


class TestUnix(TransportSuite):
    kind = "unix"

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        folder = tempfile.mkdtemp()
        yield Path(folder)
        shutil.rmtree(folder)

    @pytest.fixture
    def pair(self, folder: Path) -> Pair:
        @asynccontextmanager
        async def make() -> AsyncIterator[Ends]:
            ends = Ends(Recorder(), Recorder())
            path = str(folder / "s")
            server = await unix.listen(path, lambda: ends.node)
            try:
                await unix.connect(path, ends.client)
                yield ends
            finally:
                server.close()
                unix.remove(path)
                await _clean_up(ends)

        return make

    def check_peer(self, peer: Peer, *, at_client: bool) -> None:
        assert peer.uid == os.getuid()
        assert peer.certificate is None
        assert peer.host == ""


class TestMemory(TransportSuite):
    kind = "memory"
    has_socket = False
    test_detached_in_the_middle_of_what_is_coming_in = None  # there is nothing to detach

    @pytest.fixture
    def pair(self) -> Pair:
        @asynccontextmanager
        async def make() -> AsyncIterator[Ends]:
            ends = Ends(Recorder(), Recorder())
            memory.connect_pair(ends.client, ends.node)
            try:
                yield ends
            finally:
                await _clean_up(ends)

        return make

    def check_peer(self, peer: Peer, *, at_client: bool) -> None:
        assert peer.uid is None
        assert peer.certificate is None


async def _clean_up(ends: Ends) -> None:
    for end in ends:
        if end.transport is not None:
            end.there.abort()
    await kit.until(lambda: all(end.is_lost or end.there.backlog == 0 for end in ends), "the end")
    await kit.until(lambda: True)
