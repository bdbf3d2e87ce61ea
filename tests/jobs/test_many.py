"""More jobs at once than a connection has streams."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from tests.jobs.kit import Made, Place
from tests.kit import run

from towline.base.limits import MIB, STREAMS
from towline.client.places import Pool

COUNT = STREAMS.value + 40


async def printed(place: Place, count: int, size: int) -> None:
    """Run so many at once on one line; each prints its own number again and again."""
    async with place.line() as line:

        async def one(number: int) -> None:
            text = f"{number:07}\n".encode()
            script = f"yes {number:07} | head -c {size}"
            result = await line.run(["sh", "-c", script])
            assert (result.status, result.truncated) == (0, False)
            wanted = hashlib.sha256(text * (size // len(text))).digest()
            assert hashlib.sha256(result.stdout).digest() == wanted

        await asyncio.gather(*(one(number) for number in range(count)))


def test_more_jobs_than_streams_wait_for_one(place: Place) -> None:
    run(printed(place, COUNT, 4096))


def test_what_was_started_can_be_read_in_any_order(place: Place) -> None:
    async def go() -> None:
        async with place.line() as line:
            jobs = [await line.start(["cat"], stdin=True) for _ in range(COUNT)]

            async def feed(number: int) -> None:
                await jobs[number].write(str(number).encode())
                await jobs[number].write_eof()

            await asyncio.gather(*(feed(number) for number in range(COUNT)))
            for number in reversed(range(COUNT)):
                data = [item.data async for item in jobs[number].output()]  # type: ignore[union-attr]
                assert b"".join(data) == str(number).encode()
                await jobs[number].close()

    run(go())


def test_places_are_handed_on_in_order() -> None:
    async def go() -> None:
        pool, order = Pool(2), []

        async def come(number: int) -> None:
            async with pool:
                order.append(number)
                await asyncio.sleep(0)

        await pool.take()
        await pool.take()
        assert not pool.take_nowait()
        coming = [asyncio.ensure_future(come(number)) for number in range(6)]
        await asyncio.sleep(0)
        coming[2].cancel()
        pool.leave()
        coming[0].cancel()  # it has been given the place, and has to hand it on
        pool.leave()
        await asyncio.wait(coming)
        assert order == [1, 3, 4, 5]
        assert pool.taken == 0

    run(go())


@pytest.mark.soak
def test_two_hundred_jobs_that_print_a_mebibyte_each(make_place: Made) -> None:
    place = make_place()
    run(printed(place, 200, MIB))
    status = Path(f"/proc/{place.node.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak < 200 * 1024, f"{peak} KiB"
