"""Let somebody in: prints one code that lets one key in, once, as NAME. Works on a running and on a stopped node.

Give the code to the person over a channel you trust; they redeem it with `tow join`. Another code for the same name
lets another machine of theirs in.

grants (--can): chat, read, write, run, admin; narrowed with =, as in read=docs,music or run=uptime or chat=lobby.

examples:
  tow invite laptop
  tow invite ann --can read=docs,chat --for 2h
  tow invite laptop | ssh laptop.example tow join -
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.administer import add_data, administer
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import duration

    parser.add_argument("name", metavar="NAME", help="what the node calls the person")
    parser.add_argument("--can", default="chat,read,write", metavar="GRANTS", help="default: chat,read,write")
    parser.add_argument("--for", dest="lasts", type=duration, default=86400.0, metavar="TIME", help="default: 24h")
    parser.add_argument("--address", metavar="HOST:PORT", help="what the code says about where the node is")
    add_data(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.trust.grants import Grants
    from towline.trust.pins import checked_address

    request = {"op": "invite", "name": args.name, "can": str(Grants.parse(args.can)), "for": args.lasts}
    if args.address:
        request["address"] = checked_address(args.address)
    code = administer(args, request)
    out.event("invite", name=args.name, can=request["can"], seconds=args.lasts, code=code)
    out.line(code)
    return Exit.OK
