"""What a cell looks like: the parameters of Select Graphic Rendition (ECMA-48 8.3.117, xterm's control sequences)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

_SET = {1: 1, 2: 2, 3: 3, 5: 5, 6: 5, 7: 7, 8: 8, 9: 9, 53: 53}  # bold, faint, italic, blink, inverse, hidden …
_CLEAR = {22: (1, 2), 23: (3,), 25: (5,), 27: (7,), 28: (8,), 29: (9,), 55: (53,)}


class Pen(NamedTuple):
    """`ink`, `paper`, `line` and `line_ink` are SGR parameters as they were sent ("" is the terminal's own); `looks`
    the numbers of what else is switched on."""

    ink: str = ""
    paper: str = ""
    line: str = ""
    line_ink: str = ""
    looks: frozenset[int] = frozenset()

    @property
    def erased(self) -> Pen:
        """What an erased cell looks like: its background alone is the pen's."""
        return PLAIN if not self.paper else Pen(paper=self.paper)

    def encode(self) -> str:
        """The sequence that makes any pen this one."""
        parts = ["0", *map(str, sorted(self.looks)), self.line, self.ink, self.paper, self.line_ink]
        return f"\x1b[{';'.join(part for part in parts if part)}m"


PLAIN = Pen()


@lru_cache(maxsize=4096)
def changed(pen: Pen, parameters: str) -> Pen:
    """The pen after `CSI parameters m`; what is not known changes nothing."""
    parts = parameters.split(";")
    at = 0
    while at < len(parts):
        part = parts[at]
        head = part.partition(":")[0]
        number = int(head) if head else 0
        if number in {38, 48, 58}:
            pen, used = _coloured(pen, number, parts[at:])
            at += used
            continue
        pen = _one(pen, number, part)
        at += 1
    return pen


def _one(pen: Pen, number: int, part: str) -> Pen:
    match number:
        case 0:
            return PLAIN
        case 4 | 24:
            return pen._replace(line="" if number == 24 or part == "4:0" else part)
        case 21:
            return pen._replace(line="4:2")
        case _ if number in _SET:
            return pen._replace(looks=pen.looks | {_SET[number]})
        case _ if number in _CLEAR:
            return pen._replace(looks=pen.looks.difference(_CLEAR[number]))
        case _ if 30 <= number <= 37 or 90 <= number <= 97:
            return pen._replace(ink=part)
        case _ if 40 <= number <= 47 or 100 <= number <= 107:
            return pen._replace(paper=part)
        case 39:
            return pen._replace(ink="")
        case 49:
            return pen._replace(paper="")
        case 59:
            return pen._replace(line_ink="")
        case _:
            return pen


def _coloured(pen: Pen, number: int, parts: list[str]) -> tuple[Pen, int]:
    """A colour of 256 (`38;5;N`) or of all (`38;2;R;G;B`), with semicolons or colons; and how many parts it has."""
    used = 1
    if ":" not in parts[0]:
        used = {"5": 3, "2": 5}.get(parts[1] if len(parts) > 1 else "", 0)
        if not used or len(parts) < used:
            return pen, len(parts)  # nothing behind it can be told apart
    colour = ";".join(parts[:used])
    match number:
        case 38:
            return pen._replace(ink=colour), used
        case 48:
            return pen._replace(paper=colour), used
        case _:
            return pen._replace(line_ink=colour), used
