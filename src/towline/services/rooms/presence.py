"""Who is here and who is away, without noise when a connection is cut for a moment.

Nothing of this is in a log. Who goes without a word is gone after a grace time; who comes back before has not been
away. What is told in the first moments of a room is marked `quiet`: after a restart of the node those who come were
here before, so a screen changes its list and makes no words of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from towline.services.rooms.limits import GRACE_SECONDS, ROOM_SHOWN, TYPING_SECONDS
from towline.services.rooms.messages import Fields, signal_line


@dataclass(slots=True)
class Somebody:
    """One person in a room, however many streams they follow it with."""

    person: str
    nick: str
    since: float  # seconds since 1970
    streams: int = 0
    away: bool = False
    leaving: asyncio.TimerHandle | None = None
    typed: float = 0.0  # loop time of the last typing signal

    def fields(self) -> Fields:
        """For the wire."""
        state = "away" if self.away else "here"
        return {"who": self.person, "state": state, "nick": self.nick, "since": round(self.since, 3)}


class Presence:
    """The people of one room. `tell(line, besides)` gives a signal to those who are there."""

    def __init__(self, tell: Callable[[bytes, str], None], *, grace: float = GRACE_SECONDS) -> None:
        self._loop = asyncio.get_running_loop()
        self._tell = tell
        self._grace = grace
        self._quiet_until = self._loop.time() + grace
        self.people: dict[str, Somebody] = {}

    def __repr__(self) -> str:
        return f"<Presence {len(self.people)} people>"

    def enter(self, person: str, nick: str, now: float) -> None:
        """A stream of theirs follows the room."""
        known = self.people.get(person)
        somebody = known or self.people.setdefault(person, Somebody(person, nick, now))
        somebody.streams += 1
        if somebody.leaving is not None:
            somebody.leaving.cancel()
            somebody.leaving = None
        changed = bool(nick) and somebody.nick != nick
        somebody.nick = nick or somebody.nick
        if known is None or changed:
            self._announce({**somebody.fields(), "quiet": self._loop.time() < self._quiet_until})

    def leave(self, person: str, *, for_good: bool) -> None:
        """One of their streams has ended; `for_good` when they said so."""
        somebody = self.people.get(person)
        if somebody is None:
            return
        somebody.streams -= 1
        if somebody.streams > 0:
            return
        if for_good:
            self._gone(person)
        elif somebody.leaving is None:
            somebody.leaving = self._loop.call_later(self._grace, self._gone, person)

    def away(self, person: str, away: bool) -> None:
        """They are at their screen, or not."""
        somebody = self.people.get(person)
        if somebody is not None and somebody.away != away:
            somebody.away = away
            self._announce(somebody.fields())

    def typing(self, person: str) -> None:
        """They write something; told now and then only."""
        somebody, now = self.people.get(person), self._loop.time()
        if somebody is None or now - somebody.typed < TYPING_SECONDS or len(self.people) > ROOM_SHOWN.value:
            return
        somebody.typed = now
        self._tell(signal_line("typing", who=person), person)

    def here(self) -> list[Fields]:
        """Everybody, by name; at most ROOM_SHOWN of them."""
        return [self.people[name].fields() for name in sorted(self.people)[: ROOM_SHOWN.value]]

    def snapshot(self) -> bytes:
        """For somebody who has just come."""
        return signal_line("people", people=self.here(), count=len(self.people))

    def close(self) -> None:
        """No timer is left."""
        for somebody in self.people.values():
            if somebody.leaving is not None:
                somebody.leaving.cancel()
        self.people.clear()

    def _gone(self, person: str) -> None:
        somebody = self.people.pop(person)
        if somebody.leaving is not None:
            somebody.leaving.cancel()
        self._announce({**somebody.fields(), "state": "left"})

    def _announce(self, fields: Fields) -> None:
        if len(self.people) <= ROOM_SHOWN.value:
            self._tell(signal_line("presence", **fields), "")
