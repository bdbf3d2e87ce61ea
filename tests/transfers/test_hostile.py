"""Peers that do not keep to the rules: nothing escapes, only documented errors come out, and the others go on."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.kit import until
from tests.transfers.kit import KIB, Heard, Town, seen, write

from towline.base.errors import (
    BadMessage,
    Conflict,
    LimitExceeded,
    PeerError,
    ProtocolError,
    TowlineError,
    VerificationFailed,
)
from towline.client.line import Line
from towline.protocol.codec import Header
from towline.protocol.table import Class, Kind
from towline.runtime.channel import Channel
from towline.services.files.conversation import UNREAD, Talk
from towline.services.files.messages import TRANSFER_LANES, encode_rows
from towline.services.files.part import part_name
from towline.services.files.places import OPEN_FILES
from towline.services.files.plan import Entry, encode_batch


def packed(index: int, size: int, content: bytes) -> bytes:
    """A file of a pack's table."""
    return struct.pack(">QI32s", index, size, blake3(content).digest())


def digest(content: bytes) -> str:
    return blake3(content).hexdigest()


# --- a malicious node ---


class Liar:
    """The service `files` of a node that lies. `say` plays the sender of a get."""

    def __init__(self, town: Town, say: Callable[[Channel, Liar], Awaitable[None]], kind: str = "dir") -> None:
        self.say = say
        self.kind = kind
        self.lanes: asyncio.Queue[Channel] = asyncio.Queue()
        self.heard: list[Header] = []
        town.in_loop(lambda: self._move_in(town))

    def _move_in(self, town: Town) -> None:
        self.lanes = asyncio.Queue()
        town.node._services._handlers["files"] = self

    async def __call__(self, channel: Channel) -> None:
        op = channel.header.get("op")
        if op == "stat":
            channel.accept()
            await channel.send(encode_rows(["t", self.kind, 10, 1, 0o644]))
        elif op == "lane":
            channel.accept()
            await self.lanes.put(channel)
            await channel.wait_ended()
        else:
            channel.accept({"kind": self.kind, "files": 1, "bytes": 10, "tickets": [[1, "none"]], "tally": [0, 0]})
            hearing = asyncio.ensure_future(self._hear(channel))
            try:
                await self.say(channel, self)
                await channel.wait_ended()
            finally:
                hearing.cancel()

    async def _hear(self, channel: Channel) -> None:
        async for message in channel.messages():
            self.heard.append(message.header or {})

    async def heard_of(self, name: str) -> None:
        await until(lambda: any(header.get("t") == name for header in self.heard), name)


async def plan(channel: Channel, *entries: list[Any], first: int = 0) -> None:
    await channel.send(encode_rows(list(entries)), {"t": "plan", "first": first})


async def planned(channel: Channel, count: int) -> None:
    await channel.send(b"", {"t": "planned", "entries": count})


async def over_lane(liar: Liar, *frames: tuple[int, Header | None, bytes]) -> Channel:
    lane = await liar.lanes.get()
    for kind, header, body in frames:
        await lane.send(body, None if kind == Kind.DATA else {"kind": int(kind), "range": header or {}})
    return lane


def file_row(path: str, size: int = 10) -> list[Any]:
    return [path, "f", size, 1, 0o644]


NAMES = [
    "../out",
    "/etc/out",
    "a/../../out",
    "..",
    "",
    ".",
    "a//b",
    "a\0b",
    ".towline-abcdefgh.part",
    "a/./b",
    7,
    None,
]


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_node_that_sends_bad_names(town: Town, tmp_path: Path, name: Any) -> None:
    town.home()
    (tmp_path / "here").mkdir()
    before = sorted(os.listdir(tmp_path))
    for kind in ("f", "d", "l"):
        row = [name, kind, 0, 1, 0o644] + (["/etc/passwd"] if kind == "l" else [])

        async def say(channel: Channel, liar: Liar, row: list[Any] = row) -> None:
            await plan(channel, row)

        Liar(town, say)
        with pytest.raises(BadMessage) as caught:
            town.get("files/t", tmp_path / "here", any_names=True, lanes=0, links="keep")
        assert caught.value.exit_status == 9
    assert sorted(os.listdir(tmp_path)) == before
    assert set(seen(tmp_path / "here")) <= {b".", b"t"}


def test_a_node_that_sends_symlinks_that_nobody_asked_for(town: Town, tmp_path: Path) -> None:
    async def say(channel: Channel, liar: Liar) -> None:
        await plan(channel, ["link", "l", 0, 1, 0o777, "/etc"], file_row("link/passwd"))

    Liar(town, say)
    with pytest.raises(BadMessage):
        town.get("files/t", tmp_path / "back", lanes=0)
    assert not os.path.lexists(tmp_path / "back" / "link")


def test_a_node_that_writes_through_its_own_symlink(town: Town, tmp_path: Path) -> None:
    """Even where symlinks are wanted, nothing goes through them."""
    (tmp_path / "outside").mkdir()

    async def say(channel: Channel, liar: Liar) -> None:
        await plan(channel, ["link", "l", 0, 1, 0o777, str(tmp_path / "outside")], file_row("link/evil"))
        await planned(channel, 2)
        await liar.heard_of("fail")

    Liar(town, say)
    heard = Heard()

    def get() -> None:
        done = town.get("files/t", tmp_path / "back", lanes=0, links="keep", heard=heard)
        raise done.failures[0]

    with pytest.raises(TowlineError):
        get()
    assert os.listdir(tmp_path / "outside") == []


def spoken(
    town: Town, tmp_path: Path, say: Callable[[Channel, Liar], Awaitable[None]], **options: Any
) -> TowlineError:
    """What a get from that liar ends with."""
    Liar(town, say)
    try:
        done = town.get("files/t", tmp_path / "back", lanes=0, **options)
    except TowlineError as error:
        return error
    assert done.failures
    return done.failures[0]


@pytest.mark.parametrize(
    "frames",
    [
        [(Kind.OPEN, {"file": 0, "from": 0, "to": 11}, b"")],
        [(Kind.OPEN, {"file": 0, "from": 5, "to": 1 << 50}, b"")],
        [(Kind.OPEN, {"file": 0, "from": 9, "to": 3}, b"")],
        [(Kind.OPEN, {"file": 0, "from": -1, "to": 3}, b"")],
        [(Kind.OPEN, {"file": 0, "from": 0, "to": -1}, b"")],
        [(Kind.OPEN, {"file": 0, "from": 0, "to": 5}, b""), (Kind.DATA, None, b"123456")],
        [(Kind.OPEN, {"file": 0, "from": 0, "to": 10, "hole": 7}, b"")],
        [(Kind.OPEN, {"file": "x"}, b"")],
        [(Kind.OPEN, {"pack": 1}, b""), (Kind.DATA, None, packed(0, 11, b"y" * 11) + b"y" * 11), (Kind.END, {}, b"")],
        [(Kind.OPEN, {"pack": 1}, b""), (Kind.DATA, None, packed(0, 10, b"") + b"x" * 60000)]
        + [(Kind.DATA, None, b"x" * 60000)] * 40,
        [(Kind.OPEN, {"pack": 1}, b""), (Kind.DATA, None, packed(0, 1 << 31, b"")), (Kind.END, {}, b"")],
        [(Kind.OPEN, {"pack": 1 << 40}, b"")],
        [(Kind.OPEN, {"pack": "1"}, b"")],
        [(Kind.OPEN, {"pack": 2}, b""), (Kind.DATA, None, packed(0, 10, b"")), (Kind.END, {}, b"")],
        [(Kind.OPEN, {"pack": 1}, b""), (Kind.DATA, None, packed(1, 10, b"y" * 10) + b"y" * 10), (Kind.END, {}, b"")],
        [(Kind.OPEN, {"file": 1, "from": 0, "to": 10}, b"")],
        [(Kind.DATA, None, b"loose")],
    ],
    ids=range(17),
)
def test_a_node_that_sends_ranges_that_are_none(town: Town, tmp_path: Path, frames: list[Any]) -> None:
    """File 0 was asked for; file 1 is there with other content and is to stay."""

    async def say(channel: Channel, liar: Liar) -> None:
        await plan(channel, file_row("new"), file_row("keep"))
        await liar.heard_of("want")
        await over_lane(
            liar, *[(kind, {"n": 0} | header if header else header, data) for kind, header, data in frames]
        )
        await planned(channel, 2)

    write(tmp_path / "back" / "t" / "keep", b"1234567890")
    error = spoken(town, tmp_path, say)
    assert isinstance(error, BadMessage | ProtocolError | Conflict | VerificationFailed), error
    assert (tmp_path / "back" / "t" / "keep").read_bytes() == b"1234567890"
    assert not (tmp_path / "back" / "t" / "new").exists()


def test_a_node_whose_digests_are_wrong(town: Town, tmp_path: Path) -> None:
    async def small(channel: Channel, liar: Liar) -> None:
        await plan(channel, file_row("new"))
        await liar.heard_of("want")
        await over_lane(
            liar,
            (Kind.OPEN, {"n": 0, "pack": 1}, b""),
            (Kind.DATA, None, packed(0, 10, b"other") + b"1234567890"),
            (Kind.END, {}, b""),
        )
        await planned(channel, 1)

    assert isinstance(spoken(town, tmp_path, small), VerificationFailed)

    async def large(channel: Channel, liar: Liar) -> None:
        await plan(channel, file_row("new", 100 * KIB))
        await liar.heard_of("want")
        lane = await liar.lanes.get()
        for number in range(2):
            header = {"n": number, "file": 0, "from": 0, "to": 100 * KIB}
            await lane.send(b"", {"kind": int(Kind.OPEN), "range": header})
            for _ in range(2):
                await lane.send(b"x" * (50 * KIB))
            await lane.send(b"", {"kind": int(Kind.END), "range": {}})
            await channel.send(b"", {"t": "sent", "file": 0, "digest": digest(b"other"), "size": 100 * KIB})
            if not number:
                await liar.heard_of("resume")
        await planned(channel, 1)

    error = spoken(town, tmp_path, large)
    assert isinstance(error, VerificationFailed)
    assert error.exit_status == 7
    assert not (tmp_path / "back" / "new").exists()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"t": "same"}, b'[[0,"00"]]'),
        ({"t": "same"}, b'[[1,"00"]]'),
        ({"t": "same"}, b'[[0,""]]'),
        ({"t": "differs"}, b"[0]"),
        ({"t": "same"}, b"{}"),
        ({"t": "same"}, b"[" * 100_000),
        ({"t": "sent", "file": 1, "digest": "00", "size": 10}, b""),
        ({"t": "sent", "file": 0, "digest": "00", "size": 3}, b""),
        ({"t": "sent", "file": 0, "digest": 1, "size": -3}, b""),
        ({"t": "gone", "file": "x"}, b""),
        ({"t": "plan", "first": 7}, b"[]"),
        ({"t": "plan", "first": 2}, b"[[]]"),
        ({"t": "planned", "entries": -1}, b""),
        ({"t": "skipped"}, b'[["x"]]'),
        ({"t": "lane-over", "lane": "x"}, b""),
        ({"t": "ticket", "lane": [], "ticket": 7}, b""),
    ],
    ids=range(16),
)
def test_a_node_that_talks_nonsense(town: Town, tmp_path: Path, header: Header, body: bytes) -> None:
    write(tmp_path / "back" / "t" / "keep", b"1234567890")

    async def say(channel: Channel, liar: Liar) -> None:
        await plan(channel, file_row("new"), file_row("keep"))
        await liar.heard_of("want")
        await channel.send(body, header)

    assert isinstance(spoken(town, tmp_path, say), BadMessage | PeerError)
    assert (tmp_path / "back" / "t" / "keep").read_bytes() == b"1234567890"


def test_a_node_whose_plan_has_no_end(town: Town, tmp_path: Path) -> None:
    """It is ended as soon as it runs ahead of what it has brought."""

    async def say(channel: Channel, liar: Liar) -> None:
        for first in range(0, 100_000, 200):
            await plan(channel, *[file_row(f"{n:06}") for n in range(first, first + 200)], first=first)

    error = spoken(town, tmp_path, say)
    assert isinstance(error, BadMessage)
    assert len(list((tmp_path / "back").iterdir())) == 0


def test_a_node_whose_plan_goes_on_behind_its_end(town: Town, tmp_path: Path) -> None:
    async def say(channel: Channel, liar: Liar) -> None:
        await plan(channel, file_row("new"))
        await planned(channel, 1)
        await plan(channel, file_row("more"), first=1)

    assert isinstance(spoken(town, tmp_path, say), BadMessage)


# --- a malicious client ---


async def put_channel(line: Line, kind: str = "dir", **request: Any) -> Channel:
    connection = await line.connection()
    channel = connection.open(
        {"service": "files", "op": "put", "transfer": "t1", "share": "files", "path": "t", "kind": kind, "lanes": 1}
        | request,
        Class.CHAT,
    )
    await channel.accepted()
    return channel


async def ended(channel: Channel) -> TowlineError:
    """What the node ends the stream with."""
    try:
        while await channel.receive() is not None:
            pass
    except TowlineError as error:
        return error
    raise AssertionError("it ended well")


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_client_that_sends_bad_names(town: Town, tmp_path: Path, name: Any) -> None:
    before = sorted(os.listdir(tmp_path / "share"))

    async def work(line: Line) -> TowlineError:
        channel = await put_channel(line, any_names=True, overwrite="always")
        await plan(channel, [name, "d", 0, 1, 0o755])
        return await ended(channel)

    assert isinstance(town.with_line(work), BadMessage)
    assert sorted(os.listdir(tmp_path / "share")) == [*before, "t"]
    assert os.listdir(town.share / "t") == []
    well(town, tmp_path)


def well(town: Town, tmp_path: Path) -> None:
    """The node serves others, and nothing of what went wrong is left open."""
    write(tmp_path / "probe", b"probe")
    assert not town.put(tmp_path / "probe", "files/probe", overwrite="always").failures
    assert (town.share / "probe").read_bytes() == b"probe"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({"t": "plan", "first": 5}, b"[]"),
        ({"t": "plan", "first": 0}, b"rubbish"),
        ({"t": "plan", "first": 0}, b'[["a","f",-7,1,420]]'),
        ({"t": "plan", "first": 0}, b'[["a","f",1e300,1,420]]'),
        ({"t": "plan", "first": 0}, b'[["a","x",1,1,420]]'),
        ({"t": "plan", "first": 0}, b'[["a","f",1,1,4200000]]'),
        ({"t": "plan", "first": 0}, b"[" + b'["a","d",0,1,493],' * 5000 + b'["a","d",0,1,493]]'),
        ({"t": "same"}, b'[[-1,"x"]]'),
        ({"t": "sent"}, b""),
        ({"t": "skipped"}, b"[[]]"),
        ({"t": "lane-over"}, b""),
    ],
    ids=range(11),
)
def test_a_client_that_talks_nonsense(town: Town, tmp_path: Path, header: Header, body: bytes) -> None:
    async def work(line: Line) -> TowlineError:
        channel = await put_channel(line)
        await channel.send(body, header)
        return await ended(channel)

    assert isinstance(town.with_line(work), BadMessage)
    well(town, tmp_path)


def test_a_client_whose_lanes_are_over_before_they_come(town: Town, tmp_path: Path) -> None:
    """What the node remembers of them has an end."""

    async def work(line: Line) -> TowlineError:
        channel = await put_channel(line)
        try:
            for number in range(5000):
                await channel.send(b"", {"t": "lane-over", "lane": number})
        except TowlineError as error:
            return error
        return await ended(channel)

    assert isinstance(town.with_line(work), BadMessage)
    well(town, tmp_path)


def test_requests_that_are_none(town: Town, tmp_path: Path) -> None:
    async def work(line: Line) -> list[TowlineError]:
        errors = []
        connection = await line.connection()
        for request in (
            {},
            {"op": "put"},
            {"op": "put", "share": 7, "path": "x", "transfer": "t"},
            {"op": "put", "share": "files", "path": "x", "transfer": "t", "overwrite": "maybe"},
            {"op": "put", "share": "files", "path": "../x", "transfer": "t", "kind": "dir"},
            {"op": "put", "share": "files", "path": "x", "transfer": "t", "kind": "dir", "lanes": 1000},
            {"op": "put", "share": "files", "path": "x", "transfer": "t", "kind": "dir", "top": [1, "x"]},
            {"op": "get", "share": "files", "path": "nothing", "transfer": "t"},
            {"op": "get", "share": "files", "path": "", "transfer": "t", "after": "../x"},
            {"op": "get", "share": "files", "path": "", "transfer": "t", "rate": -1},
            {"op": "lane", "transfer": "nobody", "lane": 1},
            {"op": "list", "share": "files", "path": "nothing"},
            {"op": "fly"},
        ):
            channel = connection.open({"service": "files", **request}, Class.CHAT)
            errors.append(await ended(channel))
        return errors

    def fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    town.with_line(work)
    before = fds()
    for _ in range(20):
        assert all(error.code not in (0, 900) for error in town.with_line(work))
    assert fds() <= before + 3
    assert set(os.listdir(town.share)) <= {"x"}
    well(town, tmp_path)


def test_a_client_that_reads_nothing_of_what_it_makes_the_node_say(town: Town, tmp_path: Path) -> None:
    """What waits for it is bounded in bytes, however long each message is."""

    async def talk(channel: Channel) -> None:
        channel.accept()
        talk, body = Talk(channel), bytes(128 * KIB)
        for _ in range(UNREAD.value // len(body) + 1):
            talk.say({"t": "done"}, body)
        try:
            await talk.run(channel.wait_ended())
        except TowlineError as error:
            channel.reset(error)

    async def work(line: Line) -> TowlineError:
        connection = await line.connection()
        channel = connection.open({"service": "talk"}, Class.CHAT)
        return await ended(channel)

    town.in_loop(lambda: town.node._services.add("talk", talk))
    assert isinstance(town.with_line(work), LimitExceeded)
    well(town, tmp_path)


def test_a_client_that_wants_without_end_and_reads_nothing(town: Town, tmp_path: Path) -> None:
    """What it asks for is bounded by what was planned."""
    write(town.share / "t" / "file", b"x" * 1000)

    async def work(line: Line) -> TowlineError:
        connection = await line.connection()
        channel = connection.open(
            {"service": "files", "op": "get", "transfer": "t", "share": "files", "path": "t", "lanes": 0}, Class.CHAT
        )
        await channel.accepted()
        try:
            for _ in range(3000):
                await channel.send(encode_rows([[0, 1]] * 2000), {"t": "want"})
        except TowlineError as error:
            return error
        return await ended(channel)

    assert isinstance(town.with_line(work), BadMessage)
    well(town, tmp_path)


@pytest.mark.parametrize("packed", [[[0, 1]], [[0, 1 << 60]], [[-1, 1]], [0], 7], ids=range(5))
def test_a_client_that_has_what_was_never_sent(town: Town, tmp_path: Path, packed: Any) -> None:
    write(town.share / "t" / "file", b"x" * 1000)

    async def work(line: Line) -> TowlineError:
        connection = await line.connection()
        channel = connection.open(
            {"service": "files", "op": "get", "transfer": "t", "share": "files", "path": "t", "lanes": 0}, Class.CHAT
        )
        await channel.accepted()
        while (message := await channel.receive()) is not None and (message.header or {}).get("t") != "plan":
            pass
        await channel.send(b"", {"t": "done", "packed": packed})
        return await ended(channel)

    assert isinstance(town.with_line(work), BadMessage)
    well(town, tmp_path)


def test_a_lane_of_another_person(town: Town, tmp_path: Path) -> None:
    """A transfer's lanes are its person's."""

    async def work(line: Line) -> TowlineError:
        connection = await line.connection()
        channel = connection.open({"service": "files", "op": "lane", "transfer": "t1", "lane": 1}, Class.BULK)
        try:
            await channel.accepted()
        except TowlineError as error:
            return error
        raise AssertionError("let in")

    async def both(line: Line) -> TowlineError:
        await put_channel(line)
        return await asyncio.to_thread(town.with_line, work, home=bob)

    bob = town.home("bob")
    assert town.with_line(both).code == 209


def test_wrong_bytes_from_a_client_are_not_published(town: Town, tmp_path: Path) -> None:
    async def work(line: Line) -> list[Header]:
        channel = await put_channel(line)
        await channel.send(encode_batch([Entry("f", "file", 10, 1, 0o644)]), {"t": "plan", "first": 0})
        await planned(channel, 1)
        connection = await line.connection()
        lane = connection.open({"service": "files", "op": "lane", "transfer": "t1", "lane": 1}, Class.BULK)
        await lane.accepted()
        heard = []
        while (message := await channel.receive()) is not None:
            heard.append(message.header or {})
            if heard[-1].get("t") == "want":
                await lane.send(b"", {"kind": int(Kind.OPEN), "range": {"n": 0, "pack": 1}})
                await lane.send(packed(0, 10, b"0123456789") + b"xxxxxxxxxx")
                await lane.send(b"", {"kind": int(Kind.END), "range": {}})
            if heard[-1].get("t") == "fail":
                break
        channel.end()
        return heard

    heard = town.with_line(work)
    assert heard[-1]["code"] == VerificationFailed.code
    assert not (town.share / "t" / "f").exists()
    well(town, tmp_path)


async def lane_of(line: Line) -> Channel:
    """A lane of `put_channel`'s transfer."""
    connection = await line.connection()
    lane = connection.open({"service": "files", "op": "lane", "transfer": "t1", "lane": 1}, Class.BULK)
    await lane.accepted()
    return lane


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_begins_many_files_and_ends_none(town: Town, tmp_path: Path, begun: bool) -> None:
    """The node has a bounded number of them open, whether they were begun before or are now."""
    many = 3 * OPEN_FILES.value
    if begun:
        for number in range(many):
            write(town.share / "t" / f"{part_name(f'{number:04}', 'ann')}.part", b"")
    before = len(os.listdir("/proc/self/fd"))

    async def work(line: Line) -> tuple[int, list[Header]]:
        channel = await put_channel(line)
        lane = await lane_of(line)
        heard: list[Header] = []

        async def hear(name: str, count: int = 1) -> None:
            while sum(header.get("t") == name for header in heard) < count:
                message = await channel.receive()
                assert message is not None
                heard.append(message.header or {})

        await plan(channel, *[file_row(f"{number:04}", 100 * KIB) for number in range(many)])
        if begun:
            await hear("resume")
        else:
            await hear("want")
            for number in range(many):
                header = {"n": number, "file": number, "from": 0, "to": 0}
                await lane.send(b"", {"kind": int(Kind.OPEN), "range": header})
                await lane.send(b"", {"kind": int(Kind.END), "range": {}})
            await hear("fail", many - OPEN_FILES.value)
        await channel.send(b"", {"t": "ticket"})  # is answered when all that was to be opened is
        await hear("ticket")
        open_now = len(os.listdir("/proc/self/fd"))
        channel.reset()
        return open_now, heard

    open_now, heard = town.with_line(work)
    assert open_now - before < 3 * OPEN_FILES.value + 20
    refused = [header for header in heard if header["t"] == "fail"]
    assert all(header["code"] == LimitExceeded.code and "open_files" in header["message"] for header in refused)
    well(town, tmp_path)


@pytest.mark.parametrize("over_streams", [True, False])
def test_a_client_that_wants_lanes_without_end(town: Town, tmp_path: Path, over_streams: bool) -> None:
    """Each is a thread of the node, whatever it was admitted by."""

    async def work(line: Line) -> TowlineError:
        channel = await put_channel(line)
        if not over_streams:
            for _ in range(TRANSFER_LANES.value):
                await channel.send(b"", {"t": "ticket"})
            return await ended(channel)
        lanes = []
        try:
            while len(lanes) < 2 * TRANSFER_LANES.value:
                lanes.append(await lane_of(line))
        except TowlineError as error:
            return error
        raise AssertionError("there was no end")

    error = town.with_line(work)
    assert isinstance(error, LimitExceeded)
    assert "transfer_lanes" in error.sentence or "tickets" in error.sentence
    well(town, tmp_path)


def test_a_client_that_has_begun_many_files_gets_all_of_them_done(town: Town, tmp_path: Path) -> None:
    for number in range(100):
        write(tmp_path / "t" / f"{number:04}", b"%0100000d" % number)
        write(town.share / "t" / "t" / f"{part_name(f'{number:04}', 'ann')}.part", b"")
    done = town.put(tmp_path / "t", "files/t")
    assert (done.files, done.failures) == (100, ())
    assert seen(town.share / "t" / "t") == seen(tmp_path / "t")
