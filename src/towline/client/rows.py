"""What a node answers in JSON, looked at in one place: whoever reads a field can rely on its type and its range.

A node may be a hostile one, or a newer one. Fields that are not known here pass; one of another type, or a number
that no clock or disk can show, is a PeerError. What is checked is handed on as it came: plain lists and dicts.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from towline.base.errors import PeerError
from towline.services.files.disk import FARTHEST_NS
from towline.services.files.tree import Stat

Count = Annotated[int, Meta(ge=0, le=1 << 62)]
Moment = Annotated[float, Meta(ge=0, le=1e11)]  # seconds since 1970, in four-digit years
Seconds = Annotated[float, Meta(ge=0, le=1e11)]


class ListedRoom(TypedDict):
    """A room that one may see."""

    room: str
    topic: str
    private: bool
    here: Count
    last: Count
    read: Count


class DescribedRoom(TypedDict):
    """What a room is like."""

    room: str
    topic: str
    private: bool
    epoch: Annotated[int, Meta(ge=0)]
    first: Count
    last: Annotated[int, Meta(ge=-1, le=1 << 62)]


class Present(TypedDict):
    """Somebody who is here."""

    who: str
    state: str
    since: Moment
    nick: NotRequired[str]
    rooms: NotRequired[list[str]]


class Receipts(TypedDict):
    """What became of a message."""

    delivered: Count
    read: list[str]


class ListedJob(TypedDict):
    """A job in a list."""

    job: str
    state: str
    person: NotRequired[str]
    status: NotRequired[int | None]
    signal: NotRequired[str | None]
    argv: NotRequired[list[str]]
    started: NotRequired[Moment]
    ended: NotRequired[Moment | None]
    age: NotRequired[Seconds]
    bytes: NotRequired[Count]
    clients: NotRequired[Count]
    terminal: NotRequired[bool]
    on_disconnect: NotRequired[tuple[str, Seconds] | None]
    reason: NotRequired[str | None]
    full: NotRequired[bool]


class Audited(TypedDict):
    """A row of the audit log."""

    time: Moment
    person: str
    action: str
    subject: str
    detail: str


class ListedPerson(TypedDict):
    """Somebody who may use a node, or is invited."""

    name: str
    state: str
    grants: str
    last_seen: NotRequired[Moment | None]
    expires: NotRequired[Moment | None]


Share = tuple[str, bool]
ListedFile = tuple[
    str,
    Literal["file", "dir", "link", "other"],
    Count,
    int,  # nanoseconds; their bound is further away than Meta knows any, see `listed`
    Annotated[int, Meta(ge=0, le=0o7777)],
]


def parsed(body: bytes, kind: Any) -> Any:
    """An answer in JSON, as it came, when it is a `kind`. Raises PeerError."""
    try:
        value = json.loads(body)  # msgspec's takes no word that is not UTF-8, and a command may have one
    except (ValueError, RecursionError):
        raise _misunderstood() from None
    return checked(value, kind)


def checked(value: Any, kind: Any) -> Any:
    """`value`, when it is a `kind`. Raises PeerError."""
    try:
        msgspec.convert(value, kind)
    except (msgspec.ValidationError, RecursionError):
        raise _misunderstood() from None
    return value


def listed(row: list[Any]) -> Stat:
    """A checked ListedFile. Raises PeerError for a time that no file has."""
    info = Stat(*row)
    if abs(info.mtime_ns) > FARTHEST_NS:
        raise _misunderstood()
    return info


def _misunderstood() -> PeerError:
    return PeerError("The node's answer cannot be understood.")
