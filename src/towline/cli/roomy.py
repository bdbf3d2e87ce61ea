"""What the verbs of rooms share: how a message is shown to a person and to a program."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from towline.base.text import printable
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.base.errors import TowlineError
    from towline.client.outbox import Unsent
    from towline.client.since import Since
    from towline.services.rooms.messages import Entry, Item


def add_room(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """ALIAS and ROOM, and the options of a client verb."""
    from towline.cli.running import add_give_up

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument(
        "room", metavar="ROOM", nargs="?" if optional else None, help="a room, or @NAME for the one of NAME and you"
    )
    add_give_up(parser)


def since(text: str) -> Since:
    """For argparse: SEQ or TIME."""
    from towline.base.errors import UsageError
    from towline.client.since import parse_since

    try:
        return parse_since(text, datetime.now().astimezone())
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.sentence) from None


def refused(message: Unsent, error: TowlineError) -> str:
    """What is told of something that an earlier start left in the outbox, and that is not there any more."""
    from towline.services.rooms.messages import fields_of

    text = printable(str(fields_of(message.body).get("text", "")))
    return f"What was said in {printable(message.room)} earlier is refused: {error.sentence} It was: {text}"


def tell_refused(out: Output) -> Callable[[Unsent, TowlineError], None]:
    """A listener that says so."""

    def tell(message: Unsent, error: TowlineError) -> None:
        sentence = refused(message, error)
        out.event("warning", message=sentence)
        out.note(sentence)

    return tell


def show(out: Output, item: Item) -> None:
    """One record or gap: an event for programs, a line for people."""
    from towline.services.rooms.messages import Missed

    if isinstance(item, Missed):
        out.event(
            "gap",
            epoch=item.next.epoch,
            seq=item.next.seq,
            from_epoch=item.from_.epoch,
            from_seq=item.from_.seq,
            reason=item.reason,
        )
        out.note(f"-- {item.text}")
        return
    event(out, item)
    out.line(line_of(item))


def event(out: Output, entry: Entry) -> None:
    """The event `message`, whatever its kind."""
    fields: dict[str, object] = {
        "epoch": entry.epoch,
        "seq": entry.seq,
        "id": entry.id,
        "from": entry.sender,
        "time": entry.time,
        "text": entry.text,
        "kind": entry.kind,
    }
    if entry.ref:
        fields["ref"] = entry.ref
    if entry.nick:
        fields["nick"] = entry.nick
    if entry.file is not None:
        fields["file"] = entry.file
    if entry.removed:
        fields["removed"] = True
    out.event("message", **fields)


def line_of(entry: Entry, *, with_time: bool = True) -> str:
    """For people; nothing in it steers a terminal."""
    when = time.strftime("%Y-%m-%d %H:%M:%S ", time.localtime(entry.time)) if with_time else ""
    return f"{when}{entry.seq} {words_of(entry)}"


def words_of(entry: Entry) -> str:
    """Who says what, without time and seq."""
    who, text = name_of(entry), printable(entry.text)
    if entry.removed:
        return f"{who}: (removed)"
    match entry.kind:
        case "me":
            return f"* {who} {text}"
        case "edit":
            return f"{who} (edits {entry.ref}): {text}"
        case "delete":
            return f"-- {who} removed message {entry.ref}"
        case "topic":
            return f"-- {who} set the topic: {text}"
        case "notice":
            return f"-- {text}"
        case _:
            return f"{who}: {text}"


def name_of(entry: Entry) -> str:
    """The name that the node vouches for, and the nick that nobody does."""
    name = printable(entry.sender, limit=64)
    return f"{printable(entry.nick, limit=32)} ({name})" if entry.nick and entry.nick != entry.sender else name
