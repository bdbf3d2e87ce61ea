"""The operation `say`: messages in, acknowledgements out, in one stream for all rooms of a person.

Requests come as lines, several in one body where a sender has several; JSON has no line breaks of its own. Each
message is numbered as it comes and acknowledged when it is on the disk; many wait for one fsync together. A
refusal names the message's id and leaves the stream as it is. Only TooFast ends the stream (what was taken is
acknowledged before): what follows must not overtake what was refused.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial

from towline.base.errors import TooFast, TowlineError
from towline.base.limits import KIB
from towline.journal.batch import Ticket
from towline.runtime.channel import Channel
from towline.services.rooms.access import require_seen
from towline.services.rooms.house import House
from towline.services.rooms.limits import ROOM_PENDING, announced
from towline.services.rooms.messages import Post, owner_key, parse_post
from towline.services.rooms.room import Room
from towline.trust.grants import Grants

_quoted = json.encoder.encode_basestring_ascii


class Posting:
    """One stream. What is done for every message is done without a task, a future or a lock of its own: with fifty
    people talking, this is where a node's time goes."""

    def __init__(self, channel: Channel, house: House, grants: Grants) -> None:
        self._channel, self._house, self._grants = channel, house, grants
        self._person, self._owner = channel.person, owner_key(channel.person)
        self._moderates = grants.allows("admin")
        self._loop = asyncio.get_running_loop()
        self._pending = 0
        self._fewer = asyncio.Event()
        self._rooms: dict[str, Room] = {}
        self._answers: list[str] = []
        self._due = False

    async def run(self) -> None:
        """Until the peer ends its side; then all that was taken is acknowledged."""
        self._channel.accept({"limits": announced()})
        try:
            while (message := await self._channel.receive()) is not None:
                for line in message.body.split(b"\n"):
                    await self._take(line)
                    if self._pending >= ROOM_PENDING.value:
                        await self._wait_pending(ROOM_PENDING.value - 1)
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
            now = self._loop.time()
            # Paid for before it is looked at: a body of line breaks alone is a million lines to be refused.
            self._house.bucket(self._person, now).spend(1 + len(body) / KIB, now)
            post = parse_post(body)
            id_ = post.id
            room = self._rooms.get(post.room)
            if room is None:
                room = await self._enter(post.room)
            elif room.row.private:  # it may have become so meanwhile
                self._require_seen(room)
            self._pending += 1
            try:
                await room.post(
                    post,
                    self._person,
                    self._owner,
                    partial(self._settled, room, post),
                    moderates=self._moderates,
                )
            except BaseException:
                self._pending -= 1
                raise
        except TooFast:
            raise
        except TowlineError as error:
            self._answer(_refusal(id_, error))

    async def _enter(self, name: str) -> Room:
        room = self._rooms[name] = await self._house.find(name, self._person, self._grants)
        room.begin_post()
        return room

    def _require_seen(self, room: Room) -> None:
        invited = room.members.get(self._person)
        require_seen(self._grants, self._person, room.name, private=room.row.private, invited=invited)

    def _settled(self, room: Room, post: Post, ticket: Ticket) -> None:
        self._pending -= 1
        self._fewer.set()
        seq = ticket.seq
        error = ticket.batch.failure(seq)
        room.wrote(error)
        if error is not None:
            self._answer(_refusal(post.id, error))
            return
        if post.kind == "delete":
            room.hide(post.ref)
            removing = self._loop.create_task(self._house.removed(room, post.ref))
            removing.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._answer(f'{{"id":{_quoted(post.id)},"epoch":{room.log.journal.cursor(seq).epoch},"seq":{seq}}}')

    def _answer(self, line: str) -> None:
        """Answers that come together leave together."""
        self._answers.append(line)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._due = False
        answers, self._answers = self._answers, []
        if not answers:  # `_settle` did not wait for us
            return
        try:
            self._channel.send_nowait("\n".join(answers).encode())
        except TowlineError:
            pass  # the peer is gone; it says everything again, with the same ids

    async def _wait_pending(self, most: int) -> None:
        while self._pending > most:
            self._fewer.clear()
            await self._fewer.wait()

    async def _settle(self) -> None:
        await self._wait_pending(0)
        if self._due:
            self._send()


def _refusal(id_: str, error: TowlineError) -> str:
    fields = {
        "id": id_,
        "error": error.code,
        "name": error.name,
        "sentence": error.sentence,
        "retryable": error.retryable,
    }
    return json.dumps(fields, separators=(",", ":"))
