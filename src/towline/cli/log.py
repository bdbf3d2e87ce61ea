"""Print what was said in a room: all that is kept, or from a message or a time on.

SINCE is the seq of the first message to print, or a time: 2026-11-21, "2026-11-21 14:30", 14:30 (today), 2h (ago).
Messages that are not kept any more are named as a gap (on standard error, or as an event with --json).

examples:
  tow log home lobby --since 2h
  tow log home lobby --since 118 --follow --json
  tow log home lobby --search deploy
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.roomy import add_room, since

    add_room(parser)
    parser.add_argument("--since", type=since, default=0, metavar="SEQ|TIME", help="where to begin")
    parser.add_argument("--last", type=int, metavar="N", help="only the last N messages")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until interrupted")
    parser.add_argument("--search", default="", metavar="WORD", help="only messages with that in their text")


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_log(args, out))


async def _log(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.roomy import show
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect
    from towline.client.since import Since
    from towline.services.rooms.messages import Missed

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        room = line.room(args.room)
        since: Since = args.since
        if not args.follow:
            async for item in room.history(since, last=args.last, search=args.search):
                show(out, item)
            return Exit.OK
        if args.last is not None:
            since = int((await room.describe())["last"]) + 1 - args.last
        word = args.search.casefold()
        async for item in room.follow(max(since, 0) if isinstance(since, int) else since, present=False):
            if isinstance(item, Missed) or word in item.text.casefold():
                show(out, item)
    return Exit.OK
