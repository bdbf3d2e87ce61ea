"""Redeem an invite: this client's key becomes known to the node, the node's key is pinned here, and ALIAS names it.

The code comes as an argument, from standard input (-) or by a prompt (no argument). An argument can be seen by other
users of this machine while the command runs; prefer the other two where that matters.

examples:
  tow join -                      (paste the code, press Enter)
  tow join --as home < code.txt
"""

from __future__ import annotations

import argparse
import sys

from towline.base.errors import Exit, UsageError
from towline.base.text import printable
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up

    parser.add_argument("code", metavar="CODE|-", nargs="?", default="-", help="the code; - reads standard input")
    parser.add_argument("--as", dest="alias", metavar="ALIAS", help="what to call the node here (default: its name)")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async
    from towline.client.joining import join

    code = _read_code() if args.code == "-" else args.code
    node = run_async(join(code, args.alias, give_up=args.give_up))
    out.event("joined", alias=node.alias, address=node.address, fingerprint=node.fingerprint, name=node.name)
    out.line(f"Joined: {printable(node.alias)} is the node at {printable(node.address)}.")
    out.line(f"Its key is pinned: {node.fingerprint}")
    return Exit.OK


def _read_code() -> str:
    if sys.stdin.isatty():
        from getpass import getpass

        code = getpass("Code: ")
    else:
        code = sys.stdin.read(16 * 1024)
    if not code.strip():
        raise UsageError("No code was given.")
    return code
