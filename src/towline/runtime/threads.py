"""Blocking work beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `function` on a thread of its own and wait for it.

    For work that may take as long as a transfer: the loop's shared pool is for short calls, and a few long ones would
    fill it. Cancelling the wait does not stop the thread; whoever cancels must end what it works on.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where T is None

    def work() -> None:
        result: T | None = None
        problem: BaseException | None = None
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # handed to whoever waits
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name=f"towline-{getattr(function, '__name__', 'work')}", daemon=True).start()
    return await done


async def to_the_end(
    function: Callable[[], T],
    *,
    stop: Callable[[], object] = lambda: None,
    undo: Callable[[T], object] = lambda _: None,
) -> T:
    """Run `function` on a thread and wait for its end even when cancelled; the cancellation goes on afterwards.

    For what works on something that is closed behind it, or opens something. When cancelled, `stop` is to bring the
    end nearer, and `undo` gets the result that nobody takes.
    """
    work = asyncio.ensure_future(in_thread(function))
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
            stop()
    if cancelled is None:
        return work.result()
    if work.exception() is None:
        undo(work.result())
    raise cancelled
