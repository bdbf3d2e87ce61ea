"""What the screen shows, without a screen: rooms, messages with what became of them, people."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import dataclass, field

from msgspec.structs import replace

from towline.services.rooms.messages import Entry, Fields, Item, Missed, Signal

TYPING_SHOWN = 4.0  # seconds
KEPT_ROWS = 1000  # of each room while its end is in sight; what is older is in the room's log
MOST_ROWS = 5000  # … while somebody looks back
_SHOWN = 1000  # people; an honest node tells of fewer
_AT_ONCE = 250  # rows that are dropped together: what is above all others moves all others


@dataclass(slots=True)
class Pending:
    """Something of ours that is under way. `error`: it was refused, and why."""

    id: str
    text: str
    kind: str
    seq: int = 0
    error: str = ""


@dataclass(slots=True)
class Row:
    """A message as it is shown: with its later edits. `mark` says what became of one of ours."""

    item: Item
    edited: bool = False
    mark: str = ""
    version: int = 0

    @property
    def seq(self) -> int:
        """Where it stands."""
        return self.item.seq if isinstance(self.item, Entry) else self.item.next.seq


@dataclass(slots=True)
class RoomModel:
    """One room. `me` is our own name on the node."""

    name: str
    me: str = ""
    topic: str = ""
    rows: list[Row] = field(default_factory=list)
    pending: dict[str, Pending] = field(default_factory=dict)
    people: dict[str, Fields] = field(default_factory=dict)
    typing: dict[str, float] = field(default_factory=dict)
    unread: int = 0
    first: int = 0  # the oldest seq that may still be had
    joined: bool = False
    full: bool = False  # somebody was told that no more can be shown
    # What an edit or deletion made of a row. It has no row of its own, so who fetches an older row again needs it.
    applied: dict[int, Entry] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The newest seq that we have."""
        return self.rows[-1].seq if self.rows else 0

    @property
    def oldest(self) -> int:
        """The oldest seq that we have, or know that it cannot be had."""
        match self.rows[0].item if self.rows else None:
            case None:
                return 0
            case Missed(from_, next_, reason) if from_.epoch == next_.epoch and reason != "retention":
                return from_.seq
            case item:
                return Row(item).seq

    def trim(self, most: int) -> None:
        """Drop the oldest rows when there are more than `most` and some; they can be fetched again."""
        if len(self.rows) > most + _AT_ONCE:
            del self.rows[: len(self.rows) - most]
            self.applied = {ref: entry for ref, entry in self.applied.items() if entry.seq >= self.oldest}

    def add(self, item: Item, *, seen: bool) -> None:
        """A record or gap that has come."""
        if isinstance(item, Missed):
            self.rows.append(Row(item))
            return
        self.pending.pop(item.id, None)
        self.typing.pop(item.sender, None)
        if not self._changes(item):
            self.rows.append(Row(item, mark="✓" if item.sender == self.me else ""))
        if not seen and item.sender != self.me:
            self.unread += 1

    def prepend(self, items: list[Item]) -> None:
        """Older records, in order."""
        older = RoomModel(self.name, self.me)
        for item in items:
            older.add(item, seen=True)
        changes = [
            row.item for row in self.rows if isinstance(row.item, Entry) and row.item.kind in ("edit", "delete")
        ]
        self.rows[:0] = older.rows
        self.applied = older.applied | self.applied
        for entry in sorted((*changes, *self.applied.values()), key=lambda entry: entry.seq):
            self._changes(entry)

    def find(self, seq: int) -> Row | None:
        """The row of a message."""
        index = bisect_left(self.rows, seq, key=lambda row: row.seq)
        for row in self.rows[index : index + 2]:
            if isinstance(row.item, Entry) and row.item.seq == seq:
                return row
        return None

    def _changes(self, entry: Entry) -> bool:
        """Apply an edit or deletion to the row it is about; true when there is nothing else to show."""
        if entry.kind == "topic":
            self.topic = entry.text
        if entry.kind not in ("edit", "delete"):
            return False
        row = self.find(entry.ref)
        if row is None or not isinstance(row.item, Entry):
            return False
        if entry.kind == "delete" and not row.item.removed:
            row.item = replace(row.item, text="", removed=True)
        elif entry.sender == row.item.sender and not row.item.removed:
            row.item = replace(row.item, text=entry.text)
            row.edited = True
        else:
            return True
        row.version += 1
        self.applied[entry.ref] = entry
        return True

    def hear(self, signal: Signal) -> bool:
        """A signal; whether people changed."""
        fields = signal.fields
        match signal.signal:
            case "people":
                self.people = {each["who"]: each for each in fields["people"][:_SHOWN]}
            case "presence":
                who = fields["who"]
                if fields.get("state") == "left":
                    self.people.pop(who, None)
                elif who in self.people or len(self.people) < _SHOWN:
                    self.people[who] = fields
            case "typing":
                if len(self.typing) < _SHOWN:
                    self.typing[fields["who"]] = time.monotonic()
                return False
            case _:
                return False
        return True

    def who_types(self) -> list[str]:
        """Those who wrote a moment ago."""
        now = time.monotonic()
        self.typing = {who: at for who, at in self.typing.items() if now - at < TYPING_SHOWN}
        return sorted(self.typing)

    def last_of_mine(self) -> Row | None:
        """Our newest message."""
        for row in reversed(self.rows[-50:]):
            if isinstance(row.item, Entry) and row.item.sender == self.me and row.item.kind in ("message", "me"):
                return row
        return None
