"""Go on with a job: show its output from the beginning, or from a position, until it ends; exit with its status.

Ctrl-C interrupts the remote command; a second one leaves it running.

examples:
  tow attach home 7h3k-9mq2
  tow attach home 7h3k-9mq2 --from 1200
"""

from __future__ import annotations

import argparse

from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.jobbing import codec_of
    from towline.cli.running import add_give_up, count

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--from", dest="from_", type=count, default=1, metavar="SEQ", help="the first record to show")
    parser.add_argument("--input", action="store_true", help="pass standard input on to it")
    parser.add_argument("--encoding", type=codec_of, metavar="NAME", help="what it prints, shown as UTF-8 here")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_attach(args, out))


async def _attach(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.jobbing import Printer, follow, unread
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        printer = Printer(out, encoding=args.encoding)
        job = line.job(args.job)
        try:
            return await follow(job, out, printer, alias=args.alias, from_=args.from_, stdin=args.input, note=True)
        except BrokenPipeError:
            await unread(job, args.alias, ends=False)  # others may look, and whoever started it has said how it ends
            raise
