"""Operations with one answer: who is here, which rooms, receipts, and what admins and makers of rooms may do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from towline.base.errors import BadMessage, NoGrant, UsageError
from towline.protocol.codec import Header
from towline.services import requests
from towline.services.rooms.access import require_admin
from towline.services.rooms.house import House
from towline.services.rooms.limits import ROOM_TOPIC
from towline.services.rooms.messages import utf8
from towline.services.rooms.names import people_of, shown_name
from towline.services.rooms.room import Room
from towline.trust.grants import Grants

_TOPIC_COST = 50  # messages; a topic is not for talking
_LONGEST_MUTE = 10 * 365 * 86400.0


class Asker:
    """Who asks, for what."""

    def __init__(self, house: House, person: str, grants: Grants, header: Header) -> None:
        self.house, self.person, self.grants, self.header = house, person, grants, header

    async def room(self) -> Room:
        """The room that is asked about."""
        return await self.house.find(requests.text(self.header, "room"), self.person, self.grants)

    def require_owner(self, room: Room) -> None:
        """Whoever made a room, and admins, may change how it is."""
        if room.row.creator != self.person and not self.grants.allows("admin"):
            raise NoGrant("Only whoever made the room and admins may change that.")


async def rooms(ask: Asker) -> object:
    return await ask.house.visible(ask.person, ask.grants)


async def who(ask: Asker) -> object:
    if not ask.header.get("room"):
        ask.grants.require("chat")
        return ask.house.everyone(ask.person, ask.grants)
    return (await ask.room()).presence.here()


async def join(ask: Asker) -> object:
    """Make the room where there is none; what it is like."""
    name = requests.text(ask.header, "room")
    room = await ask.house.find(name, ask.person, ask.grants, create=True)
    if requests.flag(ask.header, "private"):
        ask.require_owner(room)
        await ask.house.describe(room, ask.person, private=True)
    return _described(ask, room)


async def describe(ask: Asker) -> object:
    return _described(ask, await ask.room())


async def topic(ask: Asker) -> object:
    room, text = await ask.room(), requests.text(ask.header, "text")
    room.check_mute(ask.person)
    now = asyncio.get_running_loop().time()
    ask.house.bucket(ask.person, now).spend(_TOPIC_COST, now)
    ROOM_TOPIC.check(len(text))
    utf8(text)
    await ask.house.describe(room, ask.person, topic=text)
    return _described(ask, room)


async def openness(ask: Asker) -> object:
    room = await ask.room()
    ask.require_owner(room)
    if people_of(room.name):
        raise UsageError("A direct room is always private.")
    await ask.house.describe(room, ask.person, private=requests.flag(ask.header, "private"))
    return _described(ask, room)


async def keep(ask: Asker) -> object:
    """Retention: `seconds`, `bytes`, `records`; 0 stands for the node's default, what is not named stays as it is."""
    room = await ask.room()
    ask.require_owner(room)
    row = room.row
    seconds = requests.seconds(ask.header, "seconds", row.keep_seconds or 0.0)
    if seconds < 0:
        raise BadMessage("Messages are kept for at least 0 seconds.")
    await ask.house.keep(
        room,
        seconds or None,
        requests.number(ask.header, "bytes", row.keep_bytes or 0) or None,
        requests.number(ask.header, "records", row.keep_records or 0) or None,
    )
    return _described(ask, room)


async def invite(ask: Asker) -> object:
    room, person = await ask.room(), requests.text(ask.header, "person")
    by_admin = ask.grants.allows("admin")
    await ask.house.invite(room, person, by_admin=by_admin)
    await ask.house.audit(ask.person, "invite-to-room", room.name, person)
    return _described(ask, room)


async def mute(ask: Asker) -> object:
    """For `seconds`; 0 lifts it."""
    require_admin(ask.grants)
    room, person = await ask.room(), requests.text(ask.header, "person")
    seconds = requests.seconds(ask.header, "seconds", 0.0)
    if not 0 <= seconds <= _LONGEST_MUTE:
        raise BadMessage("A mute lasts at least 0 seconds and at most ten years.")
    await ask.house.mute(room, person, time.time() + seconds if seconds else 0.0, ask.person)
    return _described(ask, room)


async def remove(ask: Asker) -> object:
    require_admin(ask.grants)
    room = await ask.room()
    number = await ask.house.remove(room, requests.number(ask.header, "seq", least=1), ask.person)
    return {"epoch": room.log.epoch, "seq": number}


async def receipts(ask: Asker) -> object:
    """What became of a message: how many received it, and who read it."""
    room = await ask.room()
    seq = requests.number(ask.header, "seq", least=1)
    await room.record(seq)
    got, read = room.receipts(seq, ask.person)
    return {"seq": seq, "accepted": True, "delivered": len(got), "read": read}


def _described(ask: Asker, room: Room) -> Header:
    row = room.row
    return {
        "room": shown_name(room.name, ask.person),
        "topic": row.topic,
        "private": row.private or bool(people_of(room.name)),
        "keep": {"seconds": row.keep_seconds, "bytes": row.keep_bytes, "records": row.keep_records},
        "epoch": room.log.epoch,
        "first": room.log.floor.seq,
        "last": room.log.end.seq - 1,
    }


OPERATIONS: dict[str, Callable[[Asker], Awaitable[object]]] = {
    "rooms": rooms,
    "who": who,
    "join": join,
    "describe": describe,
    "topic": topic,
    "openness": openness,
    "keep": keep,
    "invite": invite,
    "mute": mute,
    "remove": remove,
    "receipts": receipts,
}
