"""A screen to the bytes that make a fresh terminal show the same."""

from __future__ import annotations

from towline.base.text import printable
from towline.cli.terminal.model import BLANK, TAB, Place, Row, Screen
from towline.cli.terminal.parsing import Interpreter
from towline.cli.terminal.pens import PLAIN


def paint(interpreter: Interpreter, modes: bytes) -> bytes:
    """For a terminal of the screen's size. `modes`: what switches the modes on, the alternate screen among them.

    What has scrolled away from the normal screen goes through it once more, into the newcomer's own history.
    """
    screen = interpreter.screen
    normal = screen.lines if screen.behind is None else screen.behind
    parts = ["\x1b[!p\x1b[r\x1b[m\x1b[H\x1b[2J", "\r\n".join(map(_row, [*screen.history, *normal]))]
    if screen.behind is not None:
        parts.append(_at(screen.behind_cursor))
    parts.append(modes.decode("ascii", "replace"))
    if screen.behind is not None:
        parts += [f"\x1b[{number + 1};1H{_row(line)}" for number, line in enumerate(screen.lines) if _used(line)]
    parts += _tabs(screen)
    parts += [f"\x1b]2;{printable(interpreter.title, limit=200)}\x07"] if interpreter.title else []
    if screen.saved is not None:
        parts += [_at(screen.saved), screen.saved.pen.encode(), "\x1b7"]
    if (screen.top, screen.bottom) != (0, screen.rows - 1):
        parts.append(f"\x1b[{screen.top + 1};{screen.bottom + 1}r")
    parts += _place(screen)
    return "".join(parts).encode()


def _row(line: Row) -> str:
    """One row from its first column on; its end is left as it is erased."""
    parts: list[str] = []
    pen = PLAIN
    for character, look in line[: _used(line)]:
        if look != pen:
            parts.append(look.encode())
            pen = look
        parts.append(character)
    if pen != PLAIN:
        parts.append("\x1b[m")
    return "".join(parts)


def _used(line: Row) -> int:
    """How many columns are more than blank."""
    end = len(line)
    while end and line[end - 1] == BLANK:
        end -= 1
    return end


def _at(place: Place) -> str:
    return f"\x1b[{place.row + 1};{place.column + 1}H"


def _tabs(screen: Screen) -> list[str]:
    if screen.tabs == set(range(TAB, screen.columns, TAB)):
        return []
    return ["\x1b[3g", *(f"\x1b[1;{stop + 1}H\x1bH" for stop in sorted(screen.tabs))]


def _place(screen: Screen) -> list[str]:
    """The cursor, and what it will write with."""
    place = screen.cursor
    row = place.row - screen.top if place.origin else place.row
    parts = [f"\x1b[{row + 1};{place.column + 1}H"]
    if place.full:  # only a character in the last column brings it there
        line = screen.lines[place.row]
        at = len(line) - 1 if line[-1][0] else len(line) - 2
        character, pen = line[at]
        parts += [f"\x1b[{row + 1};{at + 1}H", pen.encode(), character]
    parts += [f"\x1b{'()'[number]}{name}" for number, name in enumerate(place.sets) if name != "B"]
    if place.shifted:
        parts.append("\x0e")
    parts += ["\x1b[4h"] * screen.inserts + ["\x1b[20h"] * screen.newline
    return [*parts, place.pen.encode()]
