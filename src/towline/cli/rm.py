"""Remove a remote file, or with --recursive a folder with all that is in it.

examples:
  tow rm home:files/old.txt
  tow rm --recursive home:files/old-photos
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.cli.output import Output
from towline.cli.remote import add_remote, on_line


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-r", "--recursive", action="store_true", help="a folder with all that is in it")
    add_remote(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    on_line(args, out, lambda line, remote: line.remove(remote, recursive=args.recursive))
    out.event("removed", path=args.path)
    return Exit.OK
