"""Cuts, stalls and other weather: everything arrives, nothing verified is sent twice, and the way on is told."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from tests import kit
from tests.kit import Relay, _copy, run
from tests.transfers.kit import KIB, MIB, Heard, Town, partials, rubbish, seen, write

from towline.base.errors import Unreachable
from towline.client.connect import connect
from towline.client.events import Done, Progress, Started
from towline.client.line import Connected, Line, Reconnecting
from towline.client.transfer import Options
from towline.lab.faults_script import Step
from towline.trust.pins import KnownNodes

patient = kit.patient


def big(path: Path, size: int = 12 * MIB, seed: int = 1) -> bytes:
    content = rubbish(size, seed)
    write(path, content)
    return content


def check_story(heard: Heard, cuts: int) -> None:
    """The events of a transfer with cuts tell of them in order."""
    assert len(heard.of(Started)) == 1
    assert len(heard.of(Connected)) == cuts + 1
    assert len(heard.of(Reconnecting)) >= cuts
    progress = [event.bytes for event in heard.of(Progress)]
    assert all(event.bytes <= event.total_bytes for event in heard.of(Progress))
    assert progress == sorted(progress) or cuts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_a_large_file_up_through_cuts(town: Town, tmp_path: Path, lanes: int, seed: int) -> None:
    content = big(tmp_path / "big")
    heard = Heard()
    with town.faults(cut_every=2 * MIB + 77_777, seed=seed, max_cuts=5) as proxy:
        done = town.put(tmp_path / "big", "files/", heard=heard, lanes=lanes, address=proxy.address)
        assert proxy.stats.cuts == 5
    assert (town.share / "big").read_bytes() == content
    assert done.failures == ()
    assert done.cuts >= 4
    assert done.resent_bytes <= done.bytes * 0.005
    assert done.sent_bytes == done.bytes + done.resent_bytes
    assert heard.resumed
    assert not partials(town.share)
    check_story(heard, done.cuts)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_a_large_file_down_through_cuts(town: Town, tmp_path: Path, lanes: int, seed: int) -> None:
    content = big(town.share / "big")
    heard = Heard()
    with town.faults(cut_every=2 * MIB + 77_777, seed=seed, max_cuts=5) as proxy:
        done = town.get("files/big", tmp_path, heard=heard, lanes=lanes, address=proxy.address)
        assert proxy.stats.cuts == 5
    assert (tmp_path / "big").read_bytes() == content
    assert done.failures == ()
    assert done.cuts >= 4
    assert done.sent_bytes == done.bytes + done.resent_bytes
    assert done.resent_bytes <= done.bytes * 0.005
    assert heard.resumed
    assert not partials(tmp_path)
    check_story(heard, done.cuts)


@pytest.mark.parametrize("lanes", [0, 1, 3])
def test_a_tree_through_cuts_both_ways(town: Town, tmp_path: Path, lanes: int) -> None:
    top = tmp_path / "tree"
    for number in range(400):
        write(top / f"d{number % 7}" / f"e{number % 3}" / str(number), rubbish(number * 53, number), mode=0o600)
    for number in range(4):
        big(top / f"d{number}" / "big", 700 * KIB, number)
    for number in range(7):
        os.chmod(top / f"d{number}", 0o751)
        os.utime(top / f"d{number}", ns=(1, 1_500_000_000_000_000_000 + number))
    os.utime(top, ns=(1, 1_400_000_000_000_000_000))
    for seed in range(2):
        with town.faults(cut_every=900_001, seed=seed, max_cuts=6) as proxy:
            heard = Heard()
            up = town.put(top, f"files/t{seed}", lanes=lanes, address=proxy.address, heard=heard)
            assert proxy.stats.cuts >= 4
        assert heard.resumed
        assert len(heard.notes) == up.files
        assert (up.failures, up.files) == ((), 404)
        assert seen(town.share / f"t{seed}") == seen(top)
        with town.faults(cut_every=900_001, seed=seed, max_cuts=6) as proxy:
            down = town.get(f"files/t{seed}", tmp_path / f"b{seed}", lanes=lanes, address=proxy.address)
        assert (down.failures, down.files) == ((), 404)
        assert seen(tmp_path / f"b{seed}") == seen(top)


@pytest.mark.parametrize(
    "script",
    [
        {"dribble_bytes": 6000},
        {"stall_every": 500_000, "stall": 0.05},
        {"cut_after": 300_000, "refuse": 0.3},
        {"throttle": 6_000_000},
        {"delay": 0.01},
        {"cut_after": 700_000, "reset": True},
    ],
    ids="-".join,
)
def test_other_weather(town: Town, tmp_path: Path, script: dict[str, float]) -> None:
    top = tmp_path / "tree"
    big(top / "big", 1 * MIB)
    for number in range(50):
        write(top / "small" / str(number), rubbish(1000, number))
    with town.faults(**script) as proxy:
        up = town.put(top, "files/t", address=proxy.address)
    with town.faults(**script) as proxy:
        down = town.get("files/t", tmp_path / "back", address=proxy.address)
    assert up.failures == down.failures == ()
    assert seen(top) == seen(town.share / "t") == seen(tmp_path / "back")


def test_a_cut_in_the_very_first_and_in_the_last_bytes(town: Town, tmp_path: Path) -> None:
    content = big(tmp_path / "big", 200 * KIB)
    with town.faults() as proxy:
        town.put(tmp_path / "big", "files/measured", address=proxy.address)
        total = proxy.stats.bytes_up + proxy.stats.bytes_down
    for number, at in enumerate((1, 500, 1500, 3000, 5000, total - 4000, total - 600, total - 200, total - 60)):
        with town.faults(cut_after=at) as proxy:
            done = town.put(tmp_path / "big", f"files/n{number}", address=proxy.address, give_up=10.0)
            assert proxy.stats.cuts <= 1
        assert done.failures == ()
        assert (town.share / f"n{number}").read_bytes() == content
        with town.faults(cut_after=at) as proxy:
            done = town.get(f"files/n{number}", tmp_path / f"n{number}", address=proxy.address, give_up=10.0)
        assert done.failures == ()
        assert (tmp_path / f"n{number}").read_bytes() == content


def test_standard_input_through_cuts(town: Town) -> None:
    content = rubbish(6 * MIB)
    for lanes in (0, 1, 3):
        with town.faults(cut_every=MIB + 4321, seed=lanes, max_cuts=4) as proxy:
            read, write_ = os.pipe()

            def feed(fd: int = write_) -> None:
                with os.fdopen(fd, "wb") as pipe:
                    pipe.write(content)

            feeding = threading.Thread(target=feed)
            feeding.start()
            done = town.with_line(
                lambda line, fd=read, n=lanes: line.put_stream(  # type: ignore[misc]
                    fd, f"files/stream{n}", options=Options(lanes=n)
                ),
                address=proxy.address,
            )
            feeding.join()
            os.close(read)
            assert proxy.stats.cuts == 4
        assert done.failures == ()
        assert done.bytes == len(content)
        assert (town.share / f"stream{lanes}").read_bytes() == content


def test_a_stream_through_a_cut_in_its_last_words(town: Town) -> None:
    """The node published it, and its word of that was lost."""
    content = rubbish(50_000)

    def put(name: str, address: str) -> None:
        read, write_ = os.pipe()
        with os.fdopen(write_, "wb") as pipe:
            pipe.write(content)
        done = town.with_line(lambda line: line.put_stream(read, f"files/{name}"), address=address)
        os.close(read)
        assert done.failures == ()
        assert (done.bytes, done.files) == (len(content), 1)
        assert (town.share / name).read_bytes() == content

    with town.faults() as proxy:
        put("measured", proxy.address)
        total = proxy.stats.bytes_up + proxy.stats.bytes_down
    for number in range(12):
        with town.faults(cut_after=total - 60 * number - 30) as proxy:
            put(f"n{number}", proxy.address)


def test_standard_output_through_cuts(town: Town) -> None:
    content = big(town.share / "big", 6 * MIB)
    for lanes in (0, 1, 3):
        with town.faults(cut_every=MIB + 4321, seed=lanes, max_cuts=4) as proxy:
            read, write_ = os.pipe()
            got = bytearray()

            def drain(fd: int = read, into: bytearray = got) -> None:
                with os.fdopen(fd, "rb") as pipe:
                    while chunk := pipe.read1():
                        into.extend(chunk)

            draining = threading.Thread(target=drain)
            draining.start()
            done = town.with_line(
                lambda line, fd=write_, n=lanes: line.get_stream(  # type: ignore[misc]
                    "files/big", fd, options=Options(lanes=n)
                ),
                address=proxy.address,
            )
            os.close(write_)
            draining.join()
            assert proxy.stats.cuts == 4
        assert done.failures == ()
        assert bytes(got) == content
        assert done.resent_bytes == done.sent_bytes - len(content)


def test_the_node_is_restarted_under_way(town: Town, tmp_path: Path) -> None:
    content = big(tmp_path / "big", 8 * MIB)
    restarted = threading.Event()

    def hear(event: object) -> None:
        heard(event)
        if isinstance(event, Progress) and event.bytes > 2 * MIB and not restarted.is_set():
            restarted.set()
            threading.Thread(target=town.restart).start()

    heard = Heard()
    with town.faults(throttle=8_000_000) as proxy:  # most of a second is left when it is told to restart
        done = town.put(tmp_path / "big", "files/", heard=hear, address=proxy.address)  # type: ignore[arg-type]
    assert restarted.is_set()
    assert done.failures == ()
    assert done.cuts >= 1
    assert heard.resumed
    assert (town.share / "big").read_bytes() == content


def test_giving_up_leaves_the_partial_and_the_next_run_goes_on(town: Town, tmp_path: Path, patient: None) -> None:
    content = big(tmp_path / "big", 8 * MIB)
    for verb in ("put", "get"):
        with town.faults(at_bytes=((5 * MIB, Step("refuse", seconds=60.0)), (5 * MIB, Step("cut")))) as proxy:
            do = {
                "put": lambda at: town.put(tmp_path / "big", "files/", address=at, give_up=0.3),
                "get": lambda at: town.get("files/big", tmp_path / "back", address=at, give_up=0.3),
            }[verb]
            with pytest.raises(Unreachable) as caught:
                do(proxy.address)
            assert caught.value.exit_status == 6
        where = town.share if verb == "put" else tmp_path
        assert any(name.endswith(".part") for name in partials(where))
        heard = Heard()
        if verb == "put":
            done = town.put(tmp_path / "big", "files/", heard=heard)
        else:
            done = town.get("files/big", tmp_path / "back", heard=heard)
        assert 0 < done.sent_bytes < 4 * MIB
        assert heard.resumed[0].position > 4 * MIB
        assert not partials(where)
    assert (town.share / "big").read_bytes() == (tmp_path / "back").read_bytes() == content


def test_over_the_unix_socket(town: Town, tmp_path: Path) -> None:
    content = big(tmp_path / "big", 3 * MIB)
    unix = f"unix:{town.node.listening.unix}"
    for lanes in (0, 1, 3):
        assert town.put(tmp_path / "big", f"files/u{lanes}", lanes=lanes, address=unix).sent_bytes == len(content)
        town.get(f"files/u{lanes}", tmp_path / f"u{lanes}", lanes=lanes, address=unix)
        assert (tmp_path / f"u{lanes}").read_bytes() == content


class OneConnection(Relay):
    """Lets the first connection live; the others get through the handshake and no further."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.count:
            await super()._serve(reader, writer)
            return
        self.count += 1
        there_reader, there_writer = await asyncio.open_connection(*self.to.rsplit(":", 1))
        async with self._held(writer), self._held(there_writer):
            upward = asyncio.ensure_future(_copy(reader, there_writer))
            left = 4000
            while data := await there_reader.read(left):
                writer.write(data)
                left -= len(data)
            await writer.drain()
            upward.cancel()


def test_where_no_second_connection_is_kept_the_first_carries_it_all(town: Town, tmp_path: Path) -> None:
    content = big(town.share / "big")

    async def through_the_relay() -> tuple[Done, int]:
        async with OneConnection(town.address) as relay:
            KnownNodes(home).set_address("home", relay.address)
            async with connect("home", home=home) as line:
                return await line.get("files/big", str(tmp_path), options=Options(lanes=1)), relay.count

    home = town.home()
    done, connections = run(through_the_relay())
    assert (tmp_path / "big").read_bytes() == content
    assert done.cuts == 0
    assert 3 <= connections <= 10


def test_a_listing_goes_on_behind_what_came_before_a_cut(town: Town) -> None:
    names = [f"{number:04}" for number in range(3000)]
    (town.share / "many").mkdir()
    for name in names:
        (town.share / "many" / name).touch()

    async def listed(line: Line) -> list[str]:
        return [entry.name async for entry in line.list("files/many")]

    with town.faults(cut_after=60_000) as proxy:
        assert town.with_line(listed, address=proxy.address) == names
        assert proxy.stats.cuts == 1


@pytest.mark.parametrize("verb", ["put", "get"])
def test_where_it_goes_on_is_never_before_where_it_went_on_before(town: Town, tmp_path: Path, verb: str) -> None:
    source = tmp_path / "t" if verb == "put" else town.share / "t"
    write(source / "a small one", b"1")
    big(source / "big", 8 * MIB)
    heard = Heard()
    with town.faults(cut_every=2 * MIB, max_cuts=3) as proxy:
        if verb == "put":
            town.put(source, "files/t", heard=heard, lanes=1, address=proxy.address)
        else:
            town.get("files/t", tmp_path / "t", heard=heard, lanes=1, address=proxy.address)
    positions = [event.position for event in heard.resumed]
    assert positions == sorted(positions)
    assert positions[0] > 1 * MIB
    assert len(positions) == 3
