"""The rooms of a line: say, follow, look back, who is here."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from towline.base.errors import PeerError, TowlineError, UsageError
from towline.base.ids import encode
from towline.base.text import printable
from towline.client import rows
from towline.client.reach import Reach, ask
from towline.client.saying import measured, names, parcels, tell_all, tell_one, waiter
from towline.client.since import Since, position_of
from towline.journal import Cursor
from towline.protocol.codec import Header
from towline.runtime.channel import Channel
from towline.runtime.dialer import uniform
from towline.services.rooms.messages import Fields, Item, Missed, Post, Signal, parse_lines, said

# The outbox is a database, and loaded by those who say something.
if TYPE_CHECKING:
    from towline.client.mailing import Mailing
    from towline.client.outbox import Unsent
    from towline.client.parcel import Outcome, Told

log = logging.getLogger("towline.client")
_REPORT_SECONDS = 1.0  # between two reports of how far we are
_LOOKS = 4
_LONGEST_PAUSE = 5.0


def _silent(_: Signal) -> None:
    """Nobody listens."""


def _log_refused(message: Unsent, error: TowlineError) -> None:
    """Whoever said it is not here any more, or did not wait."""
    log.warning("What was said in %s is refused: %s", printable(message.room), error.sentence)


class RoomVerbs(Reach):
    """What a line can do with rooms. `on_refused` hears of what an earlier start left in the outbox and the node does
    not take."""

    outbox: bool
    _mailing: Mailing | None = None
    on_refused: Callable[[Unsent, TowlineError], None] = staticmethod(_log_refused)

    def room(self, name: str) -> Room:
        """A room; `@NAME` is the one of NAME and us. Nothing is sent yet."""
        return Room(self, name)

    async def rooms(self) -> list[Fields]:
        """The rooms that we may see: room, topic, private, here (people), last (seq), read (seq)."""
        return await ask_rooms(self, {"op": "rooms"}, list[rows.ListedRoom])  # type: ignore[no-any-return]

    async def who(self) -> list[Fields]:
        """Who is in any room: who, state (here, away), nick, since, rooms."""
        return await ask_rooms(self, {"op": "who"}, list[rows.Present])  # type: ignore[no-any-return]

    @property
    def mailing(self) -> Mailing:
        """What we have said and is not acknowledged yet; what an earlier process left in the outbox is sent, too."""
        if self._mailing is None:
            from towline.client.mailing import Mailing

            self._mailing = Mailing(self, self._refused, keep=self.outbox)
            self._mailing.start()
        return self._mailing

    def _refused(self, message: Unsent, error: TowlineError) -> None:
        self.on_refused(message, error)

    async def close_rooms(self) -> None:
        """The line is being closed; unsent messages stay in the outbox."""
        if self._mailing is not None:
            await self._mailing.close()


class Room:
    """One room. Errors are those of `towline.base.errors`: UnknownRoom, NoGrant, Muted, LimitExceeded, …"""

    def __init__(self, line: RoomVerbs, name: str) -> None:
        self._line = line
        self.name = name
        self.nick = ""
        self._following: Channel | None = None

    def __repr__(self) -> str:
        return f"<Room {self.name} of {self._line!r}>"

    # --- saying ---

    async def say(
        self,
        text: str,
        *,
        kind: str = "message",
        id: str | None = None,  # noqa: A002
        file: Fields | None = None,
    ) -> int:
        """Say something; its seq, once the node has it on its disk. Cuts are borne; the same `id` again is said once.

        When this raises Unreachable, or is cancelled, the message stays in the outbox and is sent at the next start.
        """
        return (await self.post(text, kind=kind, id=id, file=file)).seq

    def post(
        self,
        text: str,
        *,
        kind: str = "message",
        ref: int = 0,
        id: str | None = None,  # noqa: A002
        file: Fields | None = None,
    ) -> asyncio.Future[Cursor]:
        """The same without waiting: messages go out in the order of these calls."""
        return self.post_with_id(text, kind=kind, ref=ref, id=id, file=file)[0]

    def post_with_id(
        self,
        text: str,
        *,
        kind: str = "message",
        ref: int = 0,
        id: str | None = None,  # noqa: A002
        file: Fields | None = None,
    ) -> tuple[asyncio.Future[Cursor], str]:
        """The same, and the id by which the message is known when it comes back."""
        id_ = encode(os.urandom(10)) if id is None else id
        posts = [measured(Post(self.name, id_, kind, text, ref, self.nick, file))]
        waiting: asyncio.Future[Cursor] = waiter()
        self._hand_over(posts, said(posts), partial(tell_one, waiting))
        return waiting, id_

    async def say_all(
        self, texts: Sequence[str], *, kind: str = "message", ids: Sequence[str] | None = None
    ) -> list[int | TowlineError]:
        """Say several things in this order: they go out, are kept on the node's disk and acknowledged together.

        For each its seq, or why just that one was refused. Otherwise as `say`; each has an id of its own.
        """
        if not texts:
            return []
        own = names(len(texts)) if ids is None else ids
        if len(set(own)) != len(texts) or len(own) != len(texts):
            raise UsageError("Each message needs an id of its own.")
        posts = [
            measured(Post(self.name, id_, kind, text, 0, self.nick)) for id_, text in zip(own, texts, strict=True)
        ]
        waiters = []
        for together, body in parcels(posts):
            waiting: asyncio.Future[list[Outcome]] = waiter()
            self._hand_over(together, body, partial(tell_all, waiting))
            waiters.append(waiting)
        outcomes = [outcome for waiting in waiters for outcome in await waiting]
        return [each if isinstance(each, TowlineError) else each.seq for each in outcomes]

    def _hand_over(self, posts: list[Post], body: bytes, told: Told) -> None:
        from towline.client.parcel import Parcel

        self._line.mailing.say(Parcel(self.name, [post.id for post in posts], body, told))

    async def me(self, text: str) -> int:
        """Say what we do: `* ann waves`."""
        return await self.say(text, kind="me")

    async def edit(self, seq: int, text: str) -> int:
        """Another text for a message of ours."""
        return (await self.post(text, kind="edit", ref=seq)).seq

    async def delete(self, seq: int) -> int:
        """Take a message of ours back: its text is not given out any more."""
        return (await self.post("", kind="delete", ref=seq)).seq

    # --- reading ---

    async def follow(
        self,
        since: Since = None,
        *,
        present: bool = True,
        create: bool = False,
        on_signal: Callable[[Signal], None] = _silent,
        on_open: Callable[[Header], None] = lambda _: None,
    ) -> AsyncIterator[Item]:
        """Everything from `since` on, for ever, each once and in order, over cuts; what cannot be had is a `Missed`.

        `present`: others see that we are here. `create`: make the room where there is none. Signals (presence,
        typing) are in no log and come only while the line is up.
        """
        where, fruitless = position_of(since), 0
        while True:
            request: Header = {
                "op": "follow",
                "room": self.name,
                "present": present,
                "create": create,
                "nick": self.nick,
            }
            channel = await self._line.channel({"service": "rooms", **request, **where})
            reports = _Reports(channel) if present else None
            try:
                opening = await channel.accepted()
                where, fruitless = where if "seen" in where else _opened_at(opening), 0
                self._following = channel
                on_open(opening)
                while (message := await channel.receive()) is not None:
                    for item in parse_lines(message.body):
                        if isinstance(item, Signal):
                            on_signal(item)
                            continue
                        where = _after(item)
                        yield item
                    if reports is not None:
                        reports.at(int(str(where["seq"])) - 1)
            except TowlineError as error:
                if not error.retryable:
                    raise
                if channel.connection.is_open and not channel.connection.session.going_away:
                    fruitless += 1
                    pause = uniform(0.05, min(_LONGEST_PAUSE, 0.1 * 2.0**fruitless))
                    await asyncio.sleep(error.retry_after or pause)
            finally:
                if reports is not None:
                    reports.stop()
                if self._following is channel:
                    self._following = None
                channel.reset()

    async def history(
        self, since: Since = 0, *, last: int | None = None, until: int | None = None, search: str = ""
    ) -> AsyncIterator[Item]:
        """What is kept now, from `since` or the `last` so many, up to (not including) the seq `until`."""
        where = position_of(since) if last is None else {"last": last}
        if not where:
            raise UsageError("History needs a position to begin at.")
        request: Header = {"service": "rooms", "op": "read", "room": self.name, "search": search}
        if until is not None:
            request["until"] = until
        left = _LOOKS
        while True:
            channel = await self._line.channel({**request, **where})
            try:
                opening = await channel.accepted()
                where = where if "seen" in where else _opened_at(opening)
                while (message := await channel.receive()) is not None:
                    for item in parse_lines(message.body):
                        if not isinstance(item, Signal):
                            where = _after(item)
                            left = _LOOKS
                            yield item
                return
            except TowlineError as error:
                left -= 1
                if not error.retryable or not left:
                    raise
            finally:
                channel.reset()

    # --- while following ---

    def typing(self) -> None:
        """We write something; for those who are here."""
        self._beside({"t": "typing"})

    def away(self, away: bool) -> None:
        """We are not at our screen, or back."""
        self._beside({"t": "away", "away": away})

    def mark_read(self, seq: int) -> None:
        """A person has seen everything up to `seq`."""
        self._beside({"t": "at", "got": seq, "read": seq})

    def _beside(self, header: Header) -> None:
        if self._following is not None and not self._following.closed:
            self._following.send_nowait(b"", header)

    # --- asking ---

    async def describe(self) -> Fields:
        """Topic, private, keep, epoch, first and last seq."""
        return await self._ask({"op": "describe"}, rows.DescribedRoom)  # type: ignore[no-any-return]

    async def join(self, *, private: bool = False) -> Fields:
        """Make the room where there is none; what it is like."""
        return await self._ask({"op": "join", "private": private}, rows.DescribedRoom)  # type: ignore[no-any-return]

    async def who(self) -> list[Fields]:
        """Who is here: who, state (here, away), nick, since."""
        return await self._ask({"op": "who"}, list[rows.Present])  # type: ignore[no-any-return]

    async def receipts(self, seq: int) -> Fields:
        """What became of a message: accepted, delivered (how many others have it), read (their names)."""
        return await self._ask({"op": "receipts", "seq": seq}, rows.Receipts)  # type: ignore[no-any-return]

    async def topic(self, text: str) -> None:
        """Say what the room is about."""
        await self._ask({"op": "topic", "text": text})

    async def openness(self, *, private: bool) -> None:
        """Let everybody with `chat` see the room, or only who is invited."""
        await self._ask({"op": "openness", "private": private})

    async def keep(
        self, *, seconds: float | None = None, size: int | None = None, records: int | None = None
    ) -> Fields:
        """How much is kept: by age, bytes, number; 0: the node's default. What is not named stays as it is."""
        wanted = {"seconds": seconds, "bytes": size, "records": records}
        request: Header = {"op": "keep", **{name: most for name, most in wanted.items() if most is not None}}
        return await self._ask(request, rows.DescribedRoom)  # type: ignore[no-any-return]

    async def invite(self, person: str) -> None:
        """Let somebody into a private room."""
        await self._ask({"op": "invite", "person": person})

    async def mute(self, person: str, seconds: float) -> None:
        """Admin: let somebody write nothing here for a while; 0 lifts it."""
        await self._ask({"op": "mute", "person": person, "seconds": seconds})

    async def remove(self, seq: int) -> None:
        """Admin: take a message of anybody out of sight."""
        await self._ask({"op": "remove", "seq": seq})

    async def _ask(self, request: Header, kind: Any = Any) -> Any:
        return await ask_rooms(self._line, {**request, "room": self.name}, kind)


class _Reports:
    """Tells the node how far we are, now and then."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._seq = 0
        self._timer: asyncio.TimerHandle | None = None

    def at(self, seq: int) -> None:
        self._seq = seq
        if self._timer is None:
            self._timer = self._loop.call_later(_REPORT_SECONDS, self._say)

    def _say(self) -> None:
        self._timer = None
        try:
            self._channel.send_nowait(b"", {"t": "at", "got": self._seq})
        except TowlineError:
            pass  # the next stream tells

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


async def ask_rooms(line: Reach, request: Header, kind: Any) -> Any:
    """One request, and the answer as a `kind`. All may be asked again after a cut: they change nothing twice."""
    return rows.parsed(await ask(line, {"service": "rooms", **request}, tries=_LOOKS), kind)


def _opened_at(opening: Header) -> Header:
    match opening:
        case {"epoch": int(epoch), "seq": int(seq)}:
            return {"epoch": epoch, "seq": seq}
        case _:
            raise PeerError("The node does not say where the room's stream begins.")


def _after(item: Item) -> Header:
    """The position behind an item; the time of a record tells the node whether it is still the same one."""
    where: Header = {"epoch": item.next.epoch, "seq": item.next.seq}
    return where if isinstance(item, Missed) else {**where, "seen": round(item.time * 1e6)}
