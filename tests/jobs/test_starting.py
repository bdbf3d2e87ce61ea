"""Told what to start, told to go: a keeper, its node's two ways to it, and what happens when a message is missing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kit import joined, run, serving, until

from towline.base.errors import CommandNotFound, ConnectionLost, InternalError, TimedOut, UnknownJob
from towline.client.connect import connect
from towline.protocol.codec import Decoder, Header
from towline.services.jobs import keeping, starting
from towline.services.jobs.beginning import Beginning, Begun
from towline.services.jobs.keeper import Keeper
from towline.services.jobs.link import SOCKET_NAME, Link, Orders
from towline.store import Store
from towline.store.jobs import STARTING, JobRow


class Node:
    """A node's two ways to a keeper in this process, without the node. `heard` is what the keeper said."""

    def __init__(self) -> None:
        self.heard: list[Header] = []

    async def connect(self, keeper: Keeper) -> None:
        loop = asyncio.get_running_loop()
        (ours, theirs), (mine, its) = socket.socketpair(), socket.socketpair()
        await loop.create_unix_connection(keeper.link, sock=theirs)
        await loop.create_unix_connection(keeper.link, sock=its)
        _, self.link = await loop.create_unix_connection(
            lambda: Link(lambda _, header, __: self.heard.append(header), lambda _: None), sock=ours
        )
        self.link.say({"t": "hello", "r": 1, "spool": 1 << 30, "elsewhere": 0}, json.dumps(dict(os.environ)).encode())
        await until(lambda: self.heard, "the keeper greets")
        self.orders = Orders(mine, str(self.heard.pop()["token"]))

    def prepare(self, job: str, *argv: str) -> None:
        order: dict[str, Any] = {"job": job, "argv": argv, "cwd": "/", "env": {}, "spool": 1 << 20}
        self.orders.say([({"t": "prepare", "job": job}, json.dumps(order).encode())])

    def go(self, job: str) -> None:
        self.orders.say([({"t": "go", "job": job}, b"")])

    async def hears(self, end: str) -> Header:
        """What the keeper said last, of that type; before it, that the command has started, if that took a moment."""
        await until(lambda: self.heard and self.heard[-1]["t"] == end, f"{end} after {self.heard}")
        *before, last = self.heard
        assert [header["t"] for header in before] in ([], ["started"])
        self.heard = []
        return last

    def close(self) -> None:
        self.orders.close()
        self.link.close()


def kept(folder: Path, work: Callable[[Keeper, Node], Awaitable[None]]) -> None:
    async def go() -> None:
        keeper, node = Keeper(str(folder), asyncio.get_running_loop()), Node()
        await node.connect(keeper)
        try:
            before = os.listdir("/proc/self/fd")
            await work(keeper, node)
            assert len(os.listdir("/proc/self/fd")) <= len(before)
        finally:
            node.close()
        await keeper.over.wait()  # it holds nothing

    run(go())


def test_what_is_prepared_is_nothing_until_it_goes_and_goes_once(tmp_path: Path) -> None:
    async def work(keeper: Keeper, node: Node) -> None:
        before = os.listdir("/proc/self/fd")
        node.prepare("one", "sh", "-c", f"echo x >> {tmp_path}/ran")
        node.prepare("two", "sh", "-c", f"echo x >> {tmp_path}/never")
        node.orders.say([({"t": "drop", "job": "two"}, b"")])
        await until(lambda: "one" in keeper._prepared and "two" not in keeper._prepared)
        assert os.listdir("/proc/self/fd") == before
        assert os.listdir(tmp_path) == []
        node.go("one")
        node.go("one")  # while it runs, or when it has ended
        node.go("two")
        await until(lambda: sum(header["t"] == "exited" for header in node.heard) == 1)
        await until(lambda: any(header.get("job") == "two" for header in node.heard))
        node.go("one")
        await until(lambda: node.heard[-1] == node.heard[-1] | {"t": "refused", "job": "one"})
        assert {header["code"] for header in node.heard if header["t"] == "refused"} == {UnknownJob.code}
        assert (tmp_path / "ran").read_text() == "x\n"
        assert not (tmp_path / "never").exists()
        assert len({header["pid"] for header in node.heard if "pid" in header}) == 1

    kept(tmp_path, work)


def test_what_a_node_forgets_is_taken_off_what_the_keeper_has_counted(tmp_path: Path) -> None:
    async def work(keeper: Keeper, node: Node) -> None:
        node.prepare("one", "true")
        node.go("one")
        size = (await node.hears("exited"))["size"]
        assert keeper._elsewhere == size
        node.link.say({"t": "elsewhere", "change": -10})  # the node may not have heard of that end
        await until(lambda: keeper._elsewhere == int(str(size)) - 10)

    kept(tmp_path, work)


def test_a_start_under_the_name_of_one_before_leaves_its_spool_alone(tmp_path: Path) -> None:
    async def work(keeper: Keeper, node: Node) -> None:
        node.prepare("one", "true")
        node.go("one")
        await node.hears("exited")
        files = {path: path.read_bytes() for path in (tmp_path / "one").iterdir()}
        node.prepare("one", "sh", "-c", f"echo x > {tmp_path}/again")
        node.go("one")
        await node.hears("refused")
        assert {path: path.read_bytes() for path in (tmp_path / "one").iterdir()} == files
        assert not (tmp_path / "again").exists()

    kept(tmp_path, work)


def test_a_node_that_ends_between_the_two_has_started_nothing(tmp_path: Path) -> None:
    async def work(keeper: Keeper, node: Node) -> None:
        node.prepare("one", "sh", "-c", f"echo x > {tmp_path}/ran")
        await until(lambda: keeper._prepared)
        after = Node()
        await after.connect(keeper)  # takes over
        node.go("one")  # late, over a way that is none any more
        after.go("one")
        refused = await after.hears("refused")
        assert refused["code"] == UnknownJob.code
        after.prepare("two", "sh", "-c", f"echo x > {tmp_path}/ran")
        await until(lambda: keeper._prepared)
        after.close()  # killed
        await until(lambda: not keeper._prepared)
        assert os.listdir(tmp_path) == []

    kept(tmp_path, work)


def _row(job: str, request: str) -> JobRow:
    return JobRow(job, "ann", request, ["true"], False, "keep", 0.0, STARTING, 1.0)


def _said(sock: socket.socket) -> list[tuple[object, object]]:
    sock.setblocking(False)
    frames = Decoder(1 << 16, 1 << 16).feed(sock.recv(1 << 16))
    return [(frame.header["t"], frame.header.get("job")) for frame in frames if frame.header is not None]


def test_only_what_is_written_down_goes(tmp_path: Path) -> None:
    async def go() -> None:
        store = Store.open(str(tmp_path))
        beginning, (ours, theirs) = Beginning(store), socket.socketpair()
        orders = Orders(ours, "token")
        told: list[Begun] = []
        beginning.begin(_row("one", "same"), b"", orders, told.append)
        beginning.begin(_row("two", "same"), b"", orders, told.append)  # sent again
        await until(lambda: len(told) == 2)
        assert [(begun.row.id, begun.new, begun.went) for begun in told] == [
            ("one", True, True),
            ("one", False, False),
        ]
        store.close()  # as good as a disk that fails
        beginning.begin(_row("three", "other"), b"", orders, told.append)
        await until(lambda: len(told) == 3)
        assert isinstance(told[2].problem, InternalError)
        assert not told[2].went
        said = _said(theirs)
        assert said[0] == ("orders", None)
        assert sorted(said[1:5], key=str) == [("drop", "two"), ("go", "one"), ("prepare", "one"), ("prepare", "two")]
        assert said[5:] == [("prepare", "three"), ("drop", "three")]
        theirs.close()
        with pytest.raises(BrokenPipeError):
            ours.send(b"x")
        beginning.resume(_row("one", "same"), b"", orders, told.append)
        await until(lambda: len(told) == 4)
        assert not told[3].went  # there is no keeper
        await asyncio.to_thread(beginning.close)
        orders.close()

    run(go())


@pytest.mark.parametrize("argv", [["\ud800"], ["true", "a\0b"], [""]])
def test_what_no_system_can_start_is_refused_like_anything_else(tmp_path: Path, argv: list[str]) -> None:
    """The node asks for no such thing. If it did, silence would be taken for a command that runs for ever."""

    async def work(keeper: Keeper, node: Node) -> None:
        node.prepare("one", *argv)
        node.go("one")
        refused = await node.hears("refused")
        assert refused["code"] in {InternalError.code, CommandNotFound.code}
        assert os.listdir(tmp_path) == []
        node.prepare("two", "true")
        node.go("two")
        await node.hears("exited")

    kept(tmp_path, work)


def test_a_keeper_that_is_never_ready_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin" / "python"
    python.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec sleep 600\n")
    python.chmod(0o700)
    monkeypatch.setattr(keeping.sys, "executable", str(python))
    monkeypatch.setattr(keeping, "START_SECONDS", 0.5)

    async def work() -> None:
        jobs = keeping.Keeping(str(tmp_path / "jobs"), 1 << 30, lambda _: None, lambda: None)
        before = os.listdir("/proc/self/fd")
        with pytest.raises(InternalError, match="could not be started: it was not ready within 500 ms"):
            await jobs.ready()
        leaving = asyncio.ensure_future(jobs.ready())
        await until(lambda: len((tmp_path / "pids").read_text().split()) == 2, "another one is started")
        leaving.cancel()
        with pytest.raises(InternalError):
            await jobs.ready()  # one after the other, whoever leaves meanwhile
        assert leaving.cancelled()
        started = (tmp_path / "pids").read_text().split()
        assert len(started) == 3
        assert not [pid for pid in started if os.path.exists(f"/proc/{pid}")]
        assert len(os.listdir("/proc/self/fd")) <= len(before)

    run(work())


def test_a_start_does_not_wait_for_ever_for_a_keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: keeping.Keeping) -> Orders:
        await asyncio.Event().wait()
        raise AssertionError

    async def work() -> None:
        async with serving(tmp_path / "node") as node:
            home = await joined(node, tmp_path / "ann", can="run")
            async with connect("home", home=home) as line:
                monkeypatch.setattr(starting, "START_SECONDS", 0.2)
                monkeypatch.setattr(keeping.Keeping, "ready", never)
                with pytest.raises(TimedOut, match="was not started"):
                    await line.start(["true"])
                assert await line.jobs() == []

    run(work())


def test_a_keeper_of_another_version_is_let_go_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        def keeping_for() -> keeping.Keeping:
            return keeping.Keeping(str(tmp_path / "jobs"), 1 << 30, lambda _: None, lambda: None)

        first, second = keeping_for(), keeping_for()
        await first.ready()
        before = os.listdir("/proc/self/fd")
        monkeypatch.setattr(keeping, "VERSION", 0)
        with pytest.raises(InternalError, match="another version"):
            await second.ready()
        with pytest.raises(ConnectionLost):
            await second.ask({"t": "stalled"})
        first.close()
        await until(lambda: len(os.listdir("/proc/self/fd")) <= len(before), "descriptors are closed")
        await until(lambda: not (tmp_path / "jobs" / SOCKET_NAME).exists(), "the keeper, with nothing to hold, ends")

    run(work())
