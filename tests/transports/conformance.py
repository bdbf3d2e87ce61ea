"""What every transport keeps to: see `towline.transports.interface`. One suite, a subclass for each transport."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, NamedTuple, TypeAlias

import pytest
from tests import kit

from towline.base.errors import ConnectionLost, TowlineError
from towline.transports import Peer, Transport
from towline.transports.blocking import BlockingPipe
from towline.transports.interface import WRITE_HIGH

SIZES = (1, 2, 7, 100, 4096, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 64 * 1024, 300_001)


class Recorder:
    """A receiver that remembers, and checks the order of calls as it goes."""

    def __init__(self) -> None:
        self.transport: Transport | None = None
        self.peer_at_opening: Peer | None = None
        self.data = bytearray()
        self.calls: list[str] = []
        self.error: TowlineError | None = None
        self.on_received: Callable[[bytes], None] | None = None
        self.on_writable: Callable[[], None] | None = None
        self.on_eof: Callable[[], None] | None = None

    def opening(self, transport: Transport) -> None:
        assert not self.calls, "opening comes first, once"
        self.calls.append("opening")
        self.transport = transport
        self.peer_at_opening = transport.peer

    def connected(self) -> None:
        assert self.calls == ["opening"], self.calls
        self.calls.append("connected")

    def received(self, data: bytes) -> None:
        assert data, "never empty"
        assert self.calls[-1] == "connected", self.calls
        self.data += data
        if self.on_received:
            self.on_received(data)

    def writable(self) -> None:
        assert "lost" not in self.calls
        if self.on_writable:
            self.on_writable()

    def eof(self) -> None:
        assert self.calls == ["opening", "connected"], self.calls
        self.calls.append("eof")
        if self.on_eof:
            self.on_eof()

    def lost(self, error: TowlineError | None) -> None:
        assert "lost" not in self.calls, "lost comes once"
        self.calls.append("lost")
        self.error = error

    @property
    def is_lost(self) -> bool:
        return "lost" in self.calls

    @property
    def is_connected(self) -> bool:
        return "connected" in self.calls

    @property
    def there(self) -> Transport:
        assert self.transport is not None
        return self.transport


class Ends(NamedTuple):
    """Two connected ends."""

    client: Recorder
    node: Recorder


Pair: TypeAlias = Callable[[], AbstractAsyncContextManager[Ends]]
Talk: TypeAlias = Callable[[Ends], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("loop", kit.LOOPS)
class TransportSuite:
    """Subclass, and give the fixture `pair`: a maker of connected ends, closed afterwards by whoever made them."""

    kind: ClassVar[str]
    has_socket: ClassVar[bool] = True

    @pytest.fixture
    def pair(self) -> Pair:
        raise NotImplementedError

    @staticmethod
    def on(loop: str, pair: Pair, talk: Talk) -> None:
        async def work() -> None:
            async with pair() as ends:
                await kit.until(lambda: ends.client.is_connected and ends.node.is_connected, "connected")
                await talk(ends)

        kit.run(work(), loop)

    @pytest.mark.parametrize("size", SIZES)
    def test_bytes_arrive_whole_and_in_order_both_ways_at_once(self, loop: str, pair: Pair, size: int) -> None:
        up, down = random.Random(size).randbytes(size), random.Random(-size).randbytes(size)

        async def talk(ends: Ends) -> None:
            ends.client.there.write([up])
            ends.node.there.write([down])
            await kit.until(lambda: len(ends.node.data) >= size and len(ends.client.data) >= size, "all bytes")
            assert ends.node.data == up
            assert ends.client.data == down

        self.on(loop, pair, talk)

    def test_many_buffers_of_all_kinds_are_one_stream(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            ends.client.there.write([b"one ", bytearray(b"two "), memoryview(b"three ")])
            ends.client.there.write([])
            ends.client.there.write([b""])
            for number in range(500):
                ends.client.there.write([b"%d," % number])
            wanted = b"one two three " + b"".join(b"%d," % number for number in range(500))
            await kit.until(lambda: len(ends.node.data) >= len(wanted), "all bytes")
            assert ends.node.data == wanted

        self.on(loop, pair, talk)

    def test_a_writer_that_heeds_the_backlog_is_called_again_and_holds_little(self, loop: str, pair: Pair) -> None:
        chunk = os.urandom(64 * 1024)
        total = 64 * len(chunk)

        async def talk(ends: Ends) -> None:
            left = total // len(chunk)
            most = 0

            def pour() -> None:
                nonlocal left, most
                while left and ends.client.there.backlog < WRITE_HIGH:
                    ends.client.there.write([chunk])
                    left -= 1
                    most = max(most, ends.client.there.backlog)

            ends.client.on_writable = pour
            pour()
            await kit.until(lambda: len(ends.node.data) == total, f"all bytes; {left} chunks left")
            assert most < WRITE_HIGH + 2 * len(chunk)
            await kit.until(lambda: ends.client.there.backlog == 0, "an empty backlog")

        self.on(loop, pair, talk)

    @pytest.mark.parametrize("over", [0, 1])
    def test_a_backlog_of_just_the_mark_still_ends_in_writable(self, loop: str, pair: Pair, over: int) -> None:
        """`backlog >= WRITE_HIGH` is when a writer stops: exactly there it must still be called again."""

        async def talk(ends: Ends) -> None:
            heard = []
            ends.client.on_writable = lambda: heard.append(True)
            wrote = 0
            while ends.client.there.backlog < WRITE_HIGH:
                size = WRITE_HIGH - ends.client.there.backlog + over
                ends.client.there.write([bytes(size)])
                wrote += size
            await kit.until(lambda: len(ends.node.data) == wrote, "all bytes")
            await kit.until(lambda: heard, "writable")

        self.on(loop, pair, talk)

    def test_close_sends_what_was_written_and_both_ends_hear_it_once(self, loop: str, pair: Pair) -> None:
        data = os.urandom(400_000)

        async def talk(ends: Ends) -> None:
            ends.client.there.write([data])
            ends.client.there.close()
            ends.client.there.close()
            ends.client.there.write([b"too late"])
            await kit.until(lambda: ends.client.is_lost and ends.node.is_lost, "both lost")
            assert ends.node.data == data
            assert ends.node.calls == ["opening", "connected", "eof", "lost"]
            assert ends.client.calls == ["opening", "connected", "lost"]
            assert ends.client.error is None
            assert ends.node.error is None

        self.on(loop, pair, talk)

    def test_an_abort_is_heard_at_once_and_the_other_end_is_told(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            ends.client.there.abort()
            ends.client.there.abort()
            ends.client.there.close()
            ends.client.there.write([b"too late"])
            await kit.until(lambda: ends.client.is_lost and ends.node.is_lost, "both lost")
            assert ends.client.error is None
            assert isinstance(ends.node.error, ConnectionLost | None)
            assert ends.node.data == b""

        self.on(loop, pair, talk)

    def test_after_the_end_everything_is_harmless(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            ends.node.there.close()
            await kit.until(lambda: ends.client.is_lost and ends.node.is_lost, "both lost")
            for end in ends:
                end.there.write([b"too late"])
                end.there.close()
                end.there.abort()
                assert end.there.backlog == 0
                assert repr(end.there)

        self.on(loop, pair, talk)

    def test_both_may_close_at_once(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            ends.client.there.write([b"bye"])
            ends.node.there.write([b"bye"])
            ends.client.there.close()
            ends.node.there.close()
            await kit.until(lambda: ends.client.is_lost and ends.node.is_lost, "both lost")

        self.on(loop, pair, talk)

    def test_last_words_survive_bytes_that_nobody_reads(self, loop: str, pair: Pair) -> None:
        """A close with unread bytes makes the kernel send a reset, which must not overtake the reason."""

        async def talk(ends: Ends) -> None:
            def refuse(_: bytes) -> None:
                ends.node.on_received = None
                ends.node.there.write([b"no, because"])
                ends.node.there.close()

            ends.node.on_received = refuse
            for _ in range(20):
                ends.client.there.write([os.urandom(50_000)])
            await kit.until(lambda: ends.client.is_lost and ends.node.is_lost, "both lost")
            assert ends.client.data == b"no, because"
            assert "eof" in ends.client.calls

        self.on(loop, pair, talk)

    def test_what_is_written_inside_a_call_goes_out(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            ends.node.on_received = lambda data: ends.node.there.write([data.upper()])
            ends.client.there.write([b"hello"])
            await kit.until(lambda: ends.client.data == b"HELLO", "an echo")

        self.on(loop, pair, talk)

    def test_each_end_knows_the_other_as_far_as_one_can(self, loop: str, pair: Pair) -> None:
        async def talk(ends: Ends) -> None:
            for end in ends:
                assert end.there.peer.kind == self.kind
                assert end.peer_at_opening is not None
                assert end.peer_at_opening.host == end.there.peer.host, "admission counts hosts from the start"
                self.check_peer(end.there.peer, at_client=end is ends.client)

        self.on(loop, pair, talk)

    def check_peer(self, peer: Peer, *, at_client: bool) -> None:
        raise NotImplementedError

    @pytest.mark.parametrize("size", [1, 70_000])
    def test_detached_it_goes_on_in_a_thread(self, loop: str, pair: Pair, size: int) -> None:
        if not self.has_socket:

            async def refused(ends: Ends) -> None:
                with pytest.raises(TowlineError):
                    ends.node.there.detach()

            self.on(loop, pair, refused)
            return
        early, up, down = b"on the loop", os.urandom(size), os.urandom(size)

        async def talk(ends: Ends) -> None:
            ends.client.there.write([early])
            await kit.until(lambda: ends.node.data == early, "what came before")
            sock, tls = ends.node.there.detach()

            def thread() -> bytes:
                pipe = BlockingPipe(sock, tls, timeout=kit.DEADLINE)
                buffer = bytearray(size)
                assert pipe.read_exactly(memoryview(buffer)) == size
                pipe.write([down[: size // 2], down[size // 2 :]])
                assert pipe.read_exactly(memoryview(bytearray(1))) == 0, "the client has closed"
                pipe.close()
                return bytes(buffer)

            driving = asyncio.ensure_future(asyncio.to_thread(thread))
            ends.client.there.write([up])
            await kit.until(lambda: len(ends.client.data) == size, "the answer of the thread")
            ends.client.there.close()
            assert await driving == up
            assert ends.client.data == down
            assert ends.node.data == early
            assert "lost" not in ends.node.calls, "whoever took the socket tells"
            await kit.until(lambda: ends.client.is_lost, "lost")

        self.on(loop, pair, talk)

    def test_detached_in_the_middle_of_what_is_coming_in(self, loop: str, pair: Pair) -> None:
        """A client may send on at once; nothing is lost or doubled between the loop and the thread."""
        data = random.Random(7).randbytes(500_000)

        async def talk(ends: Ends) -> None:
            driving: list[asyncio.Future[bytes]] = []

            def take_over(_: bytes) -> None:
                ends.node.on_received = None
                sock, tls = ends.node.there.detach()
                early = len(ends.node.data)

                def thread() -> bytes:
                    pipe = BlockingPipe(sock, tls, timeout=kit.DEADLINE)
                    rest = bytearray(len(data) - early)
                    got = pipe.read_exactly(memoryview(rest))
                    pipe.close()
                    return bytes(rest[:got])

                driving.append(asyncio.ensure_future(asyncio.to_thread(thread)))

            ends.node.on_received = take_over
            for start in range(0, len(data), 10_000):
                ends.client.there.write([data[start : start + 10_000]])
            await kit.until(lambda: driving, "detached")
            assert bytes(ends.node.data) + await driving[0] == data
            await kit.until(lambda: ends.client.is_lost, "lost")

        self.on(loop, pair, talk)
