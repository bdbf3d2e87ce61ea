"""Who did what on a node on this machine: joins, invites, revocations, and what people started.

examples:
  tow audit
  tow audit --limit 1000 --json
"""

from __future__ import annotations

import argparse
import time

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli.administer import add_data, administer
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import count

    parser.add_argument("--limit", type=count, default=100, metavar="N", help="the latest N rows (default: 100)")
    add_data(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    for row in administer(args, {"op": "audit", "limit": args.limit}):
        out.event("audit", **row)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
        text = f"{row['person']}  {row['action']}  {row['subject']}  {row['detail']}".rstrip()
        out.line(f"{at}  {printable(text)}")
    return Exit.OK
