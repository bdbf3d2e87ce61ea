"""Verbs that do one thing to one remote path."""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from towline.base.errors import UsageError
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.line import Line

T = TypeVar("T")


def add_remote(parser: argparse.ArgumentParser) -> None:
    """The path, and the options of a client verb."""
    from towline.cli.running import add_give_up

    parser.add_argument("path", metavar="ALIAS:SHARE/PATH")
    add_give_up(parser)


def add_any_names(parser: argparse.ArgumentParser) -> None:
    """For verbs that give something a name."""
    parser.add_argument("--any-names", action="store_true", help="also a name that some systems cannot keep")


def remote_of(text: str) -> tuple[str, str]:
    """(alias, SHARE/PATH). Raises UsageError."""
    from towline.client.connect import split_remote

    remote = split_remote(text)
    if remote is None or not remote[1]:
        raise UsageError(f"{text!r} is not ALIAS:SHARE/PATH.")
    return remote[0], f"{remote[1]}/{remote[2]}"


def moment(mtime_ns: int, form: str) -> str:
    """A file's time for a person, by strftime(3). Years that a calendar does not reach are said to be none."""
    try:
        return time.strftime(form, time.localtime(mtime_ns / 1e9))
    except (OverflowError, OSError, ValueError):
        return "no date"


def on_line(args: argparse.Namespace, out: Output, do: Callable[[Line, str], Awaitable[T]]) -> T:
    """Connect to the path's node and do it."""
    from towline.cli.running import run_async, tell_line_events
    from towline.client.connect import connect

    alias, remote = remote_of(args.path)

    async def work() -> T:
        async with connect(alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
            return await do(line, remote)

    return run_async(work())
