"""Rename or move a remote file or folder within its share.

examples:
  tow mv home:files/draft.txt home:files/final.txt
  tow mv --replace home:files/new.txt home:files/current.txt
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit, UsageError
from towline.cli.output import Output
from towline.cli.remote import add_any_names, add_remote, on_line, remote_of


def configure(parser: argparse.ArgumentParser) -> None:
    add_remote(parser)
    parser.add_argument("to", metavar="ALIAS:SHARE/PATH", help="the new path; an existing folder takes it inside")
    parser.add_argument("--replace", action="store_true", help="replace a file that is there")
    add_any_names(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    alias, target = remote_of(args.to)
    if alias != remote_of(args.path)[0]:
        raise UsageError("A move stays on one node; get and put between two.")
    on_line(args, out, lambda line, remote: line.move(remote, target, replace=args.replace, any_names=args.any_names))
    out.event("moved", path=args.path, to=args.to)
    return Exit.OK
