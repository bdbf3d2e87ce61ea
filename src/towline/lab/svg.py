"""A recording as a picture: one ladder a scene, two life lines, and a ribbon from every send to the recv that
got its bytes.

Our own plain SVG 1.1: no script, no outside fonts or links; dark or light by the viewer's preference. Everything
that came from a socket is escaped.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from towline.lab import ladder as ladders
from towline.lab.ladder import Ladder, Line, Piece
from towline.lab.recording import Recording, Scene, Table
from towline.lab.texts import pick
from towline.lab.wrapping import column_widths, columns, wrap

_WIDTH = 960
_GLYPH = 7.25  # width of one column at 12 px; monospaced
_LEFT, _RIGHT = 390, 560  # x of the life lines
_ROW, _CHIP = 18, 20
_MARGIN = 24
_TIME_COLUMN = 84
_COLOURS = 6

_STYLE = """
  .ground { fill: #ffffff }
  text { font: 12px ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 700 } .scene { font-size: 13px; font-weight: 700 }
  .dim { fill: #6e7781 } .bad { fill: #cf222e; font-weight: 700 } .say { fill: #8250df }
  .state { fill: #0969da; font-weight: 700 }
  .life { stroke: #8c959f; stroke-width: 1.5 } .wire { stroke: #afb8c1; stroke-width: 1 } .wire-end { fill: #afb8c1 }
  .halo { paint-order: stroke; stroke: #ffffff; stroke-width: 4; stroke-opacity: 0.8 }
  .c0 { fill: #0969da; stroke: #0969da } .c1 { fill: #1a7f37; stroke: #1a7f37 } .c2 { fill: #8250df; stroke: #8250df }
  .c3 { fill: #0e7490; stroke: #0e7490 } .c4 { fill: #bc4c00; stroke: #bc4c00 } .c5 { fill: #bf3989; stroke: #bf3989 }
  .chip { stroke: none } text.chip { fill: #ffffff; font-weight: 600 }
  .ribbon { fill: none; stroke-width: 4; stroke-opacity: 0.45; stroke-linecap: round }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117 } text { fill: #e6edf3 } .dim { fill: #8b949e } .halo { stroke: #0d1117 }
    .bad { fill: #ff7b72 } .say { fill: #d2a8ff } .state { fill: #79c0ff }
    .life { stroke: #6e7681 } .wire { stroke: #484f58 } .wire-end { fill: #484f58 }
    .ribbon { stroke-opacity: 0.8 }
  }
"""


def draw(recording: Recording, lang: str) -> str:
    """The whole recording as one SVG document."""
    page = _Page()
    page.text(_MARGIN, 34, recording.name, "title")
    y = 56.0
    for scene in recording.scenes:
        y = _scene(page, scene, y, lang)
    return page.document(y + 8)


class _Page:
    """Collects elements in three sheets: ribbons lie under life lines and texts."""

    def __init__(self) -> None:
        self.under: list[str] = []
        self.over: list[str] = []

    def text(self, x: float, y: float, text: str, style: str = "", *, anchor: str = "start") -> None:
        where = f' text-anchor="{anchor}"' if anchor != "start" else ""
        named = f' class="{style}"' if style else ""
        self.over.append(f'<text x="{x:.1f}" y="{y:.1f}"{named}{where} xml:space="preserve">{_safe(text)}</text>')

    def chip(self, x: float, y: float, text: str, colour: int) -> float:
        """Draw a message's chip and return its width in px."""
        width = columns(text) * _GLYPH + 10
        shape = f'x="{x:.1f}" y="{y - 13:.1f}" width="{width:.1f}" height="17" rx="4"'
        self.over.append(f'<rect class="chip c{colour % _COLOURS}" {shape}/>')
        self.text(x + 5, y, text, "chip")
        return width

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.under.append(f'<line class="{style}" {where}/>')

    def ribbon(self, x1: float, y1: float, x2: float, y2: float, colour: int) -> None:
        middle = (x1 + x2) / 2
        path = f"M {x1:.1f} {y1:.1f} C {middle:.1f} {y1:.1f}, {middle:.1f} {y2:.1f}, {x2:.1f} {y2:.1f}"
        self.under.append(f'<path class="ribbon c{colour % _COLOURS}" style="fill:none" d="{path}"/>')

    def arrow(self, x1: float, y: float, x2: float) -> None:
        self.line(x1, y, x2, y, "wire")
        back = -6 if x2 > x1 else 6
        points = f"{x2:.1f},{y:.1f} {x2 + back:.1f},{y - 3.5:.1f} {x2 + back:.1f},{y + 3.5:.1f}"
        self.under.append(f'<polygon class="wire-end" points="{points}"/>')

    def document(self, height: float) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:.0f}"'
        box = f'viewBox="0 0 {_WIDTH} {height:.0f}" role="img">'
        ground = f'<rect class="ground" width="{_WIDTH}" height="{height:.0f}" rx="8"/>'
        return "\n".join([f"{head} {box}", f"<style>{_STYLE}</style>", ground, *self.under, *self.over, "</svg>", ""])


def _scene(page: _Page, scene: Scene, y: float, lang: str) -> float:
    y += 14
    page.text(_MARGIN, y, pick(scene.title, lang), "scene")
    y += 24
    if scene.events:
        y = _ladder(page, ladders.build(scene, lang), y)
    for table in scene.tables:
        y = _table(page, table, y + 4, lang)
    if scene.note:
        for line in wrap("※ " + pick(scene.note, lang), 120):
            page.text(_MARGIN, y, line, "dim")
            y += _ROW
    return y


def _ladder(page: _Page, ladder: Ladder, y: float) -> float:
    page.text(_TIME_COLUMN - 8, y, "ms", "dim", anchor="end")
    page.text(_LEFT - 12, y, ladder.left, "scene", anchor="end")
    page.text(_RIGHT + 12, y, ladder.right, "scene")
    top = y + 8
    y += 26
    rows: list[tuple[float, str]] = []  # where each line stands, for the ribbons
    for line in ladder.lines:
        rows.append((y, line.side))
        for number, (origin, colour) in enumerate(line.origins):
            from_y, from_side = rows[origin]
            step = min(5, 20 / len(line.origins))
            spread = (number - (len(line.origins) - 1) / 2) * step
            page.ribbon(_life(from_side), from_y - 4, _life(line.side), y - 4 + spread, colour)
        page.text(_TIME_COLUMN - 8, y, f"{line.at * 1000:.2f}", "dim", anchor="end")
        y = _line(page, line, y)
    page.line(_LEFT, top, _LEFT, y - 8, "life")
    page.line(_RIGHT, top, _RIGHT, y - 8, "life")
    return y + 6


def _life(side: str) -> float:
    return _LEFT if side == "left" else _RIGHT


def _line(page: _Page, line: Line, y: float) -> float:
    if line.kind == "segment":
        there = _RIGHT if line.side == "left" else _LEFT
        page.arrow(_life(line.side), y - 4, there)
        page.text((_LEFT + _RIGHT) / 2, y - 7, line.head, "dim halo", anchor="middle")
        return y + _ROW
    if line.kind == "state":
        if line.side == "left" and line.head:
            page.text(_LEFT - 12, y, f"[{line.head}]", "state", anchor="end")
        if line.other:
            page.text(_RIGHT + 12, y, f"[{line.other}]", "state")
        return y + _ROW
    if line.kind == "frame":
        page.arrow(_life(line.side), y - 4, _RIGHT if line.side == "left" else _LEFT)
    room = int(((_LEFT - _TIME_COLUMN) if line.side == "left" else (_WIDTH - _RIGHT - _MARGIN)) / _GLYPH) - 3
    style = "bad" if line.failed else {"remark": "say", "frame": "state"}.get(line.kind, "")
    for text in wrap(line.head, room):
        _beside(page, line.side, y, text, style)
        y += _ROW
    y = _chips(page, line, y, room)
    for sentence in line.evidence:
        mark, said = ("", "dim") if line.kind == "frame" else ("↳ ", "say")
        for text in wrap(mark + sentence, room):
            _beside(page, line.side, y, text, said)
            y += _ROW
    return y + 2


def _beside(page: _Page, side: str, y: float, text: str, style: str) -> None:
    if side == "left":
        page.text(_LEFT - 12, y, text, style, anchor="end")
    else:
        page.text(_RIGHT + 12, y, text, style)


def _chips(page: _Page, line: Line, y: float, room: int) -> float:
    for row in _rows_of_chips(line.pieces, room):
        total = sum(columns(piece.caption) * _GLYPH + 14 for piece in row) - 4
        x = _LEFT - 12 - total if line.side == "left" else _RIGHT + 12
        for piece in row:
            x += page.chip(x, y, piece.caption, piece.message.colour) + 4
        y += _CHIP
    return y


def _rows_of_chips(pieces: tuple[Piece, ...], room: int) -> list[list[Piece]]:
    rows: list[list[Piece]] = []
    used = 0
    for piece in pieces:
        size = columns(piece.caption) + 2
        if not rows or used + size > room:
            rows.append([])
            used = 0
        rows[-1].append(piece)
        used += size
    return rows


def _table(page: _Page, table: Table, y: float, lang: str) -> float:
    cells = [[pick(column, lang) for column in table.columns]]
    cells += [[cell if isinstance(cell, str) else pick(cell, lang) for cell in row] for row in table.rows]
    page.text(_MARGIN, y, pick(table.title, lang), "scene")
    y += _ROW + 2
    widths = column_widths(cells, int((_WIDTH - 2 * _MARGIN) / _GLYPH))
    for number, row in enumerate(cells):
        broken = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        x = float(_MARGIN)
        for lines, width in zip(broken, widths, strict=True):
            for depth, text in enumerate(lines):
                page.text(x, y + depth * _ROW, text, "dim" if number == 0 else "")
            x += (width + 2) * _GLYPH
        y += max(map(len, broken)) * _ROW
    return y + 8


def _safe(text: str) -> str:
    # XML 1.0 has no way to write most control characters.
    return escape("".join(char if char.isprintable() or char == "\u00a0" else "\ufffd" for char in text))
