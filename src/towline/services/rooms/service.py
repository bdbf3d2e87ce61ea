"""The service `rooms`: `follow`, `read` and `say` are streams, everything else is one request and one answer."""

from __future__ import annotations

import asyncio
import json
import time

from towline.base.errors import BadMessage, Cancelled, TowlineError
from towline.journal import Record
from towline.journal.interface import Item
from towline.runtime.channel import Channel, Message
from towline.services import requests
from towline.services.rooms.asking import OPERATIONS, Asker
from towline.services.rooms.fanout import Follower, encode_items, is_hidden
from towline.services.rooms.house import House
from towline.services.rooms.limits import announced
from towline.services.rooms.messages import Fields, fields_of, nick_of
from towline.services.rooms.names import shown_name
from towline.services.rooms.posting import Posting
from towline.services.rooms.room import Room
from towline.trust.grants import Grants


class RoomsService:
    """One of these for a node."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._endless: set[Channel] = set()

    async def start(self) -> None:
        """Before the first stream. Raises DiskError and its kin."""
        await self._house.start()

    def drain(self, going: TowlineError) -> None:
        """End the streams that would never end by themselves; their readers come again, with their position."""
        for channel in list(self._endless):
            channel.reset(going)

    async def close(self) -> None:
        """After the last stream."""
        await self._house.close()

    async def __call__(self, channel: Channel) -> None:
        grants = channel.connection.grants
        assert isinstance(grants, Grants)
        op = channel.header.get("op")
        match op:
            case "follow" | "say":
                self._endless.add(channel)
                try:
                    await (self._follow(channel, grants) if op == "follow" else self._say(channel, grants))
                finally:
                    self._endless.discard(channel)
            case "read":
                await self._read(channel, grants)
            case str() if op in OPERATIONS:
                asker = Asker(self._house, channel.person, grants, channel.header)
                result = await OPERATIONS[op](asker)
                channel.accept()
                await channel.send(json.dumps(result).encode())
            case _:
                raise BadMessage(f"The service rooms has no operation {op!r}.")

    async def _room(self, channel: Channel, grants: Grants) -> Room:
        create = requests.flag(channel.header, "create")
        return await self._house.find(requests.text(channel.header, "room"), channel.person, grants, create=create)

    async def _say(self, channel: Channel, grants: Grants) -> None:
        grants.require("chat")
        await Posting(channel, self._house, grants).run()

    # --- follow ---

    async def _follow(self, channel: Channel, grants: Grants) -> None:
        """From a position on, for ever. The reader may say how far it is, that it is away, that it types."""
        room = await self._room(channel, grants)
        present = requests.flag(channel.header, "present")
        nick = nick_of(requests.text(channel.header, "nick", ""))
        cursor = await self._house.position(room, channel.header)
        follower = Follower(channel, cursor, channel.person, present=present)
        channel.accept(_opening(room, follower))
        room.fanout.add(follower)
        for_good = False
        if present:
            room.presence.enter(channel.person, nick, time.time())
            channel.send_nowait(room.presence.snapshot())
        try:
            while (message := await channel.receive()) is not None:
                _hear(room, channel.person, message)
            for_good = True
        except Cancelled:
            for_good = True
            raise
        finally:
            room.fanout.remove(follower)
            if present:
                room.presence.leave(channel.person, for_good=for_good)
            room.used_at = time.monotonic()

    # --- read ---

    async def _read(self, channel: Channel, grants: Grants) -> None:
        """From a position to what is the end now (or `until`, a seq); then END. `search`: only texts with that."""
        room = await self._room(channel, grants)
        cursor = await self._house.position(room, channel.header)
        end = room.log.end
        until = requests.number(channel.header, "until", end.seq)
        word = requests.text(channel.header, "search", "").casefold()
        channel.accept(_opening(room, Follower(channel, cursor, channel.person)))
        while cursor.epoch != end.epoch or cursor.seq < min(until, end.seq):
            items = await room.fanout.read(cursor)
            if not items:
                break
            cursor = items[-1].next
            wanted = [item for item in items if not isinstance(item, Record) or item.seq < until]
            if word:
                wanted = await asyncio.to_thread(_matching, wanted, word, room.removed)
            if wanted:
                channel.send_nowait(encode_items(wanted, room.removed.__contains__))
                await channel.flush()
        channel.end({"epoch": cursor.epoch, "seq": cursor.seq})


def _opening(room: Room, follower: Follower) -> Fields:
    cursor, end = follower.cursor, room.log.end
    return {
        "room": shown_name(room.name, follower.person),
        "topic": room.row.topic,
        "epoch": cursor.epoch,
        "seq": cursor.seq,
        "end": end.seq,
        "first": room.log.floor.seq,
        "read": room.read.get(follower.person, 0),
        "limits": announced(),
    }


def _hear(room: Room, person: str, message: Message) -> None:
    """What a reader says beside; a newer client may say more than we know."""
    fields = message.header or {}
    match fields.get("t"):
        case "at":
            room.heard(person, requests.number(fields, "got", 0), requests.number(fields, "read", 0))
        case "away":
            room.presence.away(person, requests.flag(fields, "away"))
        case "typing":
            room.presence.typing(person)
        case _:
            pass


def _matching(items: list[Item], word: str, removed: set[int]) -> list[Item]:
    """The records with that word, and every gap: nobody knows what was said there."""
    return [
        item
        for item in items
        if not isinstance(item, Record)
        or (
            not is_hidden(item, removed.__contains__)
            and word in str(fields_of(item.payload).get("text", "")).casefold()
        )
    ]
