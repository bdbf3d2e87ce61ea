"""What put and get share on the command line: options, dry runs, the exit status."""

from __future__ import annotations

import argparse

from towline.base.errors import Exit, UsageError
from towline.base.quantity import parse_size
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
