"""What a remote path is.

examples:
  tow stat home:files/report.pdf
"""

from __future__ import annotations

import argparse

from towline.base.errors import Exit
from towline.base.quantity import format_size
from towline.base.text import printable
from towline.cli.output import Output
from towline.cli.remote import add_remote, moment, on_line


def configure(parser: argparse.ArgumentParser) -> None:
    add_remote(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    info = on_line(args, out, lambda line, remote: line.stat(remote))
    mtime = info.mtime_ns / 1e9
    out.event("stat", name=info.name, kind=info.kind, bytes=info.size, mtime=mtime, mode=f"{info.mode:04o}")
    when = moment(info.mtime_ns, "%Y-%m-%d %H:%M:%S")
    out.line(f"{printable(info.name) or '/'}  {info.kind}  {format_size(info.size)}  {when}  {info.mode:04o}")
    return Exit.OK
