"""Make a remote folder.

examples:
  tow mkdir home:files/photos
  tow mkdir -p home:files/2026/11/21
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output
from towline.cli.remote import add_any_names, add_remote, on_line


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--parents", action="store_true", help="folders on the way too; no complaint if there")
    add_any_names(parser)
    add_remote(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    on_line(args, out, lambda line, remote: line.mkdir(remote, parents=args.parents, any_names=args.any_names))
    out.event("made", path=args.path)
    return Exit.OK
