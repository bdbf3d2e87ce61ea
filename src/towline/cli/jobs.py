"""The jobs of a node: yours, or everybody's for an admin.

examples:
  tow jobs home
  tow jobs home --all --json
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from towline.base.errors import Exit
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    from towline.cli.running import add_give_up

    parser.add_argument("alias", metavar="ALIAS")
    parser.add_argument("--all", action="store_true", help="everybody's (admins)")
    parser.add_argument("--running", action="store_true", help="only those that have not ended")
    add_give_up(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import run_async

    return run_async(_jobs(args, out))


async def _jobs(args: argparse.Namespace, out: Output) -> int:
    from towline.cli.running import tell_line_events
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up, on_event=tell_line_events(out)) as line:
        rows = await line.jobs(everybody=args.all)
    rows = [row for row in rows if row.get("state") == "running" or not args.running]
    for row in rows:
        out.event("job", **{name: value for name, value in row.items() if name not in {"v", "event"}})
    if rows:
        head = ("JOB", "PERSON", "STATE", "AGE", "PRINTED", "CLIENTS", "ALONE", "COMMAND")
        table(out, [head, *map(_columns, rows)])
    else:
        out.note("There are no running jobs." if args.running else "There are no jobs.")
    return Exit.OK


def _columns(row: dict[str, Any]) -> tuple[str, ...]:
    import shlex

    from towline.base.quantity import format_duration, format_size
    from towline.base.text import printable

    state = str(row.get("state"))
    if state == "exited":
        state += f" {row.get('status')}"
    elif state == "killed":
        state += f" {row.get('signal')}"
    elif row.get("full") is True:
        state += ", output full"
    policy, after = row.get("on_disconnect") or ("keep", 0)
    alone = "" if row.get("state") != "running" else f"{policy} {format_duration(float(after))}"
    command = printable(shlex.join(map(str, row.get("argv", []))), limit=80)
    cells = (row.get("job"), row.get("person"), state, format_duration(float(row.get("age", 0))),
             format_size(int(row.get("bytes", 0))), row.get("clients"), alone)  # fmt: skip
    return (*(printable(str(cell), limit=40) for cell in cells), command)


def table(out: Output, rows: Sequence[tuple[str, ...]]) -> None:
    """Rows in columns; the last one is as long as it is."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)]
        out.line("  ".join([*cells, row[-1]]).rstrip())
