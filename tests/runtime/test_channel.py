"""Streams as services and clients see them: whole messages, back-pressure, half-close, errors by number."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from tests import kit
from tests.runtime.house import face_to_face

from towline.base.errors import (
    BadMessage,
    ConnectionLost,
    LimitExceeded,
    NoGrant,
    StreamClosed,
    TooFast,
    TowlineError,
)
from towline.base.limits import MESSAGE, STREAM_WINDOW
from towline.protocol.table import Class
from towline.runtime.channel import Channel, Message


async def _echo(channel: Channel) -> None:
    channel.accept({"hello": channel.person})
    while (message := await channel.receive()) is not None:
        await channel.send(message.body, message.header)
    channel.end({"last": True})


@pytest.mark.parametrize("size", [0, 1, 1024, 1025, STREAM_WINDOW.value - 1, STREAM_WINDOW.value + 1, MESSAGE.value])
def test_a_message_of_any_size_comes_back_whole(size: int) -> None:
    body = random.Random(size).randbytes(size)

    async def talk() -> None:
        async with face_to_face(_echo) as (client, _):
            channel = client.open({"service": "echo"})
            assert await channel.accepted() == {"hello": "ann"}
            assert await channel.accepted() == {"hello": "ann"}, "asked again, answered again"
            await channel.send(body, {"size": size})
            assert await channel.receive() == Message(body, {"size": size})
            channel.end()
            assert await channel.receive() is None
            assert await channel.receive() is None
            assert channel.trailer == {"last": True}
            assert channel.closed

    kit.run(talk())


def test_many_messages_keep_their_order_and_boundaries() -> None:
    rng = random.Random(5)
    sent = [rng.randbytes(rng.choice((0, 1, 50, 3000, 70_000))) for _ in range(300)]

    async def talk() -> None:
        async with face_to_face(_echo) as (client, _):
            channel = client.open({"service": "echo"}, Class.BULK)

            async def write() -> None:
                for body in sent:
                    await channel.send(body)
                channel.end()

            writing = asyncio.ensure_future(write())
            assert [body async for body in channel] == sent
            await writing

    kit.run(talk())


def test_streams_do_not_mix() -> None:
    async def talk() -> None:
        async with face_to_face(_echo) as (client, _):

            async def one(number: int) -> None:
                channel = client.open({"service": "echo"}, Class(1 + number % 3))
                for turn in range(20):
                    await channel.send(b"%d/%d" % (number, turn) * (1 + number * 100))
                channel.end()
                got = [message.body async for message in channel.messages()]
                assert got == [b"%d/%d" % (number, turn) * (1 + number * 100) for turn in range(20)]

            await asyncio.gather(*(one(number) for number in range(30)))

    kit.run(talk())


def test_each_side_ends_by_itself() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            channel.end({"ours": 1})
            channel.end({"again": 1})
            there = await node.stream()
            assert await there.receive() is None
            assert there.trailer == {"ours": 1}
            assert there.ended
            assert not there.closed
            there.accept()
            await there.send(b"still")
            there.end({"theirs": 2})
            assert await channel.receive() == Message(b"still", None)
            assert await channel.receive() is None
            assert channel.trailer == {"theirs": 2}
            with pytest.raises(StreamClosed):
                channel.send_nowait(b"too late")

    kit.run(talk())


@pytest.mark.parametrize(
    "error",
    [NoGrant("You may not do that here."), TooFast(retry_after=2.5), BadMessage(), StreamClosed("enough")],
)
def test_an_error_crosses_the_wire_by_its_number(error: TowlineError) -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            there.reset(error)
            there.reset(BadMessage("a second reason is not heard"))
            for wait in (channel.receive, channel.accepted, channel.flush):
                with pytest.raises(type(error)) as caught:
                    await wait()
                assert caught.value.sentence == error.sentence
                assert caught.value.retryable == error.retryable
                assert caught.value.retry_after == error.retry_after
            with pytest.raises(type(error)):
                await channel.send(b"x")
            channel.end()
            assert channel.ended
            assert channel.closed

    kit.run(talk())


def test_what_came_before_a_reset_or_a_loss_can_still_be_read() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            one, two = client.open({"service": "x"}), client.open({"service": "y"})
            for number in range(2):
                there = await node.stream(number)
                await there.send(b"before")
                await there.flush()
            await kit.until(lambda: "unread=1" in repr(one) and "unread=1" in repr(two), "both messages")
            node.channels[0].reset(NoGrant())
            await kit.until(lambda: one.ended, "the reset")
            assert await one.receive() == Message(b"before", None)
            with pytest.raises(NoGrant):
                await one.receive()
            node.connection.abort()
            await kit.until(lambda: two.ended, "the loss")
            assert two.receive_nowait() == Message(b"before", None)
            assert two.receive_nowait() is None
            with pytest.raises(ConnectionLost):
                await two.receive()

    kit.run(talk())


def test_a_finished_answer_is_read_to_its_end_though_the_stream_is_reset_behind_it() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            await there.send(b"the answer")
            there.end({"status": 0})
            await there.flush()
            there.reset(StreamClosed("Nobody reads your side any more."))
            await kit.until(lambda: channel.closed, "the reset")
            assert await channel.receive() == Message(b"the answer", None)
            assert await channel.receive() is None
            assert channel.trailer == {"status": 0}

    kit.run(talk())


def test_a_cancelled_receive_loses_nothing() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            for number in range(200):
                reading = asyncio.ensure_future(channel.receive())
                await asyncio.sleep(0)
                await there.send(b"%d" % number)
                for _ in range(number % 7):  # cancel it at every stage of the way
                    await asyncio.sleep(0)
                reading.cancel()
                try:
                    message = await reading
                except asyncio.CancelledError:
                    message = await channel.receive()
                assert message == Message(b"%d" % number, None)

    kit.run(talk(), "asyncio")


def test_a_cancelled_waiter_takes_nobody_along() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            watching = asyncio.ensure_future(channel.wait_ended())
            reading = asyncio.ensure_future(channel.receive())
            await asyncio.sleep(0)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await there.send(b"hello")
            assert await reading == Message(b"hello", None)
            watching = asyncio.ensure_future(channel.wait_ended())
            await asyncio.sleep(0)
            assert not watching.done()
            there.end()
            await watching

    kit.run(talk())


def test_a_writer_waits_for_a_reader_and_wakes_up() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"}, Class.BULK)
            there = await node.stream()
            sent = 0

            async def write() -> None:
                nonlocal sent
                for _ in range(200):
                    await channel.send(bytes(50_000))
                    sent += 1
                channel.end()

            writing = asyncio.ensure_future(write())
            await kit.until(lambda: channel.stream.queued > 200_000, "a full queue")
            for _ in range(50):
                await asyncio.sleep(0)
            stopped = sent
            assert stopped < 30, "a stopped reader stops the writer"
            assert channel.stream.queued < 400_000
            for _ in range(stopped):
                assert await there.receive() is not None
            await kit.until(lambda: sent > stopped, "more")
            total = stopped
            while await there.receive() is not None:
                total += 1
            assert total == 200
            await writing

    kit.run(talk())


@pytest.mark.parametrize("end", ["reset", "loss", "local"])
def test_a_waiting_writer_hears_the_end(end: str) -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()

            async def write() -> None:
                while True:
                    await channel.send(bytes(100_000))

            async def flush() -> None:
                channel.send_nowait(bytes(1_000_000))
                await channel.flush()

            waits: list[Callable[[], Awaitable[None]]] = [write, flush]
            waiting = [asyncio.ensure_future(wait()) for wait in waits]
            await kit.until(lambda: channel.stream.queued > 500_000, "a full queue")
            match end:
                case "reset":
                    there.reset(NoGrant())
                case "loss":
                    node.connection.abort()
                case _:
                    channel.reset()
            kind = {"reset": NoGrant, "loss": ConnectionLost, "local": StreamClosed}[end]
            for each in waiting:
                with pytest.raises(kind):
                    await each

    kit.run(talk())


def test_a_stopped_reader_holds_little_even_of_messages_in_tiny_parts() -> None:
    """A part returns its credit at once so that a message may exceed the window; whole unread ones must not pile up.

    The peer is hostile: it sends messages of 200,000 bytes whose last part is one byte, so that the last part costs
    next to nothing.
    """

    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"}, Class.BULK)
            there = await node.stream()
            for _ in range(100):
                channel.send_nowait(bytes(200_000))
            await kit.until(lambda: "unread=0" not in repr(there), "something")
            for _ in range(300):
                await asyncio.sleep(0)
            unread = 0
            while there.receive_nowait() is not None:
                unread += 1
            assert unread <= 3, f"{unread} messages of 200,000 bytes lay in a window of {STREAM_WINDOW.value}"
            total = unread
            while total < 100:
                message = await there.receive()
                assert message is not None
                assert len(message.body) == 200_000
                total += 1

    kit.run(talk())


def test_too_large_a_message_is_refused_here_by_name() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, _):
            channel = client.open({"service": "x"})
            with pytest.raises(LimitExceeded, match=f"Limit message is {MESSAGE.value} bytes"):
                await channel.send(bytes(MESSAGE.value + 1))
            await channel.send(b"and life goes on")

    kit.run(talk())


def test_a_service_that_ends_without_taking_the_stream() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            (await node.stream()).end()
            with pytest.raises(StreamClosed, match="without taking it"):
                await channel.accepted()

    kit.run(talk())


def test_a_task_that_looks_elsewhere_is_cancelled_after_its_stream_is_gone() -> None:
    async def talk(end: str) -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            async def handle() -> None:
                await never

            task = asyncio.ensure_future(handle())
            there.cancel_when_lost(task, 0.01)
            assert not task.done()
            if end == "reset":
                channel.reset()
            else:
                client.abort()
            with pytest.raises(asyncio.CancelledError):
                await task

    kit.run(talk("reset"))
    kit.run(talk("loss"))


def test_a_task_that_is_done_with_its_stream_is_left_alone() -> None:
    async def talk() -> None:
        async with face_to_face() as (client, node):
            channel = client.open({"service": "x"})
            there = await node.stream()
            go_on: asyncio.Future[str] = asyncio.get_running_loop().create_future()

            async def handle() -> str:
                return await go_on

            task = asyncio.ensure_future(handle())
            there.cancel_when_lost(task, 0.0)
            there.connection.release(there)
            channel.reset()
            client.abort()
            await kit.until(lambda: node.closed, "closed")
            for _ in range(5):
                await asyncio.sleep(0)
            go_on.set_result("whole")
            assert await task == "whole"

    kit.run(talk())
