"""The operation `say`: messages in, acknowledgements out, in one stream for all rooms of a person.

Requests come as lines, several in one body where a sender has several; JSON has no line breaks of its own. The lines
of a body are decoded together, numbered together, and acknowledged together when they are on the disk; many bodies
wait for one fsync together. A refusal names the message's id and leaves the others and the stream as they are. Only
TooFast ends the stream (what was taken is acknowledged before): what follows must not overtake what was refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

from towline.base.errors import TooFast, TowlineError
from towline.base.limits import KIB
from towline.journal import START, Cursor
from towline.journal.batch import Tickets
from towline.runtime.channel import Channel
from towline.services.rooms.access import require_seen
from towline.services.rooms.house import House
from towline.services.rooms.limits import ROOM_PENDING, announced
from towline.services.rooms.messages import Post, Refusal, kept_line, owner_key, parse_posts, refused_line
from towline.services.rooms.room import Room
from towline.trust.grants import Grants


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
        self._answers: list[bytes] = []
        self._due = False

    async def run(self) -> None:
        """Until the peer ends its side; then all that was taken is acknowledged."""
        self._channel.accept({"limits": announced()})
        try:
            while (message := await self._channel.receive()) is not None:
                for body, lines in self._paid(message.body):
                    await self._take(body, lines)
            await self._settle()
        except TooFast:
            await self._settle()
            await self._channel.flush()
            raise
        finally:
            for room in self._rooms.values():
                room.end_post()

    def _paid(self, body: bytes) -> Iterator[tuple[bytes, int]]:
        """What of a body is paid for, and how many lines that is: all at once, or as many as can be. Raises TooFast.

        Before it is looked at: a body of line breaks alone is a million lines to be refused.
        """
        lines, now = body.count(b"\n") + 1, self._loop.time()
        cost = lines + len(body) / KIB
        bucket = self._house.bucket(self._person, now)
        if bucket.has(cost, now):
            bucket.spend(cost, now)
            yield body, lines
            return
        for line in body.split(b"\n"):
            now = self._loop.time()
            self._house.bucket(self._person, now).spend(1 + len(line) / KIB, now)
            yield line, 1

    async def _take(self, body: bytes, lines: int) -> None:
        posts, refused = parse_posts(body, lines)
        for refusal in refused:
            self._answer(refused_line(refusal))
        for together in _together(posts):
            await self._wait_pending(ROOM_PENDING.value - len(together))
            self._pending += len(together)
            try:
                await self._say(together)
            except TowlineError as error:
                self._pending -= len(together)
                for post in together:
                    self._answer(refused_line(Refusal(post.id, error)))
            except BaseException:
                self._pending -= len(together)
                raise

    async def _say(self, posts: list[Post]) -> None:
        room = self._rooms.get(posts[0].room)
        if room is None:
            room = await self._enter(posts[0].room)
        elif room.row.private:  # it may have become so meanwhile
            self._require_seen(room)
        settled = partial(self._settled, room, posts)
        await room.post(posts, self._person, self._owner, settled, moderates=self._moderates)

    async def _enter(self, name: str) -> Room:
        room = self._rooms[name] = await self._house.find(name, self._person, self._grants)
        await room.begin_post()
        return room

    def _require_seen(self, room: Room) -> None:
        invited = room.members.get(self._person)
        require_seen(self._grants, self._person, room.name, private=room.row.private, invited=invited)

    def _settled(self, room: Room, posts: list[Post], tickets: Tickets) -> None:
        self._pending -= len(posts)
        self._fewer.set()
        room.wrote(tickets.batch.error)
        for line in _answers(posts, tickets, room.log.journal.cursor):
            self._answer(line)

    def _answer(self, line: bytes) -> None:
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
            self._channel.send_nowait(b"\n".join(answers))
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


def _together(posts: list[Post]) -> Iterator[list[Post]]:
    """As many in a row as go to one log at once. What refers to a message, which is looked up, goes alone."""
    begin = 0
    for index, post in enumerate(posts):
        first = posts[begin]
        if post.ref or first.ref or post.room != first.room or index - begin == ROOM_PENDING.value:
            if index > begin:
                yield posts[begin:index]
            begin = index
    if posts:
        yield posts[begin:]


def _answers(posts: list[Post], tickets: Tickets, cursor: Callable[[int], Cursor]) -> Iterator[bytes]:
    """A line for those that are kept in a row, and one for each that is refused."""
    outcomes = tickets.outcomes
    if tickets.kept_all and isinstance(first := outcomes[0], int):  # hardly ever is it otherwise
        yield kept_line(cursor(first), [post.id for post in posts])
        return
    begin, row = START, list[str]()
    for post, outcome in zip(posts, outcomes, strict=True):
        kept = outcome if isinstance(outcome, TowlineError) else tickets.failure(outcome) or outcome
        if isinstance(kept, TowlineError):
            yield refused_line(Refusal(post.id, kept))
            continue
        here = cursor(kept)
        if row and here != (begin.epoch, begin.seq + len(row)):
            yield kept_line(begin, row)
            row = []
        if not row:
            begin = here
        row.append(post.id)
    if row:
        yield kept_line(begin, row)
