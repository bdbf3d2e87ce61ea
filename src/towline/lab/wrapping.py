"""Breaking lines of mixed Chinese and English text by the columns it fills (UAX #11 and, in spirit, UAX #14). Pure.

A Chinese sentence may break between any two of its characters, an English one at blanks; closing punctuation
does not
begin a line, opening punctuation does not end one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable

_NOT_FIRST = frozenset("，。、；：？！）》」』”’…,.;:?!)]}›%")
_NOT_LAST = frozenset("（《「『“‘([{‹")

# A piece of text and its style; a line is a list of them.
Span = tuple[str, str]


def columns(text: str) -> int:
    """How many columns of a terminal the text fills."""
    return sum(_column(char) for char in text)


def wrap(text: str, width: int) -> list[str]:
    """The lines of `text`, each at most `width` columns wide."""
    return ["".join(part for part, _ in line) for line in wrap_spans([(text, "")], width)]


def wrap_spans(spans: Iterable[Span], width: int, solid: Collection[str] = ()) -> list[list[Span]]:
    """The same for styled text. A newline begins a line; a span in a `solid` style does not break where it fits."""
    lines: list[list[Span]] = [[]]
    used = 0
    for atom, style in _atoms(spans, solid):
        if atom == "\n":
            lines.append([])
            used = 0
            continue
        size = columns(atom.rstrip(" "))
        if used and used + size > width:
            lines.append([])
            used = 0
        for part in _cut(atom, width) if size > width else [atom]:
            if used and used + columns(part.rstrip(" ")) > width:
                lines.append([])
                used = 0
            lines[-1].append((part, style))
            used += columns(part)
    return [_trimmed(line) for line in lines]


def column_widths(cells: list[list[str]], room: int) -> list[int]:
    """Widths for a table of cells, two columns apart: as wide as needed; where that is too much, the widest give."""
    widths = [max(columns(row[at]) for row in cells) for at in range(len(cells[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _column(char: str) -> int:
    if unicodedata.combining(char) or unicodedata.category(char) in {"Cf", "Mn"}:
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _atoms(spans: Iterable[Span], solid: Collection[str]) -> Iterable[Span]:
    # An atom is what may not be broken, with the blanks behind it.
    for text, style in spans:
        if style in solid:
            yield text, style
            continue
        atom = ""
        for char in text:
            if char == "\n":
                if atom:
                    yield atom, style
                yield "\n", style
                atom = ""
            elif atom and _may_break(atom[-1], char):
                yield atom, style
                atom = char
            else:
                atom += char
        if atom:
            yield atom, style


def _may_break(before: str, after: str) -> bool:
    if after == " " or after in _NOT_FIRST or before in _NOT_LAST:
        return False
    return before == " " or _column(before) == 2 or _column(after) == 2


def _cut(atom: str, width: int) -> Iterable[str]:
    part = ""
    for char in atom:
        if columns(part) + _column(char) > width:
            yield part
            part = ""
        part += char
    yield part


def _trimmed(line: list[Span]) -> list[Span]:
    while line and not line[-1][0].rstrip(" "):
        line.pop()
    if line:
        line[-1] = (line[-1][0].rstrip(" "), line[-1][1])
    return line
