"""Output that flows: it comes over a lane, and nothing is lost, doubled or out of order, whatever becomes of that."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.jobs.kit import Place, collect, items
from tests.kit import TOW, environment, joined, run, serving, until

from towline.base.errors import ConnectionLost, Unreachable
from towline.client import reach
from towline.client.bypass import Bypass
from towline.client.connect import connect
from towline.client.jobs import Job
from towline.client.output import Chunk, Missing
from towline.lab.faults import FaultScript
from towline.protocol.table import Kind
from towline.runtime.lanes import SocketLane, dial_lane
from towline.services.jobs.bypass import FLOWING_BYTES, LANES
from towline.transports.blocking import BlockingPipe

MIB = 1024 * 1024
MUCH = 3 * FLOWING_BYTES
# So many MiB of numbered blocks, by turns on both streams (two of three on the first); then the status 7.
BLOCKS = (
    "import os,sys\n"
    "for i in range({blocks}):\n"
    "    os.write(2 if i % 3 == 2 else 1, (b'%07d ' % i) * 8192)\n"
    "sys.exit(7)"
)
BLOCK = 64 * 1024


def blocks(mib: int) -> list[str]:
    return ["python3", "-c", BLOCKS.format(blocks=mib * MIB // BLOCK)]


def expected(mib: int) -> dict[str, str]:
    digests = {"stdout": hashlib.sha256(), "stderr": hashlib.sha256()}
    for number in range(mib * MIB // BLOCK):
        digests["stderr" if number % 3 == 2 else "stdout"].update((b"%07d " % number) * 8192)
    return {name: each.hexdigest() for name, each in digests.items()}


def digests(parts: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(each).hexdigest() for name, each in parts.items()}


@pytest.fixture(autouse=True)
def forgotten(place: Place) -> Iterator[None]:
    """What these commands print is much, and counts against their person's share."""
    yield

    async def forget() -> None:
        async with place.line() as line:
            for each in await line.jobs():
                if int(each["bytes"]) < MIB:
                    continue
                job = line.job(str(each["job"]))
                await job.signal("KILL")
                await job.wait()
                await job.forget()

    run(forget())


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> list[SocketLane]:
    """Those that were dialled from this process."""
    dialled: list[SocketLane] = []

    def dial(*arguments: object) -> SocketLane:
        dialled.append(dial_lane(*arguments))  # type: ignore[arg-type]
        return dialled[-1]

    monkeypatch.setattr(reach, "dial_lane", dial)
    return dialled


def ended(lane: SocketLane) -> bool:
    return lane._pipe._sock.fileno() < 0


def test_it_comes_over_a_lane_exactly(place: Place, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(40))
            assert digests(await collect(job)) == expected(40)
            assert job.ended is not None
            assert job.ended.status == 7
            assert len(lanes) == 1
            await until(lambda: ended(lanes[0]), "the lane is closed")
            assert line.cuts == 0

    run(go())


def test_one_stream_alone(place: Place, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(48))
            assert (await collect(job, 1, stream="stderr"))["stdout"] == b""
            again = await collect(line.job(job.id), 1, stream="stdout")
            assert digests(again)["stdout"] == expected(48)["stdout"]
            assert lanes

    run(go())


def test_a_finished_job_is_read_over_a_lane_too(place: Place, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(40), detach=True)
            await job.wait()
            lanes.clear()
            assert digests(await collect(line.job(job.id))) == expected(40)
            assert len(lanes) == 1

    run(go())


@pytest.mark.parametrize("seed", [1, 2])
def test_through_cuts(place: Place, lanes: list[SocketLane], seed: int) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(128))
            assert digests(await collect(job)) == expected(128)
            assert len(lanes) >= 2

    script = FaultScript(seed=seed, cut_every=20_000_000, reset=bool(seed % 2), max_cuts=8)
    with place.faulty(script):
        run(go())


def test_where_no_second_connection_can_be_had(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*arguments: object) -> SocketLane:
        asked.append(arguments)
        raise Unreachable("A middlebox lets one connection through.")

    monkeypatch.setattr(reach, "dial_lane", refuse)

    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(40))
            assert digests(await collect(job)) == expected(40)
            assert len(asked) == 1
            assert line.cuts == 0

    run(go())


def test_lanes_that_break_before_they_bring_anything_are_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = []

    def broken_dial(*arguments: object) -> SocketLane:
        broken.append(dial_lane(*arguments))  # type: ignore[arg-type]
        broken[-1].shutdown()
        return broken[-1]

    monkeypatch.setattr(reach, "dial_lane", broken_dial)

    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(80))
            assert digests(await collect(job)) == expected(80)
            assert 1 <= len(broken) <= 4

    run(go())


def test_a_command_that_ends_with_its_connection_has_no_lane_to_lose(place: Place, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with place.line() as line:
            for after in (None, 60.0):
                job = await line.start(blocks(40), on_disconnect="kill", after=after)
                assert digests(await collect(job)) == expected(40)
            assert not lanes

    run(go())


def test_a_command_that_rests_goes_back_to_its_stream(place: Place, lanes: list[SocketLane], tmp_path: Path) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    script = f"cat {tmp_path}/much; echo first; read a < {fifo}; cat {tmp_path}/much; echo second >&2"
    (tmp_path / "much").write_bytes(os.urandom(MUCH))

    async def go() -> None:
        async with place.line() as line:
            job = await line.start([script], shell=True)
            parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
            async for item in job.output():
                assert isinstance(item, Chunk)
                parts[item.stream].append(item.data)
                if item.data.endswith(b"first\n"):
                    await until(lambda: all(map(ended, lanes)), "the lane ends, as nothing comes")
                    fifo.write_text("on\n")
            much = (tmp_path / "much").read_bytes()
            assert b"".join(parts["stdout"]) == much + b"first\n" + much
            assert parts["stderr"] == [b"second\n"]
            assert len(lanes) == 2

    run(go())


def threads(name: str) -> int:
    return sum(each.name == name for each in threading.enumerate())


async def read(job: Job, least: int, until_then: Callable[[], object] = lambda: True) -> None:
    """So many bytes at least, and then until `until_then`; then leave."""
    size = 0
    async with contextlib.aclosing(job.output()) as output:  # type: ignore[type-var]
        async for item in output:
            assert isinstance(item, Chunk)
            size += len(item.data)
            if size > least and until_then():
                break


def test_readers_who_leave_leave_no_threads(tmp_path: Path, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                jobs = [await line.start(["cat", "/dev/zero"]) for _ in range(3)]
                await asyncio.gather(*(read(job, MUCH, lambda: threads("towline-lane")) for job in jobs))
                assert lanes
                await until(lambda: not threads("towline-output"), "the clients' threads end")
                await until(lambda: not threads("towline-lane"), "the node's end, too")
                for job in jobs:
                    await job.signal("KILL")

    run(go())


def test_a_person_has_so_many_lanes_and_no_more(tmp_path: Path, lanes: list[SocketLane]) -> None:
    most = 0

    def count() -> bool:
        nonlocal most
        most = max(most, threads("towline-lane"))
        return most == LANES.value

    async def go() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                jobs = [await line.start(["cat", "/dev/zero"]) for _ in range(LANES.value + 2)]
                await asyncio.gather(*(read(job, MUCH, count) for job in jobs))
                for job in jobs:
                    await job.signal("KILL")

    run(go())
    assert most == LANES.value


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_node_that_ends_meanwhile(own: Place, lanes: list[SocketLane], how: signal.Signals) -> None:
    async def go() -> None:
        async with own.line() as line:
            job = await line.start(blocks(96))
            parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
            restarted = None
            async for item in job.output():
                assert isinstance(item, Chunk)
                parts[item.stream].append(item.data)
                if lanes and restarted is None:
                    restarted = asyncio.ensure_future(asyncio.to_thread(own.restart, how))
            assert restarted is not None
            await restarted
            assert digests({name: b"".join(each) for name, each in parts.items()}) == expected(96)
            assert job.ended is not None
            assert job.ended.status == 7

    run(go())


def test_what_a_small_spool_has_dropped_is_named(place: Place, lanes: list[SocketLane]) -> None:
    async def go() -> None:
        async with place.line() as line:
            job = await line.start(blocks(96), overflow="drop-oldest", spool=2 * MIB)
            seq, size = 1, 0
            for item in await items(job):
                if isinstance(item, Missing):
                    assert item.from_ >= seq
                    seq = item.to
                else:
                    assert item.seq >= seq
                    seq, size = item.seq + 1, size + len(item.data)
            assert 0 < size <= 96 * MIB

    run(go())


def test_whoever_leaves_the_pipe_ends_the_command(place: Place) -> None:
    arguments = [*TOW, "run", "home", "--", "cat", "/dev/zero"]
    client = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=environment(place.home),
    )
    assert client.stdout is not None
    assert client.stderr is not None
    left = MUCH
    while left > 0:
        left -= len(client.stdout.read(min(left, MIB)))
    client.stdout.close()
    assert client.wait(20) == 141, client.stderr.read()
    client.stderr.close()


def test_a_sink_takes_nothing_before_what_came_over_the_stream_is_shown() -> None:
    ours, theirs = socket.socketpair()
    sending = SocketLane(BlockingPipe(theirs, None, timeout=20))
    receiving = SocketLane(BlockingPipe(ours, None, timeout=20))
    arrived = threading.Event()
    taken: list[bytes] = []
    read_body = receiving.read_body

    def reads(target: memoryview) -> int:
        count = read_body(target)
        arrived.set()
        return count

    receiving.read_body = reads  # type: ignore[method-assign]

    async def go() -> None:
        bypass = Bypass(lambda: receiving, lambda stream, data: taken.append(bytes(data)))
        sending.send(Kind.DATA, {"s": 1, "q": 7}, b"from the lane")
        await asyncio.to_thread(arrived.wait, 20)
        for _ in range(20):  # whatever its thread would do now, it has had the time for
            await asyncio.to_thread(lambda: None)
        assert not taken
        bypass.begin()
        sending.send(Kind.END, {"next": 8})
        position = await bypass.next()
        assert taken == [b"from the lane"]
        assert position is not None
        assert position.header == {"s": 1, "q": 7}
        assert await bypass.next() is None
        bypass.close()

    run(go())
    sending.close()


def test_a_sink_is_given_no_stream_that_is_no_integer() -> None:
    ours, theirs = socket.socketpair()
    sending = SocketLane(BlockingPipe(theirs, None, timeout=20))
    receiving = SocketLane(BlockingPipe(ours, None, timeout=20))
    taken: list[int] = []

    async def go() -> None:
        bypass = Bypass(lambda: receiving, lambda stream, _: taken.append(stream))
        bypass.begin()
        sending.send(Kind.DATA, {"s": 1.0, "q": 7}, b"nonsense")
        sending.send(Kind.END, {"next": 8})
        assert await bypass.next() is not None, "it comes as a message, for whoever reads them"
        assert await bypass.next() is None
        bypass.close()

    run(go())
    sending.close()
    assert not taken


def test_whoever_waits_for_a_lane_that_is_being_dialled_hears_at_once_that_it_is_over() -> None:
    dialled = threading.Event()

    def dial() -> SocketLane:
        dialled.wait(20)
        raise ConnectionLost("late")

    async def go() -> None:
        bypass = Bypass(dial, None)
        waiting = asyncio.ensure_future(bypass.next())
        await asyncio.sleep(0)
        bypass.close()
        with pytest.raises(ConnectionLost, match="The connection was lost"):
            await waiting
        dialled.set()

    run(go())


@pytest.mark.parametrize("together", [False, True])
def test_tow_run_prints_each_stream_in_its_order(place: Place, tmp_path: Path, together: bool) -> None:
    mib = 24
    program = tmp_path / "blocks.py"
    program.write_text(BLOCKS.format(blocks=mib * MIB // BLOCK))
    out, err = tmp_path / "out", tmp_path / "err"
    with open(out, "wb") as standard, open(err, "wb") as error:
        streams = {"stdout": standard, "stderr": subprocess.STDOUT if together else error}
        done = subprocess.run(
            [*TOW, "run", "home", "--", "python3", str(program)],
            stdin=subprocess.DEVNULL, env=environment(place.home), check=False, **streams,
        )  # type: ignore[call-overload]  # fmt: skip
    assert done.returncode == 7
    printed = {"stdout": out.read_bytes(), "stderr": err.read_bytes()}
    if together:
        words = printed["stdout"].split()
        for name, third in (("stdout", False), ("stderr", True)):
            printed[name] = b"".join(word + b" " for word in words if (int(word) % 3 == 2) is third)
    assert digests(printed) == expected(mib)
