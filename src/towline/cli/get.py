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
from typing import TYPE_CHECKING

from towline.base.errors import PathRefused, UsageError
from towline.cli.output import Output
from towline.cli.transferring import DryRun, add_transfer_options, options_of, worst_status

if TYPE_CHECKING:
    from towline.services.files.tree import Stat


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
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect
    from towline.client.files import check_fetchable

    dry = DryRun(out)
    for alias, share, path in remotes:
        async with connect(alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
            top = f"{share}/{path}".rstrip("/")
            info = await line.stat(top)
            check_fetchable(info, top, args.links)
            if info.kind != "dir":
                dry.file(top, info.size if info.kind == "file" else 0)
                continue
            waiting = [top]
            while waiting:
                folder = waiting.pop()
                async for entry in line.list(folder):
                    name = f"{folder}/{entry.name}"
                    if _would_be_entered(entry, name, args, dry):
                        waiting.append(name)
    return dry.end("fetched")


def _would_be_entered(entry: Stat, path: str, args: argparse.Namespace, dry: DryRun) -> bool:
    """Say what would become of it; whether it is a folder that would be walked."""
    from towline.services.files.names import check_component

    try:
        check_component(entry.name, portable=not args.any_names)
    except PathRefused as refused:
        dry.left_out(path, refused.sentence, refused.code)
        return False
    match entry.kind:
        case "other":
            dry.left_out(path, "it is neither a file nor a folder", PathRefused.code)
        case "link" if args.links != "keep":
            dry.left_out(path, "it is a symlink; --links keep takes symlinks along")
        case "link":
            dry.file(path, 0)
        case "file":
            dry.file(path, entry.size)
        case _:
            return True
    return False
