"""Upload files and folders. Resumes by itself after a cut, and when the same command is run again.

The target is placed as cp(1) would: a folder that is there, or a target that ends in a slash, takes the source
inside; otherwise the target is the new name. Missing folders on the way are made. `-` reads standard input.

examples:
  tow put report.pdf home:files/
  tow put photos home:backup/photos --lanes 4
  tow put *.log home:logs/ --overwrite older
  tar c /etc | tow put - home:files/etc.tar
"""

from __future__ import annotations

import argparse
import sys

from towline.base.errors import UsageError
from towline.cli.output import Output
from towline.cli.transferring import DryRun, add_transfer_options, options_of, worst_status


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="local files and folders, or -")
    parser.add_argument("target", metavar="ALIAS:SHARE/PATH")
    add_transfer_options(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async
    from towline.client.connect import split_remote
    from towline.runtime.descriptors import raise_descriptor_limit

    remote = split_remote(args.target)
    if remote is None:
        raise UsageError(f"{args.target!r} is not ALIAS:SHARE/PATH.")
    if not remote[1]:
        raise UsageError(f"{args.target!r} names no share; `tow ls {remote[0]}:` lists them.")
    if args.dry_run:
        return _dry_run(args, out)
    raise_descriptor_limit()
    return run_async(_put(args, out, *remote))


async def _put(args: argparse.Namespace, out: Output, alias: str, share: str, path: str) -> int:
    from towline.cli.transfer_view import view_for
    from towline.client.connect import connect

    target = f"{share}/{path}"
    if len(args.sources) > 1 and not target.endswith("/"):
        target += "/"
    results = []
    with view_for(out, quiet=args.quiet) as view:
        async with connect(alias, give_up=args.give_up, on_event=view.line) as line:
            for source in args.sources:
                if source == "-":
                    done = await line.put_stream(
                        sys.stdin.fileno(), target, options=options_of(args), on_event=view.transfer
                    )
                else:
                    done = await line.put(source, target, options=options_of(args), on_event=view.transfer)
                results.append(done)
    return worst_status(results)


def _dry_run(args: argparse.Namespace, out: Output) -> int:
    from towline.services.files.local import local_source
    from towline.services.files.plan import Skipped, walk

    dry = DryRun(out)
    for source in args.sources:
        if source == "-":
            raise UsageError("What standard input brings is not known before it is read: --dry-run cannot say it.")
        local = local_source(source, portable=not args.any_names)
        with local.root as root:
            for entry in walk(root, local.path, links=args.links):
                if isinstance(entry, Skipped):
                    dry.left_out(*entry)
                elif entry.kind != "dir":
                    dry.file(entry.path, entry.size)
    return dry.end("sent")
