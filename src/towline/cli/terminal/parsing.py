"""Bytes that a terminal is sent, to what they do to a `Screen`. What is unknown does nothing."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from towline.base.limits import Limit
from towline.cli.terminal.model import TOKEN_WORK, Place, Screen
from towline.cli.terminal.pens import changed

SCREEN_WORK = Limit(
    "screen_work",
    10**9,
    "cells",
    "made or moved for a newcomer's screen: seconds of its client's time",
)
_CARRY = 64 * 1024  # a longer sequence that is not finished is given up
_MOST = 9999  # of a parameter
_LONGEST = 1000  # digits and separators of one sequence; int() itself refuses 4,301 digits
_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|\x1b\[(?P<private>[<=>?]?)(?P<numbers>[0-9;:]*)(?P<between>[ -/]*)(?P<final>[@-~])"
    r"|\x1b\](?P<system>[^\x07\x1b]*)(?:\x07|\x1b\\)"
    r"|\x1b[PX^_][^\x1b]*\x1b\\|\x1b[\]PX^_][^\x07\x1b]*(?=\x1b[^\\])"  # strings of no use here
    r"|\x1b(?P<set>[()])(?P<which>.)|\x1b#(?P<sharp>.)|\x1b[ %*+\-./].|\x1b(?P<escape>[0-OQ-WYZ`-~\\])"
    r"|(?P<control>[\x00-\x1a\x1c-\x1f])"
)
_UNFINISHED = re.compile(r"\x1b(?:\[[<=>?]?[0-9;:]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ #%()*+\-./])?\Z")
# DEC's special graphics: what lower-case letters draw in the character set 0.
_DRAWN = str.maketrans("`afgjklmnopqrstuvwxyz{|}~", "◆▒°±┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")
_ASCII = re.compile(r"[ -~]+")
_ALTERNATE = (47, 1047, 1049)


class Interpreter:
    """Feeds a screen. Any split of the bytes gives the same screen."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.title = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._carry = ""
        self._last = ""  # what REP repeats: the character right before it

    def feed(self, data: bytes) -> None:
        """These bytes come next. Raises LimitExceeded."""
        text = self._carry + self._decoder.decode(data)
        at = 0
        self._carry = ""
        self._spend(len(text))
        while at < len(text):
            self._spend(TOKEN_WORK)
            token = _TOKEN.match(text, at)
            if token is not None:
                self._do(token)
                at = token.end()
            elif len(text) - at < _CARRY and _UNFINISHED.match(text, at):
                self._carry = text[at:]
                return
            else:
                at += 1

    def _spend(self, work: int) -> None:
        """So much more is done. Raises LimitExceeded: four bytes may erase a million cells."""
        self.screen.work += work
        if self.screen.work > SCREEN_WORK.value:
            SCREEN_WORK.check(self.screen.work, what="what the node sends to bring a screen up")

    def _do(self, token: re.Match[str]) -> None:
        if token["text"] is None and token["final"] != "b":
            self._last = ""
        match token.lastgroup:
            case "text":
                self._text(token["text"])
            case "final":
                self._sequence(token)
            case "control":
                self._control(token["control"])
            case "escape":
                self._escape(token["escape"])
            case "which":
                self.screen.cursor.sets["()".index(token["set"])] = token["which"]
            case "sharp" if token["sharp"] == "8":
                self._align()
            case "system" if token["system"][:2] in {"0;", "2;"}:
                self.title = token["system"][2:]
            case _:
                pass

    # --- characters ---

    def _text(self, text: str) -> None:
        screen = self.screen
        if screen.cursor.sets[screen.cursor.shifted] == "0":
            text = text.translate(_DRAWN)
        self._last = text[-1]
        if text.isascii():
            screen.write(text)
            return
        for piece, width in _by_width(text):
            if width == 1:
                screen.write(piece)
            elif width == 0:
                for each in piece:
                    screen.combine(each)
            else:
                for each in piece:
                    screen.write_wide(each)

    def _control(self, control: str) -> None:
        screen = self.screen
        match control:
            case "\b":
                screen.move(screen.cursor.row, screen.cursor.column - 1)
            case "\t":
                screen.tab(1)
            case "\n" | "\v" | "\f":
                screen.index()
                if screen.newline:
                    screen.cursor.column = 0
            case "\r":
                screen.move(screen.cursor.row, 0)
            case "\x0e" | "\x0f":
                screen.cursor.shifted = control == "\x0e"
            case _:
                pass

    def _escape(self, letter: str) -> None:
        screen = self.screen
        match letter:
            case "7":
                screen.save()
            case "8":
                screen.restore()
            case "D":
                screen.index()
            case "E":
                screen.index()
                screen.cursor.column = 0
            case "M":
                screen.reverse_index()
            case "H":
                screen.tabs.add(screen.cursor.column)
            case "c":
                screen.reset()
                self.title = ""
            case _:
                pass

    def _align(self) -> None:
        screen = self.screen
        screen.top, screen.bottom = 0, screen.rows - 1
        screen.cursor = Place(sets=screen.cursor.sets)
        screen.work += screen.rows * screen.columns
        for line in screen.lines:
            line[:] = [("E", screen.cursor.pen)] * screen.columns

    # --- control sequences ---

    def _sequence(self, token: re.Match[str]) -> None:
        private, between, final = token["private"], token["between"], token["final"]
        text = token["numbers"]
        if len(text) > _LONGEST:
            return
        if final == "m" and not private and not between:
            self.screen.cursor.pen = changed(self.screen.cursor.pen, text)
            return
        numbers = [min(int(part.partition(":")[0] or "0"), _MOST) for part in text.split(";")[:32]]
        if between == "!" and final == "p":
            self._soft_reset()
        elif between:
            return
        elif private == "?" and final in "hl":
            for number in numbers:
                self._switch(number, on=final == "h")
        elif final in ("JK" if private == "?" else "" if private else _PLAIN_SEQUENCES):
            _PLAIN_SEQUENCES[final](self, numbers)

    def _soft_reset(self) -> None:
        screen = self.screen
        screen.cursor = Place(screen.cursor.row, screen.cursor.column)
        screen.saved = None
        screen.top, screen.bottom = 0, screen.rows - 1
        screen.inserts, screen.wraps = False, True

    def _switch(self, mode: int, *, on: bool) -> None:
        screen = self.screen
        match mode:
            case 6:
                screen.cursor.origin = on
                screen.move_to(0, 0)
            case 7:
                screen.wraps = on
            case 1048:
                (screen.save if on else screen.restore)()
            case _ if mode in _ALTERNATE and on:
                if mode == 1049 and screen.behind is None:  # its name everywhere
                    screen.save()
                screen.show_alternate(clear=mode == 1049)
            case _ if mode in _ALTERNATE and screen.behind is not None:
                screen.show_normal()
                if mode == 1049:
                    screen.restore()
            case _:
                pass

    def _ansi_mode(self, numbers: list[int], *, on: bool) -> None:
        if 4 in numbers:  # IRM
            self.screen.inserts = on
        if 20 in numbers:  # LNM
            self.screen.newline = on

    def _repeat(self, count: int) -> None:
        if self._last:
            self._text(self._last * min(count, self.screen.columns * self.screen.rows))

    def _erase_display(self, what: int) -> None:
        screen = self.screen
        row = screen.cursor.row
        if what == 0:
            self._erase_line(0)
            screen.erase_rows(row + 1, screen.rows)
        elif what == 1:
            screen.erase_rows(0, row)
            self._erase_line(1)
        elif what == 2:
            screen.erase_rows(0, screen.rows)
        elif what == 3:  # xterm: what has scrolled away
            screen.history.clear()

    def _erase_line(self, what: int) -> None:
        column = self.screen.cursor.column
        first, end = {0: (column, self.screen.columns), 1: (0, column + 1)}.get(what, (0, self.screen.columns))
        self.screen.erase_cells(first, end)

    def _clear_tabs(self, what: int) -> None:
        if what == 0:
            self.screen.tabs.discard(self.screen.cursor.column)
        elif what == 3:
            self.screen.tabs.clear()


def _count(act: Callable[[Interpreter, int], object]) -> Callable[[Interpreter, list[int]], object]:
    """For sequences with one count, 1 when it is left out."""
    return lambda self, numbers: act(self, numbers[0] or 1)


def _position(self: Interpreter, numbers: list[int]) -> None:
    row, column = numbers[0], numbers[1] if len(numbers) > 1 else 0
    self.screen.move_to((row or 1) - 1, (column or 1) - 1)


def _margins(self: Interpreter, numbers: list[int]) -> None:
    bottom = numbers[1] if len(numbers) > 1 else 0
    self.screen.margins((numbers[0] or 1) - 1, (bottom or self.screen.rows) - 1)


def _line(self: Interpreter, count: int) -> None:
    self.screen.down(count) if count > 0 else self.screen.up(-count)
    self.screen.move(self.screen.cursor.row, 0)


def _column(self: Interpreter, number: int) -> None:
    self.screen.move(self.screen.cursor.row, number - 1)


_PLAIN_SEQUENCES: dict[str, Callable[[Interpreter, list[int]], object]] = {
    "@": _count(lambda self, n: self.screen.insert_cells(n)),
    "A": _count(lambda self, n: self.screen.up(n)),
    "B": _count(lambda self, n: self.screen.down(n)),
    "C": _count(lambda self, n: self.screen.move(self.screen.cursor.row, self.screen.cursor.column + n)),
    "D": _count(lambda self, n: self.screen.move(self.screen.cursor.row, self.screen.cursor.column - n)),
    "E": _count(_line),
    "F": _count(lambda self, n: _line(self, -n)),
    "G": _count(_column),
    "H": _position,
    "I": _count(lambda self, n: self.screen.tab(n)),
    "J": lambda self, numbers: self._erase_display(numbers[0]),
    "K": lambda self, numbers: self._erase_line(numbers[0]),
    "L": _count(lambda self, n: self.screen.insert_lines(n)),
    "M": _count(lambda self, n: self.screen.delete_lines(n)),
    "P": _count(lambda self, n: self.screen.delete_cells(n)),
    "S": _count(lambda self, n: self.screen.scroll_up(n)),
    "T": lambda self, numbers: self.screen.scroll_down(numbers[0] or 1) if len(numbers) == 1 else None,
    "X": _count(lambda self, n: self.screen.erase_cells(self.screen.cursor.column, self.screen.cursor.column + n)),
    "Z": _count(lambda self, n: self.screen.tab(-n)),
    "`": _count(_column),
    "a": _count(lambda self, n: self.screen.move(self.screen.cursor.row, self.screen.cursor.column + n)),
    "b": _count(lambda self, n: self._repeat(n)),
    "d": _count(lambda self, n: self.screen.move_to(n - 1, self.screen.cursor.column)),
    "e": _count(lambda self, n: self.screen.down(n)),
    "f": _position,
    "g": lambda self, numbers: self._clear_tabs(numbers[0]),
    "h": lambda self, numbers: self._ansi_mode(numbers, on=True),
    "l": lambda self, numbers: self._ansi_mode(numbers, on=False),
    "r": _margins,
    "s": lambda self, _: self.screen.save(),
    "u": lambda self, _: self.screen.restore(),
}


def _by_width(text: str) -> list[tuple[str, int]]:
    """Neighbours of the same width together."""
    pieces: list[tuple[str, int]] = []
    at = 0
    while at < len(text):
        plain = _ASCII.match(text, at)
        if plain is not None:
            pieces.append((plain.group(), 1))
            at = plain.end()
            continue
        width = _width(text[at])
        end = at + 1
        while end < len(text) and text[end] > "~" and _width(text[end]) == width:
            end += 1
        pieces.append((text[at:end], width))
        at = end
    return pieces


@lru_cache(maxsize=8192)
def _width(character: str) -> int:
    """Columns of a character (Unicode's East Asian width; UAX 11)."""
    if unicodedata.category(character) in {"Mn", "Me", "Cf"}:
        return 0 if character != "\xad" else 1
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
