"""What a job has printed so far. It stays kept: looking acknowledges nothing.

examples:
  tow logs home 7h3k-9mq2
  tow logs home 7h3k-9mq2 --stream stderr --follow
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.jobbing import codec_of
    from towline.cli.running import add_give_up, count

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("job", metavar="JOB")
    parser.add_argument("--from", dest="from_", type=count, default=1, metavar="SEQ", help="the first record to show")
    parser.add_argument("--follow", action="store_true", help="wait for more until the job has ended")
    parser.add_argument("--stream", choices=("stdout", "stderr", "both"), default="both", help="(default: both)")
    parser.add_argument("--encoding", type=codec_of, metavar="NAME", help="what it prints, shown as UTF-8 here")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_logs(args, out))


async def _logs(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.jobbing import Printer, tell_end
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        job = line.job(args.job)
        printer = Printer(out, encoding=args.encoding)
        options = {"stream": args.stream, "follow": args.follow, "acknowledge": False, "sink": printer.sink}
        async for item in job.output(args.from_, **options):
            await printer.show(item)
        await printer.finish()
        if job.ended is not None:
            tell_end(job.id, job.ended, out)
    return Exit.OK
