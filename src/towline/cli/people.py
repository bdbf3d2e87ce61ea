"""Who may use a node on this machine: people, their grants, and invites that are still open.

examples:
  tow people
  tow people --data /var/lib/towline --json
"""

from __future__ import annotations

import argparse
import time

from towline.base.errors import Exit
from towline.base.quantity import format_duration
from towline.base.text import printable
from towline.cli.administer import add_data, administer
from towline.cli.output import Output


def configure(parser: argparse.ArgumentParser) -> None:
    add_data(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    people = administer(args, {"op": "people"})
    for person in people:
        out.event("person", **person)
    if not people:
        out.note("Nobody yet; `tow invite NAME` lets somebody in.")
        return Exit.OK
    width = max(len(printable(person["name"])) for person in people)
    for person in people:
        name = printable(person["name"])
        out.line(f"{name:<{width}}  {person['state']:<7}  {person['grants']:<24}  {_when(person)}")
    return Exit.OK


def _when(person: dict[str, float | None]) -> str:
    now = time.time()
    if (expires := person.get("expires")) is not None:
        return f"invite ends in {format_duration(max(expires - now, 0))}"
    seen = person.get("last_seen")
    return f"seen {format_duration(max(now - seen, 0))} ago" if seen else "never seen"
