"""Drop a finished job and its kept output.

examples:
  tow forget home 7h3k-9mq2
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("job", metavar="JOB", nargs="+")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_forget(args, out))


async def _forget(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        for job in args.job:
            await line.job(job).forget()
            out.event("forgotten", job=job)
    return Exit.OK
