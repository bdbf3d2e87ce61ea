"""What a verb prints: text for people, or events for programs, never both.

The event schema is version 1: one JSON object a line, each with `"v": 1` and `"event"`. Fields are only ever added.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import sys
from typing import TextIO

from towline.base.errors import DiskError, Interrupted, TowlineError
from towline.base.text import printable

SCHEMA_VERSION = 1
_stuck: TextIO | None = None  # the standard stream that we may just now wait for, because nobody reads it


class _writing:  # noqa: N801  # reads as a statement: with _writing(stream):
    """Context manager around a write that may wait for a reader: `break_off` ends it."""

    __slots__ = ("_stream",)

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> None:
        global _stuck
        _stuck = self._stream

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        global _stuck
        _stuck = None
        if isinstance(error, Interrupted | KeyboardInterrupt):
            give_up(self._stream)


def break_off() -> None:
    """For a signal handler. The event loop cannot hear of Ctrl-C while it waits for somebody to read what we print.
    The write is interrupted (signal(7), PEP 475), and this raises Interrupted out of it. A write that is only under
    way just now is let be."""
    if _stuck is not None and not _takes_more(_stuck):
        raise Interrupted


def _takes_more(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLOUT)
    return bool(poll.poll(0))


def give_up(stream: TextIO) -> None:
    """What this standard stream still has in its buffer, and what comes, goes nowhere: nobody takes it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class shown:  # noqa: N801  # reads as a statement: with shown():
    """Context manager: what cannot be written to a standard stream is said as DiskError; a reader who left is not."""

    __slots__ = ()

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise DiskError(f"The output cannot be written: {error.strerror}.") from error


class lasting:  # noqa: N801  # reads as a statement: with lasting(...):
    """Context manager around what a server says: it serves on, whether or not that can be written.

    When nobody reads any more (`| head -1`, or a signal came while a write waited) it goes on in silence; who waits
    for the signal hears of it all the same. That a disk is full is said once.
    """

    __slots__ = ("_said", "_verb")

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._said = False

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BrokenPipeError):
            _let_go(sys.stdout)
            _let_go(sys.stderr)
            return True
        if isinstance(error, DiskError) and not self._said:
            self._said = True
            with contextlib.suppress(OSError):
                print(f"tow {self._verb}: {error.sentence} It goes on without it.", file=sys.stderr, flush=True)
        return isinstance(error, DiskError | Interrupted)


class Output:
    """The standard streams of one verb. Peer-supplied text is cleaned here, on its way to a person."""

    def __init__(self, *, json: bool, events_to: TextIO | None = None) -> None:
        self.json = json
        self._events_to = events_to
        self._lines_to: TextIO | None = None
        self._held: list[str] | None = None  # lines that wait for the end of the turn
        self._failure: OSError | TowlineError | None = None  # of writing them

    def leave_stdout(self) -> None:
        """Standard output belongs to a payload now: everything is said on standard error."""
        self._events_to = sys.stderr
        self._lines_to = sys.stderr

    def event(self, event: str, **fields: object) -> None:
        """One JSON line, only with --json; flushed, so that a reader of the pipe sees it at once."""
        if self.json:
            record = {"v": SCHEMA_VERSION, "event": event, **fields}
            self._write(json.dumps(record, ensure_ascii=True))

    def line(self, text: str = "") -> None:
        """A line of the result for a person (standard output), only without --json."""
        if not self.json:
            self._write(text)

    def hold(self) -> None:
        """What is said in this turn of the event loop is written together, at its end: for much of one instant."""
        if self._held is None:
            import asyncio

            self._held = []
            asyncio.get_running_loop().call_soon(self._release)

    def release(self) -> None:
        """Write what is held. Raises what writing raised."""
        held, self._held = self._held, None
        self._raise_failure()
        if held:
            self._write("\n".join(held))

    def _release(self) -> None:
        try:
            self.release()
        except (OSError, TowlineError) as error:
            self._failure = error  # the loop would only log it; whoever speaks next hears of it

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _write(self, text: str) -> None:
        self._raise_failure()
        if self._held is not None:
            self._held.append(text)
            return
        stream = (self._events_to if self.json else self._lines_to) or sys.stdout
        with shown(), _writing(stream):
            print(text, file=stream, flush=True)

    def note(self, text: str) -> None:
        """Something said beside the result (standard error), only without --json.

        The work does not end because a disk has no room for a remark; a reader who left ends it as usual.
        """
        if self.json:
            return
        try:
            with _writing(sys.stderr):
                print(text, file=sys.stderr, flush=True)
        except BrokenPipeError:
            raise
        except OSError:
            pass

    def error(self, error: TowlineError, *, verb: str, **fields: object) -> None:
        """A failure: an `error` event with --json, one sentence on standard error without."""
        sentence = printable(error.sentence)
        self.event("error", code=error.code, name=error.name, message=sentence, retryable=error.retryable, **fields)
        self.note(f"tow {verb}: {sentence}")


def _let_go(stream: TextIO) -> None:
    """Nobody reads it any more, if that is so."""
    try:
        stream.flush()
    except BrokenPipeError:
        give_up(stream)


def parser_for(verb: str, document: str, summary: str) -> argparse.ArgumentParser:
    """The argument parser of one verb; the module's docstring is its help text, examples included."""
    parser = argparse.ArgumentParser(
        prog=f"tow {verb}",
        description=document.strip() or summary,
        formatter_class=_Help,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of text")
    return parser


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse makes one of these for each option that is added, and would import
    shutil (2 ms) to ask for a width that only help needs."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_columns() - 2)


def _columns() -> int:
    """$COLUMNS, else the terminal's, else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    try:
        return os.get_terminal_size(1).columns or 80
    except OSError:
        return 80
