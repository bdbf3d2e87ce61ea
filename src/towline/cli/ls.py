"""List a remote folder, or the shares of a node.

examples:
  tow ls home                     (the shares)
  tow ls home:files/photos
  tow ls home:files --json
"""

from __future__ import annotations

import argparse
import stat

from towline.base.errors import Exit, UsageError
from towline.base.quantity import format_size
from towline.base.text import printable
from towline.cli.output import Output
from towline.cli.remote import moment


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up

    parser.add_argument("path", metavar="ALIAS[:SHARE/PATH]")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async
    from towline.client.connect import split_remote

    remote = split_remote(args.path) or (args.path, "", "")
    if "/" in remote[0]:
        raise UsageError(f"{args.path!r} is not ALIAS:SHARE/PATH.")
    return run_async(_list(args, out, *remote))


async def _list(args: argparse.Namespace, out: Output, alias: str, share: str, path: str) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        if not share:
            shares = await line.shares()
            if not shares:
                out.note("The node has no shares.")
            for name, read_only in shares:
                out.event("share", name=name, read_only=read_only)
                out.line(f"{printable(name)}{'  (read-only)' if read_only else ''}")
            return Exit.OK
        empty = True
        async for entry in line.list(f"{share}/{path}"):
            empty = False
            out.event(
                "entry",
                name=entry.name,
                kind=entry.kind,
                bytes=entry.size,
                mtime=entry.mtime_ns / 1e9,
                mode=f"{entry.mode:04o}",
            )
            slash = "/" if entry.kind == "dir" else ""
            size = format_size(entry.size) if entry.kind == "file" else ""
            when = moment(entry.mtime_ns, "%Y-%m-%d %H:%M")
            bits = stat.filemode(entry.mode | _TYPES.get(entry.kind, 0))
            out.line(f"{bits}  {size:>9}  {when}  {printable(entry.name)}{slash}")
        if empty:
            out.note("The folder is empty.")
    return Exit.OK


_TYPES = {"dir": stat.S_IFDIR, "file": stat.S_IFREG, "link": stat.S_IFLNK}
