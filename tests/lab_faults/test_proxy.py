"""The fault proxy on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.kit import dead_port, run, until

from towline.base.errors import InUse, TimedOut, UsageError
from towline.lab import faults
from towline.lab.faults import FaultProxy, FaultScript, running
from towline.lab.faults_link import Valve
from towline.lab.faults_script import Step

DEADLINE = 20.0


@contextmanager
def server(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A real TCP server with a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client:
            try:
                handle(client)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield "{}:{}".format(*listener.getsockname())
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join(DEADLINE)
        assert not acceptor.is_alive()
        for thread in threads:
            thread.join(DEADLINE)
            assert not thread.is_alive()


def echo(client: socket.socket) -> None:
    while data := client.recv(65536):
        client.sendall(data)


def pour(size: int) -> Callable[[socket.socket], None]:
    def handle(client: socket.socket) -> None:
        client.sendall(bytes(size))

    return handle


def pour_until_broken(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client.sendall(bytes(100_000))


def connect(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=DEADLINE)


def drained(client: socket.socket) -> tuple[int, str]:
    """How many bytes came, and how it ended: `end` or `reset`."""
    count = 0
    while True:
        try:
            data = client.recv(1 << 20)
        except ConnectionResetError:
            return count, "reset"
        if not data:
            return count, "end"
        count += len(data)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    waiter = threading.Event()
    while not true():
        assert time.monotonic() < deadline
        waiter.wait(0.002)


def test_without_faults_every_byte_passes_both_ways() -> None:
    data = hashlib.shake_128(b"x").digest(3_000_000)
    with server(echo) as to, running(to) as proxy, connect(proxy.address) as client:
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        back = b"".join(iter(lambda: client.recv(1 << 20), b""))
        sender.join(DEADLINE)
        assert back == data
        assert (proxy.stats.bytes_up, proxy.stats.bytes_down) == (len(data), len(data))


def test_half_close_is_passed_on_while_the_other_way_goes_on() -> None:
    def answer_after_end(client: socket.socket) -> None:
        got = b"".join(iter(lambda: client.recv(100), b""))
        client.sendall(b"after the end: " + got)

    with server(answer_after_end) as to, running(to) as proxy, connect(proxy.address) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert b"".join(iter(lambda: client.recv(100), b"")) == b"after the end: question"


@pytest.mark.parametrize("reset", [False, True])
def test_a_counted_cut_falls_exactly_after_its_byte(reset: bool) -> None:
    script = FaultScript(cut_after=1_234_567, reset=reset)
    with server(pour(5_000_000)) as to, running(to, script=script) as proxy, connect(proxy.address) as client:
        count, how = drained(client)
        assert count == 1_234_567
        assert proxy.stats.cuts == 1
        assert how == "reset" if reset else how in {"end", "reset"}


def test_a_cut_takes_all_connections_at_once() -> None:
    with server(echo) as to, running(to) as proxy:
        clients = [connect(proxy.address) for _ in range(5)]
        for client in clients:
            client.sendall(b"a")
            assert client.recv(1) == b"a"
        assert proxy.live == 5
        assert proxy.cut() == 5
        assert [drained(client)[0] for client in clients] == [0] * 5
        for client in clients:
            client.close()
        with connect(proxy.address) as again:
            again.sendall(b"b")
            assert again.recv(1) == b"b"


def cut_positions(seed: int, delay: float = 0) -> list[object]:
    told: list[object] = []
    script = FaultScript(cut_every=100_000, seed=seed, max_cuts=5, delay=delay)

    def on_event(name: str, fields: dict[str, object]) -> None:
        if name == "cut":
            told.append((fields["n"], fields["at"]))

    with server(pour(2_000_000)) as to, running(to, script=script, on_event=on_event) as proxy:
        total = 0
        for _ in range(5):
            with connect(proxy.address) as client:
                total += drained(client)[0]
        with connect(proxy.address) as client:  # max_cuts: no sixth
            assert drained(client) == (2_000_000, "end")
        assert told[-1] == (5, total)
    return told


@pytest.mark.parametrize("delay", [0.0, 0.003])
def test_the_same_seed_gives_the_same_run(delay: float) -> None:
    assert cut_positions(7, delay) == cut_positions(7)
    assert cut_positions(7) != cut_positions(8)


def test_cuts_are_counted_over_all_connections() -> None:
    with (
        server(pour(400_000)) as to,
        running(to, script=FaultScript(cut_after=600_000)) as proxy,
        connect(proxy.address) as first,
        connect(proxy.address) as second,
    ):
        counts: list[int] = []
        threads = [threading.Thread(target=lambda c=c: counts.append(drained(c)[0])) for c in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert sum(counts) == 600_000


def test_a_reader_that_stopped_does_not_hold_up_a_cut() -> None:
    with (
        server(pour(50_000_000)) as to,
        running(to, script=FaultScript(cut_each_seconds=0.05, max_cuts=1)) as proxy,
        connect(proxy.address) as client,
    ):
        wait_until(lambda: proxy.stats.cuts == 1)
        assert drained(client)[0] < 50_000_000


def test_refused_connections_are_refused_and_later_taken_again() -> None:
    with server(echo) as to, running(to) as proxy:

        def taken() -> bool:
            try:
                connect(proxy.address).close()
            except ConnectionRefusedError:
                return False
            return True

        def refused() -> bool:  # whoever was held up until the time was over asks once more
            proxy.refuse(0.2)
            return not taken()

        assert taken()
        wait_until(refused)
        wait_until(taken)


def test_a_cut_with_refuse_refuses_at_once() -> None:
    with server(echo) as to, running(to, script=FaultScript(refuse=30)) as proxy:
        client = connect(proxy.address)
        proxy.cut()
        with pytest.raises(ConnectionRefusedError):
            connect(proxy.address)
        client.close()


def test_a_stall_moves_nothing_and_keeps_the_connection() -> None:
    script = FaultScript(at_bytes=((10, Step("stall", seconds=0.3)),))
    with server(echo) as to, running(to, script=script) as proxy, connect(proxy.address) as client:
        began = time.monotonic()
        client.sendall(b"0123456789")  # the stall falls between the question and its echo
        assert client.recv(100)
        assert time.monotonic() - began >= 0.25
        assert proxy.stats.stalls == 1


def test_throttle_and_delay_take_the_time_they_should() -> None:
    with server(pour(100_000)) as to, running(to, script=FaultScript(throttle=400_000, delay=0.1)) as proxy:
        began = (
            time.monotonic()
        )  # before there is a connection: its time runs from the first byte, whoever reads late
        with connect(proxy.address) as client:
            assert drained(client) == (100_000, "end")
        assert time.monotonic() - began >= 0.3


def segments_in(client: socket.socket) -> int:
    """How many segments with data came (`tcpi_data_segs_in`, linux/tcp.h); a late reader does not make them fewer."""
    offset = 152
    info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, offset + 4)
    return int.from_bytes(info[offset:], sys.byteorder)


@pytest.mark.parametrize("dribble", [0, 200])
def test_dribbled_bytes_arrive_in_many_small_pieces(dribble: int) -> None:
    with (
        server(pour(300)) as to,
        running(to, script=FaultScript(dribble_bytes=dribble)) as proxy,
        connect(proxy.address) as client,
    ):
        assert drained(client) == (300, "end")
        assert segments_in(client) > 10 if dribble else segments_in(client) <= 2
        assert proxy.stats.bytes_down == 300


def test_an_unreachable_target_resets_the_client_and_is_told() -> None:
    told: list[str] = []
    with dead_port() as port, running(f"127.0.0.1:{port}", on_event=lambda name, _: told.append(name)) as proxy:
        # The reset can come before `connect` has returned: that is then where it is raised.
        with contextlib.suppress(ConnectionResetError), connect(proxy.address) as client:
            assert drained(client) == (0, "reset")
        wait_until(lambda: "unreachable" in told)


def test_a_used_port_is_refused_by_name() -> None:
    with server(echo) as to, running(to) as proxy, pytest.raises(InUse), running(to, listen=proxy.address):
        pass


def test_addresses_are_checked() -> None:
    for address in ("nowhere", "127.0.0.1:99999", ":80", "a:b", "a..b:80", "a" * 64 + ":80", "a:" + "8" * 5000):
        with pytest.raises(UsageError), running(address):
            pass
        with pytest.raises(UsageError), running("127.0.0.1:80", listen=address):
            pass


def test_a_client_that_resets_says_nothing_about_the_target() -> None:
    told: list[str] = []
    with server(echo) as to, running(to, on_event=lambda name, _: told.append(name)) as proxy:
        with connect(proxy.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_until(lambda: proxy.live == 0)
    assert told == ["listening"]


def test_steps_at_the_very_beginning_are_performed() -> None:
    told: list[str] = []
    steps = ((0, Step("throttle", amount=10_000_000)), (0, Step("stall")), (0, Step("cut")))
    with (
        server(echo) as to,
        running(to, script=FaultScript(at_bytes=steps), on_event=lambda name, _: told.append(name)) as proxy,
    ):
        wait_until(lambda: proxy.stats.cuts == 1)
        with connect(proxy.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
    assert told == ["listening", "changed", "stall", "cut"]


def test_a_cut_falls_in_the_midst_of_a_stall() -> None:
    script = FaultScript(at_seconds=((0.0, Step("stall", seconds=600)), (0.01, Step("cut"))))
    with server(echo) as to, running(to, script=script) as proxy:
        wait_until(lambda: proxy.stats.cuts == 1)
        assert proxy.stats.stalls == 1


def test_a_listener_that_fails_does_not_hold_up_the_bytes() -> None:
    def told(name: str, fields: dict[str, object]) -> None:
        if name == "cut":
            raise RuntimeError("a listener's bug")

    with server(echo) as to, running(to, script=FaultScript(cut_after=5), on_event=told) as proxy:
        with connect(proxy.address) as client:
            client.sendall(b"01234")
            assert drained(client)[0] == 0
        with connect(proxy.address) as client:
            client.sendall(b"56789")
            assert client.recv(5) == b"56789"


def test_a_proxy_that_is_held_up_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def told(name: str, fields: dict[str, object]) -> None:
        if name == "cut":
            assert go_on.wait(DEADLINE)

    with server(echo) as to, running(to, on_event=told) as proxy:
        with monkeypatch.context() as shorter:
            shorter.setattr(faults, "ANSWER_SECONDS", 0.05)
            with pytest.raises(TimedOut):
                proxy.cut()
        go_on.set()
        proxy.refuse(0)
        assert proxy.stats.cuts == 1


def test_the_end_takes_a_stall_with_it(caplog: pytest.LogCaptureFixture) -> None:
    def leave_in_a_stall() -> None:
        with server(echo) as to, running(to) as proxy:
            proxy.stall(600)
            wait_until(lambda: proxy.stats.stalls == 1)

    leave_in_a_stall()
    gc.collect()
    assert not caplog.records


def test_the_end_takes_those_who_have_just_come() -> None:
    async def conversation() -> None:
        with server(echo) as to:
            proxy = FaultProxy(to)
            address = await proxy.start()
            with connect(address) as client:
                proxy._accept()  # their relay has not had its first turn
                await proxy.close()
                assert drained(client)[0] == 0
            gc.collect()  # an unclosed socket would say so

    run(conversation())


def test_a_cancelled_wait_for_bytes_on_their_way_is_cancelled() -> None:
    """Whatever the moment: close() waits for its tasks, and one that goes on may go on with an hour's stall."""

    async def cancelled_after(turns: int) -> bool:
        valve = Valve(FaultScript())
        valve.took(1)
        waiting = asyncio.ensure_future(valve.settled([]))
        for _ in range(5):
            await asyncio.sleep(0)
        valve.lost(1)
        for _ in range(turns):
            await asyncio.sleep(0)
        if waiting.done():
            return True
        waiting.cancel()
        await asyncio.wait([waiting])
        return waiting.cancelled()

    async def conversation() -> None:
        for turns in range(6):
            assert await cancelled_after(turns), turns

    run(conversation(), "asyncio")


def test_bytes_in_the_delay_line_of_a_broken_connection_are_given_back() -> None:
    """Else the valve takes them for bytes on their way: later cuts fall early, and each waits in vain for them."""

    def take_one_and_reset(client: socket.socket) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.recv(1)

    async def conversation(to: str) -> None:
        async with FaultProxy(to, script=FaultScript(delay=0.001)) as proxy:
            for _ in range(20):
                with await asyncio.to_thread(connect, proxy.address) as client:
                    await asyncio.to_thread(pour_until_broken, client)
            await until(lambda: not proxy.live)
            assert proxy.valve._in_flight == 0

    with server(take_one_and_reset) as to:
        run(conversation(to))
