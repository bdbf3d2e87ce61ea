"""An event loop on a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Generic, TypeVar

from towline.base.errors import ConnectionLost
from towline.runtime.loops import new_event_loop

T = TypeVar("T")


class Background:
    """The event loop on a thread, there as long as anybody holds it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def hold(self) -> None:
        with self._lock:
            self._holders += 1
            if self._loop is None:
                self._loop = new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="towline-sync", daemon=True)
                self._thread.start()

    def let_go(self) -> None:
        with self._lock:
            self._holders -= 1
            if self._holders or self._loop is None or self._thread is None:
                return
            loop, thread = self._loop, self._thread
            self._loop = None
            asyncio.run_coroutine_threadsafe(_tidy_up(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            self._thread = None
            loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` on the loop and wait for it; an interrupt (Ctrl-C) here cancels it there."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a callback on the loop's thread cannot wait for the loop")
        call, loop = _Call(work), None
        try:
            # Under the lock, so that it comes before `let_go` ends what there is: nobody waits in vain.
            with self._lock:
                loop = self._loop
                if loop is None:
                    raise ConnectionLost("The line was closed.")
                loop.call_soon_threadsafe(call.start, loop)
            call.over.acquire()
        except BaseException:
            if loop is None:
                call.cancel()
            else:
                with contextlib.suppress(RuntimeError):  # the loop has ended, and the call with it
                    loop.call_soon_threadsafe(call.cancel)
            raise
        return call.outcome()


class _Call(Generic[T]):
    """A coroutine that runs on the loop's thread while another thread waits to acquire `over`.

    As `asyncio.run_coroutine_threadsafe`, but without its two futures, its condition and its second turn of the loop.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self.over = threading.Lock()
        self.over.acquire()
        self._task: asyncio.Task[None] | None = None
        self._result: T | None = None
        self._error: BaseException | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._run())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._work.close()  # interrupted before `start` was on its way

    def outcome(self) -> T:
        """Its result, once it is over. Raises what it raised, and concurrent.futures.CancelledError if it was
        cancelled (another thread closed the last line)."""
        if isinstance(self._error, asyncio.CancelledError):
            raise concurrent.futures.CancelledError from None
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # None only where T is None

    async def _run(self) -> None:
        try:
            self._result = await self._work
        except asyncio.CancelledError as error:
            self._error = error
            raise
        except BaseException as error:  # noqa: BLE001  # handed to whoever waits
            self._error = error
        finally:
            self.over.release()


async def _tidy_up() -> None:
    """What asyncio.Runner does at its end."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
