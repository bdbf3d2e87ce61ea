"""The screen: rows of cells, a cursor, margins, the alternate screen. What each operation does is in xterm's control
sequences (ctlseqs) and ECMA-48; rows and columns count from 0 here. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from towline.cli.terminal.pens import PLAIN, Pen

Cell = tuple[str, Pen]  # a character with what is combined with it; "" is the right half of a wide one
Row = list[Cell]
BLANK: Cell = (" ", PLAIN)
HISTORY_ROWS = 1000  # that have left the normal screen and go into the newcomer's own history
TAB = 8
# What is beside the copying of cells, in cells of the same time (some nanoseconds).
_CHARACTER_WORK = 30
_ROW_WORK = 200
TOKEN_WORK = 500


@dataclass(slots=True)
class Place:
    """A cursor with what is saved beside it (DECSC). `full`: the last column is written, the next one wraps."""

    row: int = 0
    column: int = 0
    pen: Pen = PLAIN
    origin: bool = False
    full: bool = False
    sets: list[str] = field(default_factory=lambda: ["B", "B"])  # G0 and G1: B is ASCII, 0 draws lines
    shifted: bool = False


class Screen:
    """`rows` × `columns` cells in `lines`; `behind` are the normal screen's while the alternate one is shown."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.work = 0  # what has been done: cells that were made or moved, and as much as that many cost beside
        self.history: deque[Row] = deque(maxlen=HISTORY_ROWS)
        self.reset()

    def __repr__(self) -> str:
        return f"<Screen {self.rows}x{self.columns} {'alternate ' if self.behind else ''}at {self.cursor}>"

    def reset(self) -> None:
        """As a terminal is switched on (RIS)."""
        self.lines: list[Row] = [self.blank() for _ in range(self.rows)]
        self.behind: list[Row] | None = None
        self.cursor, self.saved, self.behind_saved = Place(), None, None
        self.behind_cursor = Place()
        self.top, self.bottom = 0, self.rows - 1
        self.wraps, self.inserts, self.newline = True, False, False
        self.tabs = set(range(TAB, self.columns, TAB))

    saved: Place | None
    behind_saved: Place | None

    def blank(self) -> Row:
        """An empty row."""
        self.work += self.columns + _ROW_WORK
        return [BLANK] * self.columns

    def erased_row(self) -> Row:
        """A row that is erased now."""
        self.work += self.columns + _ROW_WORK
        return [(" ", self.cursor.pen.erased)] * self.columns

    # --- the cursor ---

    def move(self, row: int, column: int) -> None:
        """Absolute, inside the screen."""
        self.cursor.row = min(max(row, 0), self.rows - 1)
        self.cursor.column = min(max(column, 0), self.columns - 1)
        self.cursor.full = False

    def move_to(self, row: int, column: int) -> None:
        """As CUP says it: within the margins in origin mode."""
        if self.cursor.origin:
            self.move(min(row + self.top, self.bottom), column)
        else:
            self.move(row, column)

    def up(self, count: int) -> None:
        """Not over the upper margin when it begins below it."""
        least = self.top if self.cursor.row >= self.top else 0
        self.move(max(self.cursor.row - count, least), self.cursor.column)

    def down(self, count: int) -> None:
        """Not over the lower margin when it begins above it."""
        most = self.bottom if self.cursor.row <= self.bottom else self.rows - 1
        self.move(min(self.cursor.row + count, most), self.cursor.column)

    def index(self) -> None:
        """A line down; at the lower margin the region scrolls."""
        self.cursor.full = False
        if self.cursor.row == self.bottom:
            self.scroll_up(1)
        elif self.cursor.row < self.rows - 1:
            self.cursor.row += 1

    def reverse_index(self) -> None:
        """A line up; at the upper margin the region scrolls."""
        self.cursor.full = False
        if self.cursor.row == self.top:
            self.scroll_down(1)
        elif self.cursor.row > 0:
            self.cursor.row -= 1

    def tab(self, count: int) -> None:
        """To the next stop, or (count below 0) the one before."""
        column = self.cursor.column
        self.work += len(self.tabs) * _CHARACTER_WORK
        if count > 0:
            stops = sorted(stop for stop in self.tabs if stop > column)
        else:
            stops = sorted((stop for stop in self.tabs if stop < column), reverse=True)
        edge = self.columns - 1 if count > 0 else 0
        self.move(self.cursor.row, stops[abs(count) - 1] if abs(count) <= len(stops) else edge)

    def margins(self, top: int, bottom: int) -> None:
        """The region that scrolls; the cursor goes home."""
        bottom = min(bottom, self.rows - 1)
        if 0 <= top < bottom:
            self.top, self.bottom = top, bottom
            self.move_to(0, 0)

    # --- scrolling and editing ---

    def scroll_up(self, count: int) -> None:
        """The region's upper rows leave it."""
        for _ in range(min(count, self.bottom - self.top + 1)):
            gone = self.lines.pop(self.top)
            if self.top == 0 and self.behind is None:
                self.history.append(gone)
            self.lines.insert(self.bottom, self.erased_row())

    def scroll_down(self, count: int) -> None:
        """The region's lower rows leave it."""
        for _ in range(min(count, self.bottom - self.top + 1)):
            self.lines.pop(self.bottom)
            self.lines.insert(self.top, self.erased_row())

    def insert_lines(self, count: int) -> None:
        """Below them the region scrolls down."""
        if self.top <= self.cursor.row <= self.bottom:
            for _ in range(min(count, self.bottom - self.cursor.row + 1)):
                self.lines.pop(self.bottom)
                self.lines.insert(self.cursor.row, self.erased_row())
            self.move(self.cursor.row, 0)

    def delete_lines(self, count: int) -> None:
        """Below them the region scrolls up."""
        if self.top <= self.cursor.row <= self.bottom:
            for _ in range(min(count, self.bottom - self.cursor.row + 1)):
                self.lines.pop(self.cursor.row)
                self.lines.insert(self.bottom, self.erased_row())
            self.move(self.cursor.row, 0)

    def insert_cells(self, count: int) -> None:
        """The rest of the row moves to the right."""
        line, at = self.lines[self.cursor.row], self.cursor.column
        self.work += self.columns
        self._halve(line, at)
        line[at:at] = [(" ", self.cursor.pen.erased)] * min(count, self.columns - at)
        self._cut(line)
        self.cursor.full = False

    def delete_cells(self, count: int) -> None:
        """The rest of the row moves to the left."""
        line, at = self.lines[self.cursor.row], self.cursor.column
        count = min(count, self.columns - at)
        self.work += self.columns
        self._halve(line, at)
        self._halve(line, at + count)
        del line[at : at + count]
        line += [(" ", self.cursor.pen.erased)] * count
        self.cursor.full = False

    def erase_cells(self, first: int, end: int) -> None:
        """Columns of the cursor's row."""
        line, end = self.lines[self.cursor.row], min(end, self.columns)
        self.work += self.columns
        self._halve(line, first)
        self._halve(line, end)
        line[first:end] = [(" ", self.cursor.pen.erased)] * (end - first)
        self.cursor.full = False

    def erase_rows(self, first: int, end: int) -> None:
        """Whole rows."""
        self.lines[first:end] = [self.erased_row() for _ in range(end - first)]
        self.cursor.full = False

    # --- writing ---

    def write(self, text: str) -> None:
        """Characters of one column each."""
        at = 0
        while at < len(text):
            self._wrap(1)
            place, line = self.cursor, self.lines[self.cursor.row]
            piece = text[at : at + self.columns - place.column]
            if not self.wraps and place.column + len(piece) == self.columns and at + len(piece) < len(text):
                piece = piece[:-1] + text[-1]  # all that follow are written over each other
                at = len(text) - len(piece)
            end = place.column + len(piece)
            pen = place.pen
            self.work += len(piece) * _CHARACTER_WORK + _ROW_WORK
            if self.inserts:
                self.insert_cells(len(piece))
            else:
                self._halve(line, place.column)
                self._halve(line, end)
            line[place.column : end] = [(each, pen) for each in piece]
            at += len(piece)
            place.full = end == self.columns
            place.column = min(end, self.columns - 1)

    def write_wide(self, character: str) -> None:
        """A character of two columns."""
        self.work += TOKEN_WORK
        if self.columns < 2:
            return
        self._wrap(2)
        place = self.cursor
        line, column = self.lines[place.row], min(place.column, self.columns - 2)
        if self.inserts:
            place.column = column
            self.insert_cells(2)
        else:
            self._halve(line, column)
            self._halve(line, column + 2)
        line[column : column + 2] = [(character, place.pen), ("", place.pen)]
        place.full = column + 2 == self.columns
        place.column = min(column + 2, self.columns - 1)

    def combine(self, character: str) -> None:
        """With the character before the cursor."""
        self.work += TOKEN_WORK
        line = self.lines[self.cursor.row]
        at = self.cursor.column if self.cursor.full else self.cursor.column - 1
        if at > 0 and not line[at][0]:
            at -= 1
        if at >= 0 and len(line[at][0]) < 16:  # a cell is not a place to keep things
            line[at] = (line[at][0] + character, line[at][1])

    def _wrap(self, width: int) -> None:
        """Go on in the next row when there is no room for so many columns."""
        if self.wraps and (self.cursor.full or self.cursor.column + width > self.columns):
            self.index()
            self.cursor.column = 0
        self.cursor.full = False

    def _halve(self, line: Row, at: int) -> None:
        """What is a wide character across this boundary is none any more."""
        if 0 < at < len(line) and not line[at][0]:
            line[at - 1] = line[at] = BLANK

    def _cut(self, line: Row) -> None:
        self._halve(line, self.columns)
        del line[self.columns :]

    # --- the other screen, other sizes ---

    def save(self) -> None:
        """Remember the cursor (DECSC)."""
        self.saved = _copy(self.cursor)

    def restore(self) -> None:
        """Back to where it was remembered (DECRC)."""
        self.cursor = _copy(self.saved or Place())
        self.move(self.cursor.row, self.cursor.column)

    def show_alternate(self, *, clear: bool = True) -> None:
        """The normal screen is kept behind it. Its content is not: nobody counts on what it had before."""
        if self.behind is None:
            self.behind, self.behind_cursor = self.lines, _copy(self.cursor)
            self.behind_saved, self.saved = self.saved, None
            self.lines = [self.blank() for _ in range(self.rows)]
        if clear:
            self.erase_rows(0, self.rows)

    def show_normal(self) -> None:
        """The alternate screen is gone."""
        if self.behind is not None:
            self.lines, self.behind = self.behind, None
            self.saved = self.behind_saved

    def resize(self, rows: int, columns: int) -> None:
        """Rows below the cursor go first, then upper ones; nothing is wrapped anew: the program is told, too."""
        if (rows, columns) == (self.rows, self.columns):
            return
        self.rows, self.columns = rows, columns
        self.tabs = {stop for stop in self.tabs if stop < columns} | set(range(TAB, columns, TAB))
        self.top, self.bottom = 0, rows - 1
        if self.behind is not None:
            self._fit(self.behind, self.behind_cursor, keep=True)
        self._fit(self.lines, self.cursor, keep=self.behind is None)
        self.move(self.cursor.row, self.cursor.column)
        for saved in (self.saved, self.behind_saved):
            if saved is not None:
                saved.row, saved.column = min(saved.row, rows - 1), min(saved.column, columns - 1)

    def _fit(self, lines: list[Row], place: Place, *, keep: bool) -> None:
        self.work += (len(lines) + self.rows) * (self.columns + _ROW_WORK)
        del lines[max(place.row + 1, self.rows) :]
        over = len(lines) - self.rows
        if over > 0:
            if keep:
                self.history.extend(lines[:over])
            del lines[:over]
            place.row -= over
        lines += [[] for _ in range(self.rows - len(lines))]
        for line in lines:
            line.extend([BLANK] * (self.columns - len(line)))
            self._cut(line)
        place.column, place.full = min(place.column, self.columns - 1), False


def _copy(place: Place) -> Place:
    return Place(place.row, place.column, place.pen, place.origin, place.full, list(place.sets), place.shifted)
