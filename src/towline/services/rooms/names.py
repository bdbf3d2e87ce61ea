"""Names of rooms. Pure.

A room is named like a person. The room of two people is `@ann+bob`, both names in order: `@` and `+` are in no other
name, so it can be mistaken for nothing. `@bob` is short for the room of whoever asks and bob.
"""

from __future__ import annotations

from towline.base.errors import UsageError
from towline.base.names import checked_name

LOBBY = "lobby"


def room_name(text: str, person: str) -> str:
    """The full name of a room as `person` calls it. Raises UsageError."""
    if not text.startswith("@"):
        return checked_name(text.removeprefix("#"), what="name for a room")
    names = [checked_name(part) for part in text[1:].split("+")]
    if len(names) == 1:
        names.append(person)
    if len(names) != 2:
        raise UsageError("A direct room is of two people: @NAME.")
    return "@" + "+".join(sorted(names))


def people_of(name: str) -> tuple[str, ...]:
    """The two people of a direct room; empty for another room."""
    return tuple(name[1:].split("+")) if name.startswith("@") else ()


def shown_name(name: str, person: str) -> str:
    """A room's name as `person` calls it."""
    people = people_of(name)
    if person not in people:
        return name
    others = [each for each in people if each != person]
    return f"@{others[0] if others else person}"
