"""Download files and folders. Resumes by itself after a cut, and when the same command is run again.

The target is placed as cp(1) would: a folder that is there, or a target that ends in a slash, takes the source
inside; otherwise the target is the new name. Without a target the current folder is meant; `-` writes to standard
output.

examples:
  tow get home:files/report.pdf
  tow get home:backup/photos ./photos
  tow get home:files/a.txt home:files/b.txt notes/
  tow get home:files/etc.tar - | tar t
"""

from __future__ import annotations

import argparse
import sys

from towline.base.errors import UsageError
from towline.cli.output import Output
from towline.cli.transferring import add_transfer_options, options_of, worst_status


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="ALIAS:SHARE/PATH")
    parser.add_argument("target", metavar="TARGET", nargs="?", help="a local file or folder, or - (default: .)")
    add_transfer_options(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async
    from towline.client.connect import split_remote
    from towline.runtime.descriptors import raise_descriptor_limit

    words = [*args.sources, *([args.target] if args.target is not None else [])]
    target = words.pop() if len(words) > 1 and split_remote(words[-1]) is None else "."
    remotes = []
    for word in words:
        remote = split_remote(word)
        if remote is None or not remote[1]:
            raise UsageError(f"{word!r} is not ALIAS:SHARE/PATH.")
        remotes.append(remote)
    if target == "-" and len(remotes) > 1:
        raise UsageError("Only one file can be written to standard output.")
    if len(remotes) > 1 and not target.endswith("/"):
        target += "/"
    if target == "-" and not args.dry_run:
        out.leave_stdout()
    if args.dry_run:
        return run_async(_dry_run(args, out, remotes))
    raise_descriptor_limit()
    return run_async(_get(args, out, remotes, target))


async def _get(args: argparse.Namespace, out: Output, remotes: list[tuple[str, str, str]], target: str) -> int:
    from towline.cli.transfer_view import view_for
    from towline.client.connect import connect

    results = []
    with view_for(out, quiet=args.quiet) as view:
        for alias, share, path in remotes:
            async with connect(alias, give_up=args.give_up, on_event=view.line) as line:
                if target == "-":
                    done = await line.get_stream(
                        f"{share}/{path}", sys.stdout.fileno(), options=options_of(args), on_event=view.transfer
                    )
                else:
                    done = await line.get(f"{share}/{path}", target, options=options_of(args), on_event=view.transfer)
                results.append(done)
    return worst_status(results)


async def _dry_run(args: argparse.Namespace, out: Output, remotes: list[tuple[str, str, str]]) -> int:
    from towline.base.quantity import format_count, format_size
    from towline.base.text import printable
    from towline.client.connect import connect

    files = size = 0
    for alias, share, path in remotes:
        async with connect(alias, give_up=args.give_up) as line:
            waiting = [f"{share}/{path}".rstrip("/")]
            top = await line.stat(waiting[0])
            while waiting:
                folder = waiting.pop()
                async for entry in line.list(folder):
                    name = f"{folder}/{entry.name}" if top.kind == "dir" else folder
                    if entry.kind == "dir":
                        waiting.append(name)
                    elif entry.kind == "file":
                        files, size = files + 1, size + entry.size
                        out.event("file", path=name, bytes=entry.size, dry_run=True)
                        out.line(f"{printable(name)}  {format_size(entry.size)}")
    out.event("done", files=files, bytes=size, dry_run=True)
    out.line(f"{format_count(files, 'file')}, {format_size(size)} would be fetched")
    return 0
