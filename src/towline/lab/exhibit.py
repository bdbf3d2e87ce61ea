"""The doors of an exhibit, and running one.

An exhibit is a module below `exhibits/` with these names: TITLE, QUESTION, SETUP, LOOK (texts), CODE (its own small
functions, shown by `--code`), `run(recorder) -> Recording` and `verdict(recording) -> Text`, which asserts
from the recording alone and raises ExhibitFailed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from towline.base.errors import ExhibitFailed, NotFound
from towline.lab.exhibits import NAMES
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.texts import Text


class Exhibit(Protocol):
    """What every exhibit module offers."""

    TITLE: Text
    QUESTION: Text
    SETUP: Text
    LOOK: Text
    CODE: tuple[Callable[..., Any], ...]

    def run(self, recorder: Recorder) -> Recording: ...

    def verdict(self, recording: Recording) -> Text: ...


def exhibit(name: str) -> Exhibit:
    """The exhibit with that name. Raises NotFound, with the nearest name."""
    if name not in NAMES:
        raise NotFound(f"There is no exhibit {name!r}.{_suggestion(name)} `tow lab` lists them.")
    return cast("Exhibit", import_module(f"towline.lab.exhibits.{name.replace('-', '_')}"))


def play(name: str) -> tuple[Recording, Text]:
    """Run an exhibit on real sockets: its recording and what it proves. Raises ExhibitFailed, NotFound,
    TimedOut."""
    shown = exhibit(name)
    try:
        with Recorder(name) as recorder:
            recording = shown.run(recorder)
    except OSError as error:  # no network at all, no descriptor left: the errors that are shown have been caught
        raise ExhibitFailed(f"This machine does not let it run: {error.strerror or error}.") from error
    return recording, shown.verdict(recording)


def source(name: str) -> str:
    """The code that the exhibit ran, as it stands in its file."""
    return "\n\n".join(inspect.getsource(function).rstrip() + "\n" for function in exhibit(name).CODE)


def claim(holds: bool, sentence: str) -> None:
    """Raise ExhibitFailed with `sentence`, what was expected, unless it holds."""
    if not holds:
        raise ExhibitFailed(f"The recording does not show this: {sentence}.")


def _suggestion(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, NAMES, n=1)
    return f" Did you mean `{close[0]}`?" if close else ""
