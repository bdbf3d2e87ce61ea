"""Run a node: it keeps shares, people and keys in its data folder and serves until SIGTERM or Ctrl-C.

The first signal stops new work and lets running transfers go on for a few seconds; a second one ends at once.

examples:
  tow serve
  tow serve --listen 0.0.0.0:7440 --share docs=/srv/docs:ro --share inbox=/srv/inbox
  tow serve --data /var/lib/towline --listen 127.0.0.1:0 --json
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from contextlib import AbstractContextManager, nullcontext

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli import cycles
from towline.cli.nodelog import NodeLog
from towline.cli.output import Output

HURRIED_SECONDS = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import duration, size
    from towline.node.config import DEFAULT_LISTEN, DRAIN_SECONDS
    from towline.services.jobs.messages import SPOOL, SPOOL_PER_JOB

    parser.add_argument("--data", metavar="DIR", help="the node's data folder (default: TOWLINE_HOME/node)")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN,
        help=f"where to listen; port 0 takes a free one, 'none' only the Unix socket (default: {DEFAULT_LISTEN})",
    )
    parser.add_argument("--unix", metavar="PATH", help="the Unix socket (default: DATA/run/tow.sock)")
    parser.add_argument(
        "--share",
        metavar="NAME=DIR[:ro]",
        action="append",
        default=[],
        help="a folder that people may use, read-only with :ro; repeatable (default: files=DATA/files)",
    )
    parser.add_argument("--name", help="the node's name, which joins propose as alias (default: the host's name)")
    parser.add_argument(
        "--drain",
        type=duration,
        default=DRAIN_SECONDS,
        metavar="TIME",
        help=f"how long running work may go on after the first signal (default: {DRAIN_SECONDS:.0f}s)",
    )
    parser.add_argument("--tap", metavar="FILE", help="record every frame, without payload; see `tow lab show`")
    parser.add_argument("--tap-payload", action="store_true", help="with --tap: keep payload and names too")
    parser.add_argument(
        "--spool", type=size, default=SPOOL.value, metavar="SIZE", help="kept output of all commands (default: 2GiB)"
    )
    parser.add_argument(
        "--spool-per-job", type=size, default=SPOOL_PER_JOB.value, metavar="SIZE", help="… of one (default: 256MiB)"
    )
    parser.add_argument("--quiet", action="store_true", help="do not say who comes and goes")


def run(args: argparse.Namespace, out: Output) -> int:
    from asyncio import Runner, get_running_loop

    from towline.base.names import checked_alias
    from towline.node import Node, NodeConfig
    from towline.node.config import parse_share
    from towline.runtime.loops import new_event_loop
    from towline.runtime.memory import keep_freed_memory
    from towline.trust.home import default_data_folder

    config = NodeConfig(
        data=os.path.abspath(args.data) if args.data else default_data_folder(),
        listen=None if args.listen == "none" else args.listen,
        unix=os.path.abspath(args.unix) if args.unix else None,
        shares=tuple(parse_share(text) for text in args.share),
        name=checked_alias(args.name, what="name for a node") if args.name else None,
        drain=args.drain,
        spool=args.spool,
        spool_per_job=args.spool_per_job,
    )
    if not args.json and not args.quiet:
        logging.basicConfig(level=logging.INFO, handlers=[NodeLog(sys.stderr.fileno())])

    keep_freed_memory()

    async def serve() -> int:
        node = Node(config)
        await node.start()
        loop = get_running_loop()

        def stop() -> None:
            node.request_stop()
            if node.hurried:  # and if even that takes too long, because a disk hangs:
                loop.call_later(HURRIED_SECONDS, os._exit, Exit.INTERRUPTED)

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        at = node.listening
        out.event("listening", address=at.address, unix=at.unix, fingerprint=node.fingerprint)
        out.line(
            f"{printable(node.name)} listens on {at.address or 'no network address'} and {printable(at.unix or '')}"
        )
        out.line(f"fingerprint {node.fingerprint}")
        out.line("Invite somebody with: tow invite NAME" + (f" --data {shlex.quote(args.data)}" if args.data else ""))
        await node.serve_forever()
        out.event("stopped")
        return Exit.INTERRUPTED if node.hurried else Exit.OK

    cycles.as_usual()
    with _tap(args), Runner(loop_factory=new_event_loop) as runner:
        return runner.run(serve())


def _tap(args: argparse.Namespace) -> AbstractContextManager[None]:
    if not args.tap:
        return nullcontext()
    from towline.lab.wiretap import tapping

    return tapping(args.tap, payload=args.tap_payload)
