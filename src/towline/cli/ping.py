"""Is a node there, and how far away? Sends a few small messages to its echo service and times them.

examples:
  tow ping home
  tow ping home --count 20 --json
"""

from __future__ import annotations

import argparse
import time

from towline.base.errors import Exit
from towline.base.quantity import format_duration
from towline.base.text import printable
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up, count

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("--count", type=count, default=4, metavar="N", help="how many messages (default: 4)")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_ping(args, out))


async def _ping(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect
    from towline.protocol.table import Class

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        name = printable(line.target.alias)
        channel = await line.channel({"service": "echo"}, Class.INTERACTIVE)
        for number in range(1, args.count + 1):
            started = time.perf_counter()
            await channel.send(b"towline ping")
            await channel.receive()
            seconds = time.perf_counter() - started
            out.event("pong", number=number, seconds=round(seconds, 6), address=line.address)
            out.line(f"{name} ({printable(line.address)}) answered in {format_duration(seconds)}")
        channel.end()
    return Exit.OK
