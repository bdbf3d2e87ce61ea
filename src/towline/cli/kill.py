"""Signal a job's processes. TERM (the default) is followed by KILL after a grace.

examples:
  tow kill home 7h3k-9mq2
  tow kill home 7h3k-9mq2 --signal HUP
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up, duration

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("job", metavar="JOB")
    parser.add_argument(
        "--signal", default="TERM", metavar="NAME", help="TERM, INT, HUP, KILL, USR1 … (default: TERM)"
    )
    parser.add_argument(
        "--grace", type=duration, default=5.0, metavar="TIME", help="from TERM to KILL, 0 for never (default: 5s)"
    )
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_kill(args, out))


async def _kill(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        done = await line.job(args.job).signal(args.signal, kill_after=args.grace)
    out.event("signalled", job=args.job, signal=args.signal, running=done)
    if not done:
        out.note("The job had ended already.")
    return Exit.OK
