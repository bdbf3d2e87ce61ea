"""What put and get share on the command line: options, dry runs, the exit status."""

from __future__ import annotations

import argparse

from towline.base.errors import Exit, UsageError, error_from_wire
from towline.base.quantity import format_count, format_size, parse_size
from towline.base.text import printable
from towline.cli.output import Output
from towline.client.events import Done
from towline.client.transfer import Options


def add_transfer_options(parser: argparse.ArgumentParser) -> None:
    """The options of put and get."""
    from towline.cli.running import add_give_up

    parser.add_argument(
        "--overwrite",
        choices=("never", "older", "always"),
        default="never",
        help="what to do where the target exists with other content (default: never; same content is fine)",
    )
    parser.add_argument("--links", choices=("skip", "keep"), default="skip", help="symlinks (default: skip, by name)")
    parser.add_argument("--any-names", action="store_true", help="also names that some systems cannot keep")
    parser.add_argument("--bwlimit", type=_rate, default=0, metavar="RATE", help="bytes a second: 500k, 20MB")
    parser.add_argument("--lanes", type=_lanes, metavar="N", help="parallel connections; 0: none beside the first")
    parser.add_argument("--dry-run", action="store_true", help="say what would be transferred, and do nothing")
    parser.add_argument("--quiet", action="store_true", help="no progress and no lines, only errors")
    add_give_up(parser)


def options_of(args: argparse.Namespace) -> Options:
    """The options as the client takes them; a fresh object for each transfer."""
    return Options(
        overwrite=args.overwrite,
        links=args.links,
        any_names=args.any_names,
        rate=args.bwlimit,
        lanes=args.lanes,
    )


class DryRun:
    """What a dry run says, of either direction."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._files = self._size = 0
        self._status: int = Exit.OK

    def file(self, path: str, size: int) -> None:
        """This would be transferred."""
        self._files, self._size = self._files + 1, self._size + size
        self._out.event("file", path=path, bytes=size, dry_run=True)
        self._out.line(f"{printable(path)}  {format_size(size)}")

    def left_out(self, path: str, reason: str, code: int = 0) -> None:
        """This would not; `code` is the number of the error that it would be, if it is one."""
        if code:
            self._status = self._status or error_from_wire(code, reason, False).exit_status
        self._out.event("warning", path=path, reason=reason)
        self._out.note(f"{printable(path)}: {printable(reason)}")

    def end(self, done: str) -> int:
        """The sum of it, and the exit status."""
        self._out.event("done", files=self._files, bytes=self._size, dry_run=True)
        self._out.line(f"{format_count(self._files, 'file')}, {format_size(self._size)} would be {done}")
        return self._status


def worst_status(results: list[Done]) -> int:
    """0, or the exit status of the first failure."""
    for done in results:
        for error in done.failures:
            return error.exit_status
    return Exit.OK


def _rate(text: str) -> int:
    try:
        rate = parse_size(text.removesuffix("/s"))
    except UsageError as error:
        raise argparse.ArgumentTypeError(error.sentence) from None
    if rate < 1:
        raise argparse.ArgumentTypeError("a rate is at least one byte a second")
    return rate


def _lanes(text: str) -> int:
    if not text.isdecimal() or int(text) > 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lanes from 0 to 16")
    return int(text)
