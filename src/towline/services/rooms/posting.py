"""The operation `say`: messages in, acknowledgements out, in one stream for all rooms of a person.

Each message is numbered as it comes and acknowledged when it is on the disk; many wait for one fsync together. A
refusal names the message's id and leaves the stream as it is. Only TooFast ends the stream (what was taken is
acknowledged before): what follows must not overtake what was refused.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque

from towline.base.errors import TooFast, TowlineError
from towline.base.limits import KIB
from towline.runtime.channel import Channel
from towline.services.rooms.access import require_seen
from towline.services.rooms.house import House
from towline.services.rooms.limits import ROOM_PENDING, announced
from towline.services.rooms.messages import Fields, Post, parse_post
from towline.services.rooms.room import Room
from towline.trust.grants import Grants


class Posting:
    """One stream."""

    def __init__(self, channel: Channel, house: House, grants: Grants) -> None:
        self._channel, self._house, self._grants = channel, house, grants
        self._loop = asyncio.get_running_loop()
        self._pending: deque[asyncio.Future[int]] = deque()
        self._rooms: dict[str, Room] = {}
        self._answers: list[Fields] = []
        self._due = False

    async def run(self) -> None:
        """Until the peer ends its side; then all that was taken is acknowledged."""
        self._channel.accept({"limits": announced()})
        try:
            while (message := await self._channel.receive()) is not None:
                await self._take(message.body)
                while len(self._pending) >= ROOM_PENDING.value or (self._pending and self._pending[0].done()):
                    await asyncio.wait([self._pending.popleft()])
            await self._settle()
        except TooFast:
            await self._settle()
            await self._channel.flush()
            raise
        finally:
            for room in self._rooms.values():
                room.end_post()

    async def _take(self, body: bytes) -> None:
        id_ = ""
        try:
            post = parse_post(body)
            id_ = post.id
            room = await self._room(post)
            self._house.bucket(self._channel.person, self._loop.time()).spend(1 + len(body) / KIB, self._loop.time())
            future = await room.post(post, self._channel.person, moderates=self._grants.allows("admin"))
        except TooFast:
            raise
        except TowlineError as error:
            self._answer(_refusal(id_, error))
            return
        self._pending.append(future)
        future.add_done_callback(lambda done: self._settled(room, post, done))

    async def _room(self, post: Post) -> Room:
        room = self._rooms.get(post.room)
        if room is None:
            room = await self._house.find(post.room, self._channel.person, self._grants)
            room.begin_post()
            self._rooms[post.room] = room
        else:  # it may have become private meanwhile
            invited = room.members.get(self._channel.person)
            require_seen(self._grants, self._channel.person, room.name, private=room.row.private, invited=invited)
        return room

    def _settled(self, room: Room, post: Post, done: asyncio.Future[int]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None or isinstance(error, TowlineError):
            room.wrote(error)
        if isinstance(error, TowlineError):
            self._answer(_refusal(post.id, error))
        elif error is None:
            if post.kind == "delete":
                removing = self._loop.create_task(self._house.removed(room, post.ref))
                removing.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._answer({"id": post.id, "epoch": room.log.journal.cursor(done.result()).epoch, "seq": done.result()})

    def _answer(self, fields: Fields) -> None:
        """Answers that come together leave together."""
        self._answers.append(fields)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._due = False
        answers, self._answers = self._answers, []
        body = b"\n".join(json.dumps(answer, separators=(",", ":")).encode() for answer in answers)
        try:
            self._channel.send_nowait(body)
        except TowlineError:
            pass  # the peer is gone; it says everything again, with the same ids

    async def _settle(self) -> None:
        if self._pending:
            await asyncio.wait(self._pending)
            self._pending.clear()
        if self._due:
            self._send()


def _refusal(id_: str, error: TowlineError) -> Fields:
    return {
        "id": id_,
        "error": error.code,
        "name": error.name,
        "sentence": error.sentence,
        "retryable": error.retryable,
    }
