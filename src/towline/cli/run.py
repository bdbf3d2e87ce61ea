"""Run a command on a node. It goes on when the connection drops; its output and exit status are not lost.

Output and errors are streamed apart and live, standard input is passed on, Ctrl-C interrupts the remote command (a
second one leaves it running). When the reader of the output leaves, as `head` does, the command is ended as it
would be in any pipeline (status 141), unless --on-disconnect or --detach says that it goes on. Exits with the
command's own status, 128+N for a signal, 124 when its time was up. With several nodes (a,b,c or @group) output is
prefixed and the worst status is the exit status.

examples:
  tow run home -- make -j4
  tow run home --shell 'ls *.log | wc -l'
  tow run home --detach -- ./backup.sh
  tow run web1,web2,@db -- uptime
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING, Any

from towline.base.errors import Exit, Interrupted, UsageError
from towline.base.text import printable
from towline.cli.output import Output

if TYPE_CHECKING:
    from towline.client.jobs import Job
    from towline.client.line import Line


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.jobbing import codec_of, take_command
    from towline.cli.running import add_give_up, count, duration

    parser.add_argument("alias", metavar="ALIAS[,ALIAS|@GROUP…]")
    take_command(parser, help="the command and its words; no shell looks at them")
    parser.add_argument("--shell", metavar="TEXT", help="a line for /bin/sh on the node instead of a command")
    parser.add_argument("--cwd", default="", metavar="DIR", help="where to run (default: home, relative to it)")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="set a variable; repeatable")
    parser.add_argument("--timeout", type=duration, default=0.0, metavar="TIME", help="end it after this time")
    parser.add_argument("--detach", action="store_true", help="print the job's id alone and leave")
    parser.add_argument(
        "--on-disconnect",
        type=disconnect_policy,
        metavar="keep|kill|kill-after=TIME",
        help="what happens to it without a client (default: it is kept for 24h)",
    )
    parser.add_argument(
        "--overflow",
        choices=("block", "drop-oldest"),
        default="block",
        help="when its kept output is full: the command waits for a reader (default), or the oldest goes",
    )
    parser.add_argument("--no-input", action="store_true", help="do not pass standard input on")
    parser.add_argument(
        "--encoding", type=codec_of, metavar="NAME", help="what it prints, shown as UTF-8 here: gbk …"
    )
    parser.add_argument("--parallel", type=count, default=16, metavar="N", help="nodes at a time (default: 16)")
    parser.add_argument("--gather", action="store_true", help="several nodes: group equal outputs, at the end")
    add_give_up(parser)


def disconnect_policy(text: str) -> tuple[str, float | None]:
    """For argparse: (keep or kill, seconds)."""
    from towline.cli.running import duration

    word, equals, time = text.partition("=")
    match word, equals:
        case "keep" | "kill", "":
            return word, None
        case "kill-after", "=":
            return "kill", duration(time)
        case _:
            raise argparse.ArgumentTypeError(f"{text!r} is not keep, kill or kill-after=TIME")


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async
    from towline.trust.home import client_home
    from towline.trust.pins import KnownNodes

    if bool(args.command) == bool(args.shell):
        raise UsageError("Give a command behind '--', or --shell with a line for a shell.")
    aliases = KnownNodes(client_home()).expand(args.alias)
    if not aliases:
        raise UsageError(f"There is no node in {printable(args.alias)}.")
    if len(aliases) == 1:
        return run_async(_one(args, out, aliases[0]))
    from towline.cli.run_many import run_many

    return run_async(run_many(args, out, aliases))


async def start(line: Line, args: argparse.Namespace, *, stdin: bool) -> Job:
    """Start what the options say."""
    from towline.cli.jobbing import variables

    options: dict[str, Any] = {"cwd": args.cwd, "env": variables(args.env), "timeout": args.timeout}
    policy, after = args.on_disconnect or ("keep", None)
    options |= {"on_disconnect": policy, "after": after, "overflow": args.overflow, "detach": args.detach}
    words = [args.shell] if args.shell else args.command
    return await line.start(words, shell=bool(args.shell), stdin=stdin, **options)


def ends_unread(args: argparse.Namespace) -> bool:
    """Whether the command ends with the reader of its output: not when somebody has said that it goes on alone."""
    return not args.detach and args.on_disconnect in (None, ("kill", None))


def ends_with_us(args: argparse.Namespace) -> bool:
    """Whether the command ends when we are told to: nobody has said goodbye then, as with a second Ctrl-C."""
    return not args.detach and args.on_disconnect == ("kill", None)


async def _one(args: argparse.Namespace, out: Output, alias: str) -> int:
    from towline.cli.jobbing import Printer, end, follow, has_input, unread
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    stdin = not args.no_input and not args.detach and has_input()
    async with connect(alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        try:
            job = await start(line, args, stdin=stdin)
        except asyncio.CancelledError:
            where = f"tow jobs {printable(alias)}"
            raise Interrupted(f"Interrupted. The command may have been started: {where} shows it.") from None
        try:
            out.event("started", job=job.id, node=alias)
            if args.detach:
                out.line(job.id)
                return Exit.OK
            return await follow(job, out, Printer(out, encoding=args.encoding), alias=alias, stdin=stdin)
        except BrokenPipeError:
            await unread(job, alias, ends=ends_unread(args))
            raise
        except Interrupted:
            if ends_with_us(args) and await end(job):
                raise Interrupted(f"Interrupted, and the job {job.id} was told to end.") from None
            raise
