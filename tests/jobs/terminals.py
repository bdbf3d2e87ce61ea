"""A person's terminal: tmux, asked what the screen shows."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.jobs.kit import Place
from tests.kit import DEADLINE, environment, events, tow

TMUX = shutil.which("tmux")


def needs(program: str) -> pytest.MarkDecorator:
    """Skip with a reason where it is not installed."""
    reason = f"{program} is not installed; as root: sh tools/debian.sh"
    return pytest.mark.skipif(shutil.which(program) is None, reason=reason)


class Terminal:
    """A terminal of 80 by 24 with a person before it: tmux, asked what the screen shows."""

    def __init__(self, folder: Path, name: str, words: list[str], home: Path) -> None:
        self._tmux = [str(TMUX), "-f", "/dev/null", "-S", str(folder / "tmux.sock")]
        self._name = name
        self._env = environment(home, TERM="screen-256color", PYTHONDEVMODE="")
        line = " ".join(words)
        self._do("new-session", "-d", "-s", name, "-x", "80", "-y", "24", "sh")
        self.type(f"{line}; echo left with $?\n")

    def _do(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, env=self._env, timeout=DEADLINE)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def type(self, text: str) -> None:
        self._do("send-keys", "-t", self._name, "-l", text)

    def resize(self, columns: int, rows: int) -> None:
        self._do("resize-window", "-t", self._name, "-x", str(columns), "-y", str(rows))

    @property
    def screen(self) -> str:
        return self._do("capture-pane", "-p", "-t", self._name)

    def shows(self, text: str, *, not_: str = "") -> str:
        """Wait until the screen has that (and has not the other)."""
        deadline = time.monotonic() + DEADLINE
        while text not in (screen := self.screen) or (not_ and not_ in screen):
            assert time.monotonic() < deadline, f"{text!r} never came:\n{screen}"
        return screen

    @property
    def coloured(self) -> str:
        """The screen with its colours and looks."""
        return self._do("capture-pane", "-e", "-p", "-t", self._name)

    @property
    def behind(self) -> str:
        """The normal screen while the alternate one is shown."""
        return self._do("capture-pane", "-a", "-e", "-q", "-p", "-t", self._name)

    @property
    def state(self) -> str:
        """The cursor's place, and what else tmux knows of the terminal."""
        names = ("cursor_x", "cursor_y", "cursor_flag", "alternate_on", "scroll_region_upper", "scroll_region_lower",
                 "insert_flag", "origin_flag", "keypad_cursor_flag", "keypad_flag", "mouse_any_flag")  # fmt: skip
        return self._do("display-message", "-p", "-t", self._name, " ".join(f"{each}=#{{{each}}}" for each in names))

    def settles(self, condition: Callable[[], object]) -> None:
        """Wait until it holds, or the deadline has come."""
        deadline = time.monotonic() + DEADLINE
        while not condition() and time.monotonic() < deadline:
            pass

    def close(self) -> None:
        with contextlib.suppress(AssertionError):
            self._do("kill-session", "-t", self._name)


def job_of(place: Place) -> str:
    rows = events(tow("jobs", "home", "--running", "--json", home=place.home).stdout)
    return str(next(row["job"] for row in reversed(rows) if row["terminal"]))


Make = Callable[..., Terminal]
