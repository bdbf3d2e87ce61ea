"""The numbers of rooms that somebody may push on."""

from __future__ import annotations

from towline.base.limits import GIB, KIB, Limit

ROOM_TEXT = Limit("room_text", 64 * KIB, "bytes", "a message is one line of a screen, not a file", True)
ROOM_ID = Limit("room_id", 48, "bytes", "a message's id is a name; with the sender's it fits a journal's id", True)
ROOM_RATE = Limit(
    "room_rate", 1000, "messages a second", "of one person; each KiB of text counts as one more message", True
)
ROOM_BURST = Limit("room_burst", 2000, "messages", "what one person may say at once before room_rate counts", True)
ROOM_PENDING = Limit("room_pending", 256, "messages", "of one stream that wait for the disk; more are not read", True)
ROOM_MADE = Limit("room_made", 200, "rooms", "that one person may make; each is a folder for ever")
ROOM_KEPT = Limit("room_kept", 1 * GIB, "bytes", "a room's log unless it was told otherwise; the oldest goes first")
ROOM_LIVE = Limit("room_live", 64 * KIB, "bytes", "queued for a live follower; past that it reads from the journal")
ROOM_SHOWN = Limit(
    "room_shown", 200, "people", "in a larger room presence is told on request, not to everybody at each change"
)
ROOM_OPEN = Limit("room_open", 512, "rooms", "open at a time; those that nobody uses are closed first")
ROOM_NICK = Limit("room_nick", 64, "characters", "a nick is shown beside the name", True)
ROOM_TOPIC = Limit("room_topic", 400, "characters", "a topic is one line", True)

GRACE_SECONDS = 15.0
"""Who comes back within this time has not been away."""
TYPING_SECONDS = 2.0
"""Least time between two typing signals of one person."""

ANNOUNCED = (ROOM_TEXT, ROOM_ID, ROOM_RATE, ROOM_BURST, ROOM_PENDING, ROOM_NICK, ROOM_TOPIC)


def announced() -> dict[str, int]:
    """Limits by name, as a node tells them when a stream of this service is taken."""
    return {limit.name: limit.value for limit in ANNOUNCED}
