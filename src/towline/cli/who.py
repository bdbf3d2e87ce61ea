"""Who is here: in one room, or in any.

examples:
  tow who home
  tow who home lobby --json
"""

from __future__ import annotations

import argparse
import time

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.roomy import add_room

    add_room(parser, optional=True)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_who(args, out))


async def _who(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        rows = await (line.room(args.room).who() if args.room else line.who())
        if not rows:
            out.note("Nobody is here.")
        for row in rows:
            out.event("person", name=row["who"], **{key: value for key, value in row.items() if key != "who"})
            since = time.strftime("%H:%M", time.localtime(row["since"]))
            rooms = "  " + " ".join(printable(str(room)) for room in row.get("rooms", ()))
            out.line(f"{printable(str(row['who']))}  {row['state']} since {since}{rooms}".rstrip())
    return Exit.OK
