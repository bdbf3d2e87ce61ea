"""Shut somebody out: all their keys, their open invites, and the connections they have just now.

examples:
  tow revoke laptop
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli.administer import add_data, administer
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    add_data(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    administer(args, {"op": "revoke", "name": args.name})
    out.event("revoked", name=args.name)
    out.line(f"{printable(args.name)} is shut out.")
    return Exit.OK
