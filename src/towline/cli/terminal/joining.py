"""A newcomer's terminal: from what a job printed last to what is to be written to it."""

from __future__ import annotations

from towline.cli.terminal.model import Screen
from towline.cli.terminal.painting import paint
from towline.cli.terminal.parsing import Interpreter
from towline.client.replay import Replay
from towline.services.jobs.modes import Modes

_MOST = 1000  # rows and columns; a peer's numbers must not cost memory without end


def bring_up(replay: Replay, rows: int, columns: int) -> bytes:
    """What paints the job's screen on a fresh terminal of that size; cut to what fits.

    Raises LimitExceeded when that costs more time than an honest screen does."""
    first = replay.parts[0][0] if replay.parts else replay.size
    interpreter = Interpreter(Screen(*_sane(first)))
    screen = interpreter.screen
    for size, data in replay.parts:
        screen.resize(*_sane(size))
        interpreter.feed(data)
    screen.resize(*_sane(replay.size))
    modes = Modes()
    modes.feed(replay.modes)
    if modes.alternate and screen.behind is None:  # what switched to it is no longer kept
        screen.show_alternate()
    elif not modes.alternate and screen.behind is not None:
        screen.show_normal()
    screen.resize(*_sane((rows, columns)))
    return paint(interpreter, modes.restore())


def _sane(size: tuple[int, int]) -> tuple[int, int]:
    return min(max(size[0], 1), _MOST), min(max(size[1], 1), _MOST)
