"""A fresh terminal gets the job's screen: rebuilt from what was printed last, compared with a real one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.kit import Place
from tests.jobs.terminals import Make, Terminal, job_of, needs
from tests.kit import finished, run

from towline.base.errors import LimitExceeded, PeerError
from towline.cli.terminal import parsing
from towline.cli.terminal.joining import bring_up
from towline.cli.terminal.model import Screen
from towline.cli.terminal.painting import paint
from towline.cli.terminal.parsing import SCREEN_WORK, Interpreter
from towline.cli.terminal.pens import PLAIN, changed
from towline.client.output import Chunk
from towline.client.replay import Replay
from towline.runtime.channel import Message
from towline.services.jobs.modes import Modes
from towline.services.jobs.tail import ALTERNATE_BYTES, NORMAL_BYTES, SPANS, Tail

needs_tmux = needs("tmux")

# --- what is switched on, and which records are needed ---


@given(st.lists(st.integers(0, 80), max_size=8))
def test_modes_are_found_however_the_bytes_are_split(cuts: list[int]) -> None:
    data = b"a\x1b[?1049h\x1b[?1;2004hb\x1b=\x1b[?25l\x1b[31mc\x1b[?1000h\x1b[?1000l"
    data += b"\x1b[5 q\x1b[>4;2m\x1b[>1u\x1b[>4u\x1b[<u"
    modes, at = Modes(), 0
    for cut in sorted(min(cut, len(data)) for cut in [*cuts, len(data)]):
        modes.feed(data[at:cut])
        at = cut
    assert modes.restore() == (b"\x1b[?1049h\x1b[H\x1b[2J\x1b[?1h\x1b[?25l\x1b[?2004h\x1b=\x1b[5 q\x1b[>4;2m\x1b[>1u")
    assert modes.undo() == (b"\x1b[?1l\x1b[?25h\x1b[?2004l\x1b>\x1b[0 q\x1b[>4m\x1b[<1u\x1b[?1049l\x1b[0m")
    modes.feed(b"\x1bc")
    assert modes.restore() == b""


def test_a_tail_is_what_the_two_screens_need() -> None:
    tail = Tail((24, 80))
    for seq in (2, 3):
        tail.note(seq, 10, before=False, after=seq == 3)
    assert tail.exact
    for seq in range(4, 100):
        tail.note(seq, 10, before=True, after=True)
    tail.size = (30, 80)
    tail.note(100, 10, before=True, after=True)
    assert [(span.first, span.last, span.size) for span in tail.spans()] == [(2, 99, (24, 80)), (100, 100, (30, 80))]
    for seq in range(101, 200):
        tail.note(seq, ALTERNATE_BYTES // 50, before=True, after=True)
    assert not tail.exact
    assert tail.spans()[0].last == 3  # the normal screen's are kept for when it comes back
    tail.note(200, 10, before=True, after=False)
    assert tail.exact
    for seq in range(201, 201 + SPANS + 10):
        tail.size = (24, seq)
        tail.note(seq, NORMAL_BYTES // SPANS, before=False, after=False)
    assert not tail.exact
    assert sum(span.bytes for span in tail.spans()) <= NORMAL_BYTES


# --- the model ---

SAID = (
    "one\r\n\x1b[31mred\x1b[44m on blue\x1b[K\x1b[m\r\n世界\x1b[1;38;5;208mbold\x1b[0;4:3;48;2;1;2;3m e\u0301\x1b[m"
    "\x1b[3;10r\x1b[4;1Hin\x1b[10;1H\n\n\x1b[5;5H\x1b7\x1b(0lqk\x1b(B\x1b]0;title\x07\x1bP1$r0m\x1b\\\x1b[>4;2m\x1b[c"
    "\x1b[?1049h\x1b[2;2Halternate\x1b[7mx\x1b[3b\x1b[2D\x1b[@\x1b[2Ly"
).encode()


def fed(data: bytes, rows: int = 12, columns: int = 30) -> Interpreter:
    interpreter = Interpreter(Screen(rows, columns))
    interpreter.feed(data)
    return interpreter


def state(interpreter: Interpreter) -> tuple[object, ...]:
    screen = interpreter.screen
    return screen.lines, screen.behind, screen.cursor, screen.top, screen.bottom, interpreter.title


@given(st.lists(st.integers(0, len(SAID)), max_size=12))
def test_any_split_gives_the_same_screen(cuts: list[int]) -> None:
    interpreter, at = Interpreter(Screen(12, 30)), 0
    for cut in sorted([*cuts, len(SAID)]):
        interpreter.feed(SAID[at:cut])
        at = cut
    assert state(interpreter) == state(fed(SAID))


@given(st.binary(max_size=300), st.integers(1, 30), st.integers(1, 90))
def test_whatever_comes_in_a_screen_stays_a_screen(data: bytes, rows: int, columns: int) -> None:
    interpreter = fed(SAID + data.replace(b"X", b"\x1b[").replace(b"Y", b"\x1b]"))
    interpreter.screen.resize(rows, columns)
    screen = interpreter.screen
    assert [len(line) for line in screen.lines] == [columns] * rows
    assert 0 <= screen.cursor.row < rows
    assert 0 <= screen.cursor.column < columns
    paint(interpreter, b"")


def test_numbers_without_end_change_nothing() -> None:
    for final in (b"m", b"H", b"b", b"J"):
        assert state(fed(b"abc\x1b[" + b"7" * 5000 + final)) == state(fed(b"abc"))


def test_a_node_that_sends_a_screen_without_end_is_left() -> None:
    replay = Replay()
    with pytest.raises(PeerError, match="more for a screen"):
        for _ in range(10_000):
            replay.take(Message(b"", {"screen": [24, 80]}))


@pytest.mark.parametrize(
    "said",
    [b"\x1b[2J", b"\x1b#8", b"\x1b[9999T", b"\x1b[99L", b"\n", b"a\x1b[9999b", b"\x1b[I", b"\x1bc", b"\0", b""],
)
def test_a_node_that_sends_a_screen_of_endless_work_is_left(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = [((60, 200), (b"\x1b[H\x1b[2J" + b"x" * 1000) * 500), ((24, 80), b"line\r\n" * 20_000)]
    bring_up(Replay(honest, (60, 200), b"", True), 60, 200)
    monkeypatch.setattr(parsing, "SCREEN_WORK", SCREEN_WORK._replace(value=10**7))
    parts = [((1000 - number % 2 * 999, 1000), said * 100) for number in range(10 if said else 100)]
    with pytest.raises(LimitExceeded, match="screen_work"):
        bring_up(Replay([*parts, *([((24, 80), said * 20_000)] if said else [])], (24, 80), b"", True), 24, 80)


def test_a_painted_screen_is_the_same_screen() -> None:
    for length in range(len(SAID)):
        before = fed(SAID[:length] + b"\x18")
        modes = Modes()
        modes.feed(SAID[:length])
        again = fed(paint(before, modes.restore()))
        assert again.screen.lines == before.screen.lines
        assert again.screen.behind == before.screen.behind
        assert again.screen.cursor == before.screen.cursor


def test_what_scrolled_away_comes_along() -> None:
    said = b"".join(b"line %d\r\n" % number for number in range(100))
    painted = bring_up(Replay([((10, 40), said)], (10, 40), b"", True), 10, 40)
    assert painted.index(b"line 3\r\n") < painted.index(b"line 99")
    small = bring_up(Replay([((10, 40), said + b"prompt$ ")], (10, 40), b"", True), 4, 5)
    assert fed(small, 4, 5).screen.lines[3][:4] == [(each, PLAIN) for each in "promp"[:4]]


# --- real programs: a terminal that was there all the time, and one that comes now ---


def looks(screen: str) -> list[list[tuple[str, object]]]:
    """Characters with their pens; tmux does not tell what is erased from what was never written at a row's end."""
    rows, pen = [], PLAIN
    for line in screen.split("\n"):
        cells: list[tuple[str, object]] = []
        for part in re.split(r"(\x1b\[[0-9;:]*m|[\x0e\x0f])", line):
            if part.startswith("\x1b"):
                pen = changed(pen, part[2:-1])
            elif part not in {"\x0e", "\x0f"}:
                cells += [(each, pen) for each in part]
        while cells and cells[-1][0] == " ":
            cells.pop()
        rows.append(cells)
    return rows


def same_screen(first: Terminal, second: Terminal) -> None:
    """Colours, looks, and the cursor's place."""
    first.settles(lambda: looks(first.coloured) == looks(second.coloured) and first.state == second.state)
    assert looks(first.coloured) == looks(second.coloured), (first.coloured, second.coloured)
    assert first.state == second.state


@needs_tmux
@needs("vim")
def test_a_fresh_terminal_shows_vim_exactly(place: Place, terminals: Make, tmp_path: Path) -> None:
    text = tmp_path / "text.py"
    text.write_text("".join(f"def function_{number}(): return '世界 {number}'\n" for number in range(200)))
    first = terminals("shell", "home", "--env", "PS1=here$ ", "--", "sh")
    first.shows("here$")
    first.type(f"echo before; vim -u NONE -N -c 'syntax on' -c 'set nu so=3' {text}\n")
    first.shows("function_0")
    first.type("20Gihello \x1b/function_25\nV3j")
    first.shows("hello")
    first.shows("VISUAL")
    job = job_of(place)
    viewer = terminals("shell", "home", "--attach", job, "--read-only")
    viewer.shows("VISUAL")
    same_screen(first, viewer)
    second = terminals("shell", "home", "--attach", job)
    second.shows("VISUAL")
    same_screen(first, second)
    assert "before" in second.behind
    second.type("\x1b:q!\n")
    for each in (first, second, viewer):
        each.shows("before", not_="function_")
    same_screen(second, viewer)  # what was behind the alternate screen; the first one has its own shell's lines above
    second.type("exit 3\n")
    first.shows("left with 3")


@needs_tmux
@needs("htop")
def test_a_fresh_terminal_shows_htop(place: Place, terminals: Make) -> None:
    first = terminals("shell", "home", "--", "htop", "-d", "100")  # paints every 10 s
    first.shows("F10")
    first.type("\x1b[B")
    second = terminals("shell", "home", "--attach", job_of(place), "--read-only")
    second.shows("F10")
    same_screen(first, second)
    first.type("q")
    second.shows("left with 0")


def test_what_is_too_long_ago_is_asked_for_again(own: Place) -> None:
    """More than is kept in mind was printed on the alternate screen: the program is told of another size and back."""

    async def scenario() -> None:
        script = (
            "trap 'echo painted' WINCH; printf '\\033[?1049h'; yes | head -c 1000000;"
            " echo enough; while :; do sleep 0.05; done"
        )
        async with own.line() as line:
            job = await line.start(["sh", "-c", script], size=(24, 80))
            async for item in job.output():
                if isinstance(item, Chunk) and b"enough" in item.data:
                    break
            output = line.job(job.id, terminal=True).output(-1, screen=True)
            first = await finished(anext(output))
            assert isinstance(first, Chunk)
            assert first.screen is not None
            assert not first.screen.exact
            assert first.screen.modes.startswith(b"\x1b[?1049h")
            assert 0 < sum(len(data) for _, data in first.screen.parts) < 1_000_000
            async for item in output:
                if isinstance(item, Chunk) and b"painted" in item.data:
                    break
            await job.signal("KILL")

    run(scenario())


@pytest.mark.parametrize("sizes", [((24, 80), (10, 40), (24, 80)), ((5, 200), (50, 20))])
def test_a_terminal_that_was_resized(sizes: list[tuple[int, int]]) -> None:
    parts = [(size, b"at %d,%d\r\n" % size) for size in sizes]
    painted = bring_up(Replay(parts, sizes[-1], b"", True), 24, 80)
    text = "\n".join(
        "".join(character for character, _ in line).rstrip() for line in fed(painted, 24, 80).screen.lines
    )
    assert all(f"at {rows},{columns}" in text for rows, columns in sizes)
