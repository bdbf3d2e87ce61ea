"""The client for programs without an event loop: the same verbs, and each call returns when it is done.

    with towline.sync.connect("home") as line:
        line.put("model.bin", "files/model.bin")
        for entry in line.list("files"): ...

This is a façade: one event loop runs on a thread of its own while any line is open, and every verb is the
asynchronous one, driven there. Lines may be used from several threads. Callbacks (`on_event`) are called on the
loop's thread: they should be quick, and must not call a line.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from towline.base.errors import ConnectionLost
from towline.client.background import Background
from towline.client.connect import connect as _connect
from towline.client.jobs import Job as _AsyncJob
from towline.client.joining import join as _join
from towline.client.line import Line as _AsyncLine
from towline.client.line import LineEvent
from towline.client.output import Ended
from towline.client.reach import Target
from towline.client.rooms import Room as _AsyncRoom
from towline.protocol.codec import Header
from towline.protocol.records import Welcome
from towline.runtime.channel import Channel as _AsyncChannel
from towline.trust.pins import Node

__all__ = ["Channel", "Job", "Line", "Room", "connect", "join"]

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Original = TypeVar("_Original")
_END: Any = object()


_background = Background()


class _Mirror(Generic[_Original]):
    """A blocking face of an asynchronous object."""

    def __init__(self, original: _Original) -> None:
        self._original = original

    def __repr__(self) -> str:
        return f"<blocking {self._original!r}>"

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return _background.run(work)


def _verb(
    method: Callable[Concatenate[Any, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[Any, _P], _T]:
    """The blocking twin of an asynchronous method, its signature and docstring with it."""

    @functools.wraps(method)
    def call(self: _Mirror[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._run(method(self._original, *args, **kwargs))

    return call


def _steps(
    method: Callable[Concatenate[Any, _P], AsyncIterator[_T]],
) -> Callable[Concatenate[Any, _P], Iterator[_T]]:
    """An asynchronous iterator as a plain one."""

    @functools.wraps(method)
    def call(self: _Mirror[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        iterator: Any = method(self._original, *args, **kwargs)

        async def step() -> Any:
            return await anext(iterator, _END)

        async def close() -> None:
            await iterator.aclose()

        try:
            while (item := self._run(step())) is not _END:
                yield item
        finally:
            self._run(close())

    return call


def _act(method: Callable[Concatenate[Any, _P], _T]) -> Callable[Concatenate[Any, _P], _T]:
    """A method that does not wait, but must be called on the loop's thread."""

    @functools.wraps(method)
    def call(self: _Mirror[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        async def act() -> _T:
            return method(self._original, *args, **kwargs)

        return self._run(act())

    return call


def _giving(
    method: Callable[Concatenate[Any, _P], Any], face: Callable[[Any], _T]
) -> Callable[Concatenate[Any, _P], _T]:
    """The twin of a method, waiting or not, that gives an asynchronous object: gives its blocking face."""

    @functools.wraps(method)
    def call(self: _Mirror[Any], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        async def act() -> Any:
            result = method(self._original, *args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return face(self._run(act()))

    return call


class Channel(_Mirror[_AsyncChannel]):
    """One stream of messages; see `towline.Channel`."""

    accepted = _verb(_AsyncChannel.accepted)
    send = _verb(_AsyncChannel.send)
    flush = _verb(_AsyncChannel.flush)
    receive = _verb(_AsyncChannel.receive)
    wait_ended = _verb(_AsyncChannel.wait_ended)
    messages = _steps(_AsyncChannel.messages)
    __iter__ = _steps(_AsyncChannel.__aiter__)
    end = _act(_AsyncChannel.end)
    reset = _act(_AsyncChannel.reset)
    send_nowait = _act(_AsyncChannel.send_nowait)
    receive_nowait = _act(_AsyncChannel.receive_nowait)

    @property
    def trailer(self) -> Header | None:
        """What the peer ended its side with."""
        return self._original.trailer

    @property
    def ended(self) -> bool:
        """Nothing more will come; what is unread can still be read."""
        return self._original.ended

    @property
    def closed(self) -> bool:
        """Both directions are over."""
        return self._original.closed


class Room(_Mirror[_AsyncRoom]):
    """A chat room; see `towline.client.rooms.Room`."""

    say = _verb(_AsyncRoom.say)
    say_all = _verb(_AsyncRoom.say_all)
    me = _verb(_AsyncRoom.me)
    edit = _verb(_AsyncRoom.edit)
    delete = _verb(_AsyncRoom.delete)
    follow = _steps(_AsyncRoom.follow)
    history = _steps(_AsyncRoom.history)
    typing = _act(_AsyncRoom.typing)
    away = _act(_AsyncRoom.away)
    mark_read = _act(_AsyncRoom.mark_read)
    describe = _verb(_AsyncRoom.describe)
    join = _verb(_AsyncRoom.join)
    who = _verb(_AsyncRoom.who)
    receipts = _verb(_AsyncRoom.receipts)
    topic = _verb(_AsyncRoom.topic)
    openness = _verb(_AsyncRoom.openness)
    keep = _verb(_AsyncRoom.keep)
    invite = _verb(_AsyncRoom.invite)
    mute = _verb(_AsyncRoom.mute)
    remove = _verb(_AsyncRoom.remove)

    @property
    def name(self) -> str:
        """The room's name."""
        return self._original.name


class Job(_Mirror[_AsyncJob]):
    """A command on a node; see `towline.client.jobs.Job`."""

    output = _steps(_AsyncJob.output)
    wait = _verb(_AsyncJob.wait)
    write = _verb(_AsyncJob.write)
    write_eof = _verb(_AsyncJob.write_eof)
    resize = _act(_AsyncJob.resize)
    signal = _verb(_AsyncJob.signal)
    forget = _verb(_AsyncJob.forget)
    close = _verb(_AsyncJob.close)

    @property
    def id(self) -> str:
        """What the node calls it."""
        return self._original.id

    @property
    def state(self) -> str:
        """As the node said last."""
        return self._original.state

    @property
    def ended(self) -> Ended | None:
        """How it ended, once the node has said so."""
        return self._original.ended


class Line(_Mirror[_AsyncLine]):
    """A node, reached through whatever connection is up; see `towline.Line`. A context manager."""

    def __init__(self, original: _AsyncLine) -> None:
        super().__init__(original)
        self._closed = False
        _background.hold()

    def __enter__(self) -> Self:
        try:
            self._run(self._original.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye and close; harmless when repeated."""
        if not self._closed:
            self._closed = True
            try:
                _background.run(self._original.close())
            finally:
                _background.let_go()

    shares = _verb(_AsyncLine.shares)
    list = _steps(_AsyncLine.list)
    stat = _verb(_AsyncLine.stat)
    mkdir = _verb(_AsyncLine.mkdir)
    move = _verb(_AsyncLine.move)
    remove = _verb(_AsyncLine.remove)
    put = _verb(_AsyncLine.put)
    put_stream = _verb(_AsyncLine.put_stream)
    get = _verb(_AsyncLine.get)
    get_stream = _verb(_AsyncLine.get_stream)
    rooms = _verb(_AsyncLine.rooms)
    who = _verb(_AsyncLine.who)
    room = _giving(_AsyncLine.room, Room)
    run = _verb(_AsyncLine.run)  # type: ignore[arg-type]  # its **options might hold a "self", mypy fears
    jobs = _verb(_AsyncLine.jobs)
    start = _giving(_AsyncLine.start, Job)
    job = _giving(_AsyncLine.job, Job)
    channel = _giving(_AsyncLine.channel, Channel)

    @property
    def target(self) -> Target:
        """Alias, addresses and pin."""
        return self._original.target

    @property
    def address(self) -> str:
        """Where the last connection went."""
        return self._original.address

    @property
    def welcome(self) -> Welcome | None:
        """Who the node says that we are."""
        return self._original.welcome

    @property
    def cuts(self) -> int:
        """How often the connection was lost and made anew."""
        return self._original.cuts

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if self._closed:
            work.close()
            raise ConnectionLost("The line was closed.")
        return super()._run(work)


def connect(
    alias: str,
    *,
    home: str | None = None,
    give_up: float | None = None,
    on_event: Callable[[LineEvent], None] | None = None,
    outbox: bool = True,
) -> Line:
    """`towline.connect`, blocking: a line to the node known as `alias`. Raises UnknownAlias, LaxPermissions."""
    return Line(_connect(alias, home=home, give_up=give_up, on_event=on_event, outbox=outbox))


def join(code: str, alias: str | None = None, *, home: str | None = None, give_up: float | None = None) -> Node:
    """`towline.join`, blocking: redeem an invite and remember the node."""
    _background.hold()
    try:
        return _background.run(_join(code, alias, home=home, give_up=give_up))
    finally:
        _background.let_go()
