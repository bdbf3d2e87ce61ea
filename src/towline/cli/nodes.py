"""The nodes that are known here: alias, address, pinned key.

examples:
  tow nodes
  tow nodes set home --address 192.0.2.7:7440       (the pin stays)
  tow nodes forget home
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.base.text import printable
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action=None)
    actions = parser.add_subparsers(dest="action", metavar="set|forget")
    change = actions.add_parser("set", help="point an alias at another address; the pin stays")
    change.add_argument("alias", metavar="ALIAS")
    change.add_argument("--address", required=True, metavar="HOST:PORT")
    change.add_argument("--json", action="store_true", default=argparse.SUPPRESS)
    forget = actions.add_parser("forget", help="drop a node and its pin")
    forget.add_argument("alias", metavar="ALIAS")
    forget.add_argument("--json", action="store_true", default=argparse.SUPPRESS)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.trust.home import client_home
    from towline.trust.pins import KnownNodes

    out.json = args.json
    known = KnownNodes(client_home())
    if args.action == "set":
        nodes = [known.set_address(args.alias, args.address)]
    elif args.action == "forget":
        gone = known.forget(args.alias)
        out.event("forgotten", alias=gone.alias)
        out.line(f"{printable(gone.alias)} is forgotten.")
        return Exit.OK
    else:
        nodes = known.all()
        if not nodes:
            out.note("None yet; `tow join` adds one.")
    width = max((len(printable(node.alias)) for node in nodes), default=0)
    for node in nodes:
        out.event("node", alias=node.alias, address=node.address, name=node.name, fingerprint=node.fingerprint)
        out.line(f"{printable(node.alias):<{width}}  {printable(node.address):<24}  {node.fingerprint[:16]}…")
    return Exit.OK
