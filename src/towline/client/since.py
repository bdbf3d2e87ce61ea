"""Where a reader of a room begins: as a program says it, as a person writes it, as the node takes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from towline.base.errors import UsageError
from towline.base.quantity import parse_duration
from towline.journal import Cursor
from towline.protocol.codec import Header

# Every command that reaches a node passes here; few of them have a time to say.
if TYPE_CHECKING:
    from datetime import datetime

Since: TypeAlias = "int | Cursor | datetime | None"
"""A seq, a cursor (a seq that is sure to belong to the same log), a time, or None for what comes from now on."""


def position_of(since: Since) -> Header:
    """As the node takes it."""
    match since:
        case None:
            return {}
        case Cursor():
            return {"epoch": since.epoch, "seq": since.seq}
        case int():
            if since < 0:
                raise UsageError("A seq is at least 0.")
            return {"seq": since}
        case _:
            return {"time": since.timestamp()}


def parse_since(text: str, now: datetime) -> Since:
    """`17` (a seq), `2026-11-21`, `2026-11-21 14:30`, `14:30` (today), `2h` (ago). `now` is local.

    Raises UsageError.
    """
    from datetime import datetime

    stripped = text.strip()
    if stripped.isdecimal():
        return int(stripped)
    try:
        if ":" in stripped and "-" not in stripped:
            clock = datetime.strptime(stripped, "%H:%M:%S" if stripped.count(":") == 2 else "%H:%M")  # noqa: DTZ007
            return now.replace(hour=clock.hour, minute=clock.minute, second=clock.second, microsecond=0)
        if "-" in stripped:
            moment = datetime.fromisoformat(stripped)
            return moment if moment.tzinfo is not None else moment.astimezone()
    except ValueError:
        raise UsageError(f"{text!r} is not a time; write 2026-11-21, 2026-11-21 14:30, 14:30, or 2h.") from None
    seconds = parse_duration(stripped)
    return datetime.fromtimestamp(now.timestamp() - seconds).astimezone()
