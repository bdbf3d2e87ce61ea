"""Who did what on a node: joins, invites, revocations, and what people started.

Without ALIAS a node on this machine is meant, running or stopped; with it one that you joined with the grant admin.

examples:
  tow audit
  tow audit home
  tow audit --limit 1000 --json
"""

from __future__ import annotations

import argparse
import time

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli.administer import add_data, administer, administer_at
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up, count

    parser.add_argument("alias", metavar="ALIAS", nargs="?", help="a node that you have joined as an admin")
    parser.add_argument("--limit", type=count, default=100, metavar="N", help="the latest N rows (default: 100)")
    add_data(parser)
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    request = {"op": "audit", "limit": args.limit}
    rows = administer_at(args.alias, request, args.give_up, out) if args.alias else administer(args, request)
    if not rows:
        out.note("Nothing happened yet.")
    for row in rows:
        out.event("audit", **row)
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
        text = f"{row['person']}  {row['action']}  {row['subject']}  {row['detail']}".rstrip()
        out.line(f"{at}  {printable(text)}")
    return Exit.OK
