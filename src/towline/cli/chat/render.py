"""Messages as styled lines. Whatever others wrote has passed the text gate before it gets here."""

from __future__ import annotations

import time

from rich.style import Style
from rich.text import Text

from towline.base.quantity import format_size
from towline.base.text import printable
from towline.cli.chat.model import Pending, Row
from towline.cli.roomy import name_of, words_of
from towline.services.rooms.messages import Missed

_NAME_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "red")
_QUIET = Style(dim=True)


def row_text(row: Row, me: str, mark: str = "") -> Text:
    """A message, a gap, or something that happened."""
    item = row.item
    if isinstance(item, Missed):
        return Text(f"-- {item.text}", style=Style(italic=True, dim=True))
    text = Text(time.strftime("%H:%M ", time.localtime(item.time)), style=_QUIET)
    if item.kind in ("message", "me") and not item.removed:
        star = "* " if item.kind == "me" else ""
        colour = _NAME_COLOURS[sum(item.sender.encode()) % len(_NAME_COLOURS)]
        text.append(star + name_of(item), Style(color=colour, bold=item.sender == me))
        text.append(" " if item.kind == "me" else ": ", Style.null())
        text.append(printable(item.text), Style.null())
        if item.file is not None:
            size = format_size(float(item.file.get("bytes", 0)))
            text.append(f" [{size}; /get {item.seq}]", Style(underline=True, dim=True))
        if row.edited:
            text.append(" (edited)", _QUIET)
    else:
        text.append(words_of(item), Style(italic=True, dim=True))
    if mark or row.mark:
        text.append(f" {mark or row.mark}", _QUIET)
    return text


def pending_text(pending: Pending, me: str) -> Text:
    """Something of ours that has no place in the room yet."""
    text = Text("  …   ", style=_QUIET)
    text.append(me or "you", Style(bold=True))
    text.append(f": {printable(pending.text)}", _QUIET)
    if pending.error:
        text.append(f" ✗ {printable(pending.error)}", Style(color="red"))
    else:
        text.append(" ⧗" if not pending.seq else " ✓", _QUIET)
    return text


def note_text(text: str) -> Text:
    """Something that only we see."""
    return Text(text, style=Style(italic=True, dim=True))
