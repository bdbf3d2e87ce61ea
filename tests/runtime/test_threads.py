"""Blocking work beside the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from towline.runtime.threads import in_thread, to_the_end


def test_a_result_and_an_error_come_back() -> None:
    async def run() -> None:
        assert await in_thread(lambda: 7) == 7
        with pytest.raises(KeyError):
            await in_thread({}.__getitem__, "x")

    asyncio.run(run())


def test_a_clean_up_is_finished_though_its_waiter_was_cancelled() -> None:
    began, go, done = threading.Event(), threading.Event(), threading.Event()

    def clean_up() -> None:
        began.set()
        assert go.wait(10)
        done.set()

    async def run() -> None:
        task = asyncio.ensure_future(to_the_end(clean_up))
        await asyncio.to_thread(began.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done.is_set()

    asyncio.run(run())
