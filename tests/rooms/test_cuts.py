"""The cut: ten clients chatter through the fault proxy while the node is killed with -9 and started again."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from msgspec.structs import force_setattr
from tests import kit
from tests.kit import (
    TOW,
    NodeProcess,
    environment,
    events,
    finished,
    joined,
    round_of_the_loop,
    run,
    serving,
    tow,
    until,
)
from tests.rooms.kit import Listener, listening, texts_of

import towline
from towline.base.errors import CursorFromFuture, IdReused
from towline.client.connect import local_line
from towline.client.outbox import OUTBOX_FILE, Outbox, Unsent
from towline.journal import Cursor
from towline.lab.faults import FaultScript, running
from towline.node import Node, NodeConfig
from towline.services.rooms.messages import Entry, Item, Missed, Post, said

address = kit.address

CLIENTS = 10
PATIENCE = 25.0


async def _invite(node: NodeProcess, name: str) -> str:
    async with local_line(str(node.listening["unix"])) as line:
        channel = await line.channel({"service": "admin", "op": "invite", "name": name, "can": "chat"})
        message = await channel.receive()
        assert message is not None
        channel.end()
        return str(json.loads(message.body))


def _through(address: str, home: str) -> towline.Line:
    line = towline.connect("home", home=home)
    force_setattr(line.target, "addresses", (address,))
    return line


async def _chatter(line: towline.Line, name: str, count: int, rng: random.Random) -> dict[str, int]:
    """Say `count` things, some of them without waiting for the one before; what was acknowledged."""
    acknowledged: dict[str, int] = {}
    room, number = line.room("lobby"), 0
    while number < count:
        burst = [f"{name} {each}" for each in range(number, min(number + rng.randint(1, 4), count))]
        number += len(burst)
        futures = [room.post(text) for text in burst]
        for text, future in zip(burst, futures, strict=True):
            acknowledged[text] = (await future).seq
        for _ in range(rng.randint(0, 20)):
            await round_of_the_loop()
    return acknowledged


async def _chaos(folder: Path, address: str, seed: int, *, count: int, kills: int) -> None:
    rng = random.Random(seed)
    node = NodeProcess(folder, listen=address)
    try:
        with running(address, script=FaultScript(seed=seed, cut_each_seconds=0.4, jitter=0.5)) as proxy:
            async with AsyncExitStack() as stack:
                lines = []
                for number in range(CLIENTS):
                    code = await _invite(node, f"p{number}")
                    await towline.join(code, "home", home=str(folder / f"p{number}"))
                    lines.append(await stack.enter_async_context(_through(proxy.address, str(folder / f"p{number}"))))
                listeners = [Listener(line.room("lobby"), 0) for line in lines]
                for listener in listeners:
                    await listener.ready()
                talking = [
                    asyncio.create_task(_chatter(line, f"p{number}", count, random.Random(seed * 100 + number)))
                    for number, line in enumerate(lines)
                ]
                for kill in range(kills):
                    wanted = CLIENTS * count * (kill + 1) // (kills + 2) + rng.randint(0, count)
                    await until(lambda wanted=wanted: len(listeners[0].items) >= wanted, "chatter goes on")
                    node.process.kill()
                    node.end()
                    node = NodeProcess(folder, listen=address)
                acknowledged: dict[str, int] = {}
                for task in talking:
                    acknowledged |= await finished(task, PATIENCE)
                assert len(acknowledged) == CLIENTS * count
                await _all_heard(listeners, CLIENTS * count, _through(address, str(folder / "p0")))
                _same_everywhere(listeners, acknowledged)
                assert proxy.stats.cuts > 0
                assert all(line.mailing.pending == 0 for line in lines)
                for listener in listeners:
                    await listener.stop()
    finally:
        node.end()


async def _all_heard(listeners: list[Listener], count: int, direct: towline.Line) -> None:
    """Everybody gets there; otherwise say what the log has, read past the faults."""
    try:
        async with asyncio.timeout(PATIENCE):
            while any(len(listener.items) < count for listener in listeners):
                await round_of_the_loop()
                for listener in listeners:
                    assert not listener.task.done(), listener.task
    except TimeoutError:
        async with direct:
            kept = len(await texts_of(direct, "lobby"))
        late = [(len(each.items), each.items[-1], each.opened) for each in listeners if len(each.items) < count]
        raise AssertionError(f"the log has {kept}; behind are {late}")


def _same_everywhere(listeners: list[Listener], acknowledged: dict[str, int]) -> None:
    first = listeners[0].items
    assert all(isinstance(item, Entry) for item in first), [item for item in first if isinstance(item, Missed)]
    assert [item.seq for item in first if isinstance(item, Entry)] == list(range(1, len(first) + 1))
    assert {item.text: item.seq for item in first if isinstance(item, Entry)} == acknowledged
    assert len(first) == len(acknowledged)
    for listener in listeners[1:]:
        assert listener.items == first
    for number in range(CLIENTS):  # each person's own order, too
        mine = [int(item.text.split()[1]) for item in first if item.sender == f"p{number}"]
        assert mine == sorted(mine)


def test_ten_clients_cuts_and_a_killed_node(tmp_path: Path, address: str) -> None:
    asyncio.run(_chaos(tmp_path, address, 1, count=20, kills=1))


@pytest.mark.soak
@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", range(2, 32))
def test_ten_clients_with_many_seeds(tmp_path: Path, address: str, seed: int) -> None:
    asyncio.run(_chaos(tmp_path, address, seed, count=60, kills=3))


# --- restarts and restores ---


async def _restarted(folder: Path, address: str) -> Node:
    node = Node(NodeConfig(str(folder), listen=address))
    await node.start()
    return node


def test_offline_twice_in_a_row_is_no_repeat(tmp_path: Path, address: str) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", listen=address) as node:
            home = await joined(node, tmp_path / "ann")
            line = towline.connect("home", home=home)
            await line.room("lobby").say("one")
            listener = Listener(line.room("lobby"), 0)
            await listener.until(lambda: listener.texts == ["one"])
        for _ in range(2):
            node = await _restarted(tmp_path / "data", address)
            opened = listener.opened
            await listener.until(lambda opened=opened: listener.opened > opened)
            await node.stop(drain=0)
        node = await _restarted(tmp_path / "data", address)
        await line.room("lobby").say("two")
        await listener.until(lambda: "two" in listener.texts)
        assert listener.texts == ["one", "two"]
        await listener.stop()
        await line.close()
        await node.stop(drain=0)

    run(work())


@pytest.mark.parametrize("what", ["the folder", "the rooms alone"])
def test_an_older_copy_is_one_new_epoch_and_one_gap(tmp_path: Path, address: str, what: str) -> None:
    async def work() -> None:
        data, copy = tmp_path / "data", tmp_path / "copy"
        async with serving(data, listen=address) as node:
            home = await joined(node, tmp_path / "ann")
            line = towline.connect("home", home=home)
            for text in ("one", "two", "three"):
                await line.room("lobby").say(text)
        shutil.copytree(data, copy, symlinks=True)
        node = await _restarted(data, address)
        listener = Listener(line.room("lobby"), 0)
        for text in ("lost four", "lost five"):
            await line.room("lobby").say(text)
        await listener.until(lambda: len(listener.items) == 5)
        await node.stop(drain=0)
        if what == "the folder":
            shutil.rmtree(data)
            shutil.copytree(copy, data, symlinks=True)
        else:
            shutil.rmtree(data / "rooms")
            shutil.copytree(copy / "rooms", data / "rooms")
        for _ in range(2):  # the second start begins no further epoch
            node = await _restarted(data, address)
            opened = listener.opened
            await listener.until(lambda opened=opened: listener.opened > opened)
            await node.stop(drain=0)
        node = await _restarted(data, address)
        await line.room("lobby").say("new")
        await listener.until(lambda: "new" in listener.texts)
        epochs = {item.epoch for item in listener.items if isinstance(item, Entry)}
        assert len(epochs) == 2
        gaps = [item for item in listener.items if isinstance(item, Missed)]
        assert [gap.reason for gap in gaps] == ["restored"]
        assert [t for t in listener.texts if t != gaps[0].text] == [
            "one", "two", "three", "lost four", "lost five", "new",
        ]  # fmt: skip
        assert (await texts_of(line, "lobby"))[-1] == "new"
        await listener.stop()
        await line.close()
        await node.stop(drain=0)

    run(work())


def _copy_in_place(copy: Path, data: Path) -> None:
    """As `cp -r` does it: the same files with older contents."""
    kept = {source.relative_to(copy) for source in copy.rglob("*")}
    for found in sorted(data.rglob("*"), reverse=True):
        if found.relative_to(data) not in kept and not found.is_dir():
            found.unlink()
    for source in copy.rglob("*"):
        if source.is_file():
            (data / source.relative_to(copy)).write_bytes(source.read_bytes())


def test_an_older_copy_put_in_place_is_one_new_epoch_and_one_gap_for_everybody(tmp_path: Path, address: str) -> None:
    """The node cannot know. The first reader who has seen more tells it."""

    async def work(stack: AsyncExitStack) -> None:
        data, copy = tmp_path / "data", tmp_path / "copy"
        async with serving(data, listen=address) as node:
            home = await joined(node, tmp_path / "ann")
            other = await joined(node, tmp_path / "bob", "bob")
            line = await stack.enter_async_context(towline.connect("home", home=home))
            bobs = await stack.enter_async_context(towline.connect("home", home=other))
            await line.room("lobby").say("one")
        shutil.copytree(data, copy, symlinks=True)
        async with serving(data, listen=address):
            ahead, there, behind = [
                await stack.enter_async_context(listening(each.room("lobby"), 0)) for each in (line, line, bobs)
            ]
            await behind.until(lambda: len(behind.items) == 1)
            await behind.stop()
            await line.room("lobby").say("lost two")
            await line.room("lobby").say("lost three")
            for listener in (ahead, there):
                await listener.until(lambda each=listener: len(each.items) == 3)
        _copy_in_place(copy, data)
        for _ in range(2):  # the second start begins no further epoch
            async with serving(data, listen=address):
                for listener in (ahead, there):
                    await listener.until(lambda each=listener: any(isinstance(item, Missed) for item in each.items))
        async with serving(data, listen=address):
            late = await stack.enter_async_context(listening(bobs.room("lobby"), behind.items[0].next))
            await line.room("lobby").say("new")
            for listener in (ahead, there, late):
                await listener.until(lambda each=listener: "new" in each.texts)
            assert _told(ahead.items) == _told(there.items) == ["one", "lost two", "lost three", "restored", "new"]
            assert _told(late.items) == ["restored", "new"]
            history = [item async for item in line.room("lobby").history()]
            assert _told(history) == ["one", "restored", "new"]

    run(_cleanly(work))


def test_who_saw_another_message_under_a_number_is_not_given_the_next_one_as_if_nothing_were(
    tmp_path: Path, address: str
) -> None:
    """The copy has grown past the reader's position meanwhile: the number is there, the message is another one."""

    async def work(stack: AsyncExitStack) -> None:
        data, copy = tmp_path / "data", tmp_path / "copy"
        async with serving(data, listen=address) as node:
            home = await joined(node, tmp_path / "ann")
            other = await joined(node, tmp_path / "bob", "bob")
            await _say(home, "one")
        shutil.copytree(data, copy, symlinks=True)
        line = towline.connect("home", home=home)
        async with serving(data, listen=address):
            await stack.enter_async_context(line)
            reader = await stack.enter_async_context(listening(line.room("lobby"), 0))
            await line.room("lobby").say("lost two")
            await reader.until(lambda: len(reader.items) == 2)
        _copy_in_place(copy, data)
        async with serving(data) as node:  # where the reader does not find it yet
            for text in ("other two", "three"):
                await _say(other, text, str(node.listening.address))
        async with serving(data, listen=address):
            await reader.until(lambda: isinstance(reader.items[-1], Missed))
            await line.room("lobby").say("four")
            await reader.until(lambda: "four" in reader.texts)
            assert _told(reader.items) == ["one", "lost two", "three", "restored", "four"]

    run(_cleanly(work))


async def _cleanly(work: Callable[[AsyncExitStack], Awaitable[None]]) -> None:
    async with AsyncExitStack() as stack:
        await work(stack)


def _told(items: Sequence[Item]) -> list[str]:
    return [item.text if isinstance(item, Entry) else item.reason for item in items]


async def _say(home: str, text: str, address: str = "") -> None:
    line = towline.connect("home", home=home)
    if address:
        force_setattr(line.target, "addresses", (address,))
    async with line:
        await line.room("lobby").say(text)


def test_tales_of_the_future_move_a_room_once(tmp_path: Path) -> None:
    """Whoever may read can claim to have seen anything; that is worth one gap and no more."""

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby"), 0) as seen:
                room = line.room("lobby")
                await room.say("one")
                for tale in range(3):
                    now = await room.describe()
                    cursor = Cursor(int(now["epoch"]), (1 << 61) + tale)
                    if tale:
                        with pytest.raises(CursorFromFuture):
                            await anext(aiter(room.follow(cursor)))
                    else:
                        gap = await anext(aiter(room.follow(cursor)))
                        assert isinstance(gap, Missed)
                assert await room.say("two") < 2_000_000
                await seen.until(lambda: "two" in seen.texts)
                assert [isinstance(item, Missed) for item in seen.items] == [False, True, False]

    run(work())


# --- the outbox ---


def _rows(home: Path, word: str = "") -> int:
    """How many messages wait there, of those with that in their text."""
    if not (home / OUTBOX_FILE).exists():
        return 0
    with sqlite3.connect(home / OUTBOX_FILE) as db:
        try:
            return int(
                db.execute("SELECT count(*) FROM outbox WHERE instr(CAST(body AS TEXT), ?)", (word,)).fetchone()[0]
            )
        except sqlite3.OperationalError:
            return 0
        finally:
            db.commit()


def test_a_client_that_is_killed_sends_at_the_next_start_once(tmp_path: Path, address: str) -> None:
    home = tmp_path / "ann"
    node = NodeProcess(tmp_path, listen=address)
    try:
        node.join(home)
        node.process.kill()
        node.end()
        done = tow("say", "home", "lobby", "while it was down", "--give-up", "0.2s", home=home, expect=6)
        assert "outbox" in done.stderr
        assert _rows(home) == 1
        node = NodeProcess(tmp_path, listen=address)
        assert tow("say", "home", "lobby", "and up again", home=home).stdout == "2\n"
        assert tow("say", "home", "lobby", "third", home=home).stdout == "3\n"
        assert _rows(home) == 0
        log = events(tow("log", "home", "lobby", "--json", home=home).stdout)
        assert [each["text"] for each in log] == ["while it was down", "and up again", "third"]
    finally:
        node.end()


def test_who_speaks_next_hears_of_what_waited_and_is_refused(tmp_path: Path, address: str) -> None:
    home = tmp_path / "ann"
    node = NodeProcess(tmp_path, listen=address)
    try:
        node.join(home)
        node.process.kill()
        node.end()
        tow("say", "home", "nowhere", "in vain", "--give-up", "0.2s", home=home, expect=6)
        node = NodeProcess(tmp_path, listen=address)
        done = tow("say", "home", "lobby", "next", home=home)
        assert done.stdout == "1\n"
        assert "nowhere" in done.stderr
        assert "in vain" in done.stderr, "it is not in the outbox any more: who wants to say it elsewhere has it here"
        assert _rows(home) == 0
    finally:
        node.end()


@pytest.mark.parametrize("reached_the_node", [True, False], ids=["in flight", "pending"])
def test_a_client_killed_by_a_signal_sends_at_the_next_start_once(
    tmp_path: Path, address: str, reached_the_node: bool
) -> None:
    home = tmp_path / "ann"
    node = NodeProcess(tmp_path, listen=address)
    command = [*TOW, "chat", "home", "lobby", "--since", "0"]
    try:
        node.join(home)
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(home), bufsize=0
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(b"first\n")
            assert b"first" in client.stdout.readline()
            if reached_the_node:
                node.process.send_signal(signal.SIGSTOP)  # it has the message in its socket, and answers nothing
            else:
                node.process.kill()
                node.end()
            client.stdin.write(b"killed here\n")
            asyncio.run(until(lambda: _rows(home, "killed here") == 1, "it is in the outbox"))
            client.kill()
            client.wait()
        if reached_the_node:
            node.process.send_signal(signal.SIGCONT)
        else:
            node = NodeProcess(tmp_path, listen=address)
        assert tow("say", "home", "lobby", "next", home=home).stdout == "3\n"
        log = events(tow("log", "home", "lobby", "--json", home=home).stdout)
        assert [(each["seq"], each["text"]) for each in log] == [(1, "first"), (2, "killed here"), (3, "next")]
    finally:
        node.end()


def test_what_was_acknowledged_and_is_sent_again_is_there_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                assert await line.room("lobby").say("once", id="x") == 1
                key = line.target.fingerprint
            outbox = Outbox(home, key)  # killed after the acknowledgement, before the row was gone
            outbox.add([Unsent("x", "lobby", said([Post("lobby", "x", text="once")]))])
            outbox.close()
            async with towline.connect("home", home=home) as line:
                assert await line.room("lobby").say("next") == 2
                await line.mailing.wait_sent()
                assert await texts_of(line, "lobby") == ["once", "next"]
            outbox = Outbox(home, key)
            assert outbox.pending() == []
            outbox.close()

    run(work())


def test_another_message_with_an_id_that_waits_is_refused_and_the_first_is_said(tmp_path: Path, address: str) -> None:
    home = tmp_path / "ann"
    down = ("--id", "x", "--give-up", "0.2s")
    node = NodeProcess(tmp_path, listen=address)
    try:
        node.join(home)
        node.process.kill()
        node.end()
        tow("say", "home", "lobby", "first", *down, home=home, expect=6)
        for room, text in (("lobby", "second"), ("@ann", "first")):
            refused = tow("say", "home", room, text, *down, home=home, expect=5)
            assert "id" in refused.stderr
            assert "outbox" not in refused.stderr, "it is not there"
        tow("say", "home", "lobby", "first", *down, home=home, expect=6)
        node = NodeProcess(tmp_path, listen=address)
        assert tow("say", "home", "lobby", "next", home=home).stdout == "2\n"
        assert tow("log", "home", "lobby", home=home).stdout.count("first") == 1
        assert _rows(home) == 0
    finally:
        node.end()


@pytest.mark.parametrize("outbox", [True, False])
def test_an_id_that_waits_is_refused_to_other_words_alone(tmp_path: Path, outbox: bool) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home, outbox=outbox) as line:
                room = line.room("lobby")
                first = room.post("first", id="x")
                second = asyncio.ensure_future(room.say_all(["one", "other words"], ids=["y", "x"]))
                assert (await first).seq == 1
                outcomes = await finished(second)
                assert outcomes[0] == 2
                assert isinstance(outcomes[1], IdReused)
                await line.mailing.wait_sent()
                assert await texts_of(line, "lobby") == ["first", "one"]
            assert _rows(Path(home)) == 0

    run(work())


def test_a_disk_that_does_not_let_go_of_a_message_does_not_hold_up_the_next(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line:
                room = line.room("lobby")
                assert await room.say("one") == 1
                await until(lambda: not _rows(Path(home)))
                with sqlite3.connect(Path(home) / OUTBOX_FILE, isolation_level=None) as db:
                    db.execute("CREATE TRIGGER keep BEFORE DELETE ON outbox BEGIN SELECT RAISE(ABORT, 'no'); END")
                    assert await room.say("two") == 2
                    assert await finished(room.say("three")) == 3
                    await finished(line.mailing.wait_sent())
                    assert _rows(Path(home)) == 2
                    db.execute("DROP TRIGGER keep")
                db.close()
            async with towline.connect("home", home=home) as line:
                assert await line.room("lobby").say("four") == 4
                await line.mailing.wait_sent()
                assert await texts_of(line, "lobby") == ["one", "two", "three", "four"]
            assert _rows(Path(home)) == 0

    run(work())


def test_a_cut_before_every_acknowledgement_still_says_it_once(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby")) as seen:
                for number in range(10):
                    future = line.room("lobby").post(str(number))
                    await until(lambda number=number, future=future: len(seen.items) > number or future.done())
                    for connection in list(line._connections):
                        connection.abort()
                    assert (await future).seq == number + 1
                await seen.until(lambda: len(seen.items) == 10)
                assert seen.texts == [str(number) for number in range(10)]

    run(work())


@pytest.mark.parametrize("outbox", [True, False])
def test_what_was_said_together_is_there_once_though_the_line_breaks(tmp_path: Path, outbox: bool) -> None:
    async def work() -> None:
        async with serving(tmp_path / "data", room_rate=1e6, room_burst=1e6) as node:
            home = await joined(node, tmp_path / "ann")
            async with (
                towline.connect("home", home=home, outbox=outbox) as line,
                listening(line.room("lobby")) as seen,
            ):
                said = 0
                for number in range(10):
                    texts = [f"{number} {each}" for each in range(50)]
                    batch = asyncio.ensure_future(line.room("lobby").say_all(texts))
                    await until(lambda said=said, batch=batch: len(seen.items) > said or batch.done())
                    for connection in list(line._connections):
                        connection.abort()
                    assert await batch == list(range(said + 1, said + 51))
                    said += 50
                await seen.until(lambda: len(seen.items) == 500)
                assert seen.texts == [f"{number} {each}" for number in range(10) for each in range(50)]

    run(work())


def test_a_node_with_followers_drains_at_once(tmp_path: Path, address: str) -> None:
    async def work() -> None:
        node = await _restarted(tmp_path / "data", address)
        home = await joined(node, tmp_path / "ann")
        line = towline.connect("home", home=home)
        async with line, listening(line.room("lobby")) as seen:
            await line.room("lobby").say("one")
            await finished(node.stop(drain=1000))
            waiting = line.room("lobby").post("two")
            node = await _restarted(tmp_path / "data", address)
            assert (await waiting).seq == 2
            await seen.until(lambda: seen.texts == ["one", "two"])
            await finished(node.stop(drain=1000))

    run(work())
