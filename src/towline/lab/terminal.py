"""A ladder and an exhibit, painted in a terminal with Rich: 80 columns, dark or light, plain when piped.

Colour is never the only sign: every chip has its message's letter.
"""

from __future__ import annotations

from typing import TextIO

from rich.console import Console
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text as RichText

from towline.lab import ladder as ladders
from towline.lab.exhibit import Exhibit
from towline.lab.ladder import Ladder, Line
from towline.lab.recording import Recording, Table
from towline.lab.texts import Text, pick
from towline.lab.wrapping import Span, column_widths, columns, wrap, wrap_spans

# Foreground and background are both set, so that a chip reads the same on a dark and on a light ground.
_CHIPS = ("white on blue", "black on green", "white on magenta", "black on cyan", "white on red", "black on yellow")
_TIME = 9
_LABEL = 11
_WIDEST = 110

_WORDS: dict[str, Text] = {
    "question": {"en": "Question", "zh": "问题"},
    "setup": {"en": "Set-up", "zh": "做法"},
    "look": {"en": "Look at", "zh": "看点"},
    "verdict": {"en": "Shown", "zh": "结论"},
    "ms": {"en": "ms", "zh": "毫秒"},
    "code": {"en": "The code that ran", "zh": "运行的代码"},
    "no-segments": {
        "en": "Segments are not shown: this process may not open a packet socket.",
        "zh": "没有显示报文段：本进程无权打开 packet 套接字。",
    },
}


class _Screen(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # Rich would end the process by itself, with a status that says something else


def console(file: TextIO | None = None, *, width: int | None = None) -> Console:
    """A console on `file` (default: standard output) that is never wider than is good to read.

    Printing on it raises OSError where that cannot be done, BrokenPipeError where the reader has left.
    """
    made = _Screen(file=file, highlight=False, width=width, soft_wrap=False)
    if width is None and made.width > _WIDEST:
        made = _Screen(file=file, highlight=False, width=_WIDEST)
    return made


def paint(out: Console, shown: Exhibit, recording: Recording, lang: str) -> None:
    """A whole exhibit but its verdict: texts, ladders, tables."""
    out.print(
        Rule(RichText(f"{recording.name} · {pick(shown.TITLE, lang)}", style="bold"), align="left", characters="━")
    )
    _paragraph(out, "question", shown.QUESTION, lang)
    _paragraph(out, "setup", shown.SETUP, lang)
    paint_scenes(out, recording, lang)
    out.print()
    _paragraph(out, "look", shown.LOOK, lang)


def paint_scenes(out: Console, recording: Recording, lang: str) -> None:
    """The ladders and tables of a recording."""
    for scene in recording.scenes:
        out.print()
        if scene.events:
            paint_ladder(out, ladders.build(scene, lang), lang)
        else:
            out.print(RichText("▍ " + pick(scene.title, lang), style="bold"))
        for table in scene.tables:
            paint_table(out, table, lang)
        if scene.note:
            _note(out, pick(scene.note, lang))
    tcp = any(event.kernel for scene in recording.scenes for event in scene.events)
    if tcp and not recording.segments_shown:
        _note(out, pick(_WORDS["no-segments"], lang))


def paint_verdict(out: Console, text: Text, lang: str) -> None:
    """What the recording proved."""
    _labelled(out, "✓ " + pick(_WORDS["verdict"], lang), "bold green", pick(text, lang))


def paint_code(out: Console, source: str, lang: str) -> None:
    """The exhibit's own code, coloured in a terminal."""
    out.print()
    out.print(RichText("▍ " + pick(_WORDS["code"], lang), style="bold"))
    if out.is_terminal:
        out.print(Syntax(source, "python", theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        out.file.write(source + "\n")


def paint_ladder(out: Console, ladder: Ladder, lang: str) -> None:
    """One ladder: time, left column, right column."""
    left = (out.width - _TIME - 5) // 2
    right = out.width - _TIME - 5 - left
    out.print(RichText("▍ " + ladder.title, style="bold"))
    unit = pick(_WORDS["ms"], lang)
    head = " " * (_TIME - 1 - columns(unit)) + unit + " "
    _row(out, head, [(ladder.left, "bold")], [(ladder.right, "bold")], left, right)
    for line in ladder.lines:
        _paint_line(out, line, left, right)


def paint_table(out: Console, table: Table, lang: str) -> None:
    """A small table of facts."""
    cells = [[pick(column, lang) for column in table.columns]]
    cells += [[cell if isinstance(cell, str) else pick(cell, lang) for cell in row] for row in table.rows]
    widths = column_widths(cells, out.width - 4)
    out.print()
    out.print(RichText("  " + pick(table.title, lang), style="bold"), no_wrap=True, crop=True)
    for number, row in enumerate(cells):
        broken = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
        for depth in range(max(map(len, broken))):
            line = "  "
            for part, width in zip(broken, widths, strict=True):
                text = part[depth] if depth < len(part) else ""
                line += text + " " * (width - columns(text) + 2)
            out.print(RichText(line.rstrip(), style="dim" if number == 0 else ""), no_wrap=True, crop=True)


def _paint_line(out: Console, line: Line, left: int, right: int) -> None:
    stamp = f"{line.at * 1000:8.2f} "
    if line.kind == "segment":
        out.print(RichText(stamp) + _arrow(line, left, right), no_wrap=True, crop=True)
        return
    if line.kind == "state":
        here = line.head if line.side == "left" else ""
        _row(out, stamp, _bracketed(here), _bracketed(line.other), left, right)
        return
    cell = _frame(line) if line.kind == "frame" else _cell(line)
    _row(out, stamp, *((cell, []) if line.side == "left" else ([], cell)), left, right)


def _frame(line: Line) -> list[Span]:
    arrow = line.head + " ─▶" if line.side == "left" else "◀─ " + line.head
    return [(arrow, "bold blue"), *(("\n" + words, "") for words in line.evidence)]


def _cell(line: Line) -> list[Span]:
    if line.kind == "remark":
        return [("· " + line.head, "italic")]
    cell = [(line.head, "bold red" if line.failed else "")]
    for piece in line.pieces:
        cell += [(" ", ""), (piece.caption, _CHIPS[piece.message.colour % len(_CHIPS)])]
    for sentence in line.evidence:
        cell.append(("\n↳ " + sentence, "magenta"))
    return cell


def _bracketed(state: str) -> list[Span]:
    return [(f"[{state}]", "bold cyan")] if state else []


def _arrow(line: Line, left: int, right: int) -> RichText:
    label = line.head
    if line.side == "left":
        text = "│ " + " " * 4 + label + " " + "─" * max(left - len(label) - 4, 0) + "┼─▶"
    else:
        text = "│ " + " " * (left - 2) + "◀─" + "─┼" + "─" * max(right - len(label) - 6, 0) + " " + label
    return RichText(text, style="dim")


def _row(out: Console, stamp: str, one: list[Span], two: list[Span], left: int, right: int) -> None:
    lefts, rights = wrap_spans(one, left, _CHIPS), wrap_spans(two, right, _CHIPS)
    for number in range(max(len(lefts), len(rights))):
        near = lefts[number] if number < len(lefts) else []
        far = rights[number] if number < len(rights) else []
        row = RichText(stamp if number == 0 else " " * _TIME, style="").append("│ ", style="dim")
        for text, style in near:
            row.append(text, style=style)
        row.append(" " * (left - sum(columns(text) for text, _ in near)))
        row.append(" │ ", style="dim")
        for text, style in far:
            row.append(text, style=style)
        row.rstrip()
        out.print(row, no_wrap=True, crop=True)


def _paragraph(out: Console, word: str, text: Text, lang: str) -> None:
    _labelled(out, pick(_WORDS[word], lang), "bold", pick(text, lang))


def _labelled(out: Console, label: str, style: str, text: str) -> None:
    for number, line in enumerate(wrap(text, out.width - _LABEL)):
        head = RichText(label if number == 0 else "", style=style)
        head.append(" " * (_LABEL - columns(label if number == 0 else "")))
        out.print(head.append(line, style="not bold default"), no_wrap=True, crop=True)


def _note(out: Console, text: str) -> None:
    for number, line in enumerate(wrap(text, out.width - 4)):
        out.print(RichText(("  ※ " if number == 0 else "    ") + line, style="italic"), no_wrap=True, crop=True)
