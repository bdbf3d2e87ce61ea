"""The talk beside the lanes: what sender and receiver of a transfer say to each other on its stream.

    sender → receiver   plan, skipped, planned, same, differs, sent, gone, lane-over
    receiver → sender   want, resume, have, restarted, kept, done, fail, lane-over

A message is a JSON header with the type in `t`; lists that may be long are JSON in the body. What each of them says,
with an example, stands in docs/reference/files-conversation.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeAlias

from towline.base.errors import BadMessage, TowlineError, error_from_wire
from towline.base.limits import KIB, MIB, Limit
from towline.base.text import printable
from towline.protocol.codec import Header
from towline.services import requests
from towline.services.files.disk import FARTHEST_NS, PERMISSIONS
from towline.services.files.plan import Entry
from towline.services.files.tree import Stat

SMALL_FILE = 64 * KIB  # up to here files travel in packs: many in one range, whole in memory
PACK_BYTES = Limit("pack_bytes", 1 * MIB, "bytes", "a pack is held whole in memory at both ends")
PACK_FILES = Limit("pack_files", 256, "files", "the files of a pack are looked up and published in one go")
PLAN_BATCH = 256  # entries
PLAN_WINDOW = 16  # batches without an outcome for each of their entries: bounds memory at both ends
_WINDOW = 2 * (PLAN_WINDOW + 2) * PLAN_BATCH  # entries; an honest plan is never so far ahead
LANES = Limit("lanes", 16, "lanes", "each is a thread and a connection at both ends")
TRANSFER_LANES = Limit(
    "transfer_lanes",
    64,
    "lanes",
    "lanes of one transfer, those that a cut has left behind and unused tickets included",
)

Say: TypeAlias = Callable[[Header, bytes], None]


class Outcome(NamedTuple):
    """How entry number `entry` ended. `note`: `same` (was there already), `kept` (left alone), or empty."""

    entry: int
    size: int
    digest: str
    note: str = ""
    error: TowlineError | None = None


def encode_rows(rows: object) -> bytes:
    """A list for a message's body."""
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def decode_rows(body: bytes) -> list[Any]:
    """The list in a message's body. Raises BadMessage."""
    try:
        rows = json.loads(body)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list):
        raise BadMessage("A message of the transfer should carry a list.")
    return rows


def index_of(value: object) -> int:
    """An entry's number. Raises BadMessage."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadMessage("An entry's number is no number.")
    return value


def runs(numbers: Iterable[int]) -> list[list[int]]:
    """Entries' numbers as [first, how many]: those of a plan mostly follow each other."""
    found: list[list[int]] = []
    first = count = 0
    for number in numbers:
        if count and number == first + count:
            count += 1
            continue
        if count:
            found.append([first, count])
        first, count = number, 1
    if count:
        found.append([first, count])
    return found


def numbers_of(rows: object) -> list[int]:
    """The inverse of `runs`. Raises BadMessage, also for more than a window has."""
    found: list[int] = []
    for row in rows if isinstance(rows, list) else [None]:
        match row:
            case [int(first), int(count)] if first >= 0 and 0 <= count <= _WINDOW - len(found):
                found.extend(range(first, first + count))
            case _:
                raise BadMessage("Entries' numbers are not runs of [first, how many].")
    return found


def encode_outcomes(outcomes: list[Outcome]) -> bytes:
    """Outcomes without errors."""
    return encode_rows([[o.entry, o.size, o.digest, o.note] for o in outcomes])


def decode_outcomes(body: bytes) -> list[Outcome]:
    """The inverse of `encode_outcomes`. Raises BadMessage."""
    found = []
    for row in decode_rows(body):
        match row:
            case [int(index), int(size), str(digest), str(note)]:
                found.append(Outcome(index_of(index), size, printable(digest, limit=64), printable(note, limit=16)))
            case _:
                raise BadMessage("An outcome is not a number, a size, a digest and a note.")
    return found


def top_header(top: Stat | None) -> Header:
    """What the whole is, in the request or its answer: a folder that is transferred keeps its own time and bits."""
    return {"top": [top.mtime_ns, top.mode]} if top is not None and top.kind == "dir" else {}


def top_entry(header: Header) -> Entry | None:
    """The inverse of `top_header`: an entry without a path. Raises BadMessage."""
    match header.get("top"):
        case None:
            return None
        case [int(mtime_ns), int(mode)] if abs(mtime_ns) <= FARTHEST_NS and 0 <= mode <= PERMISSIONS:
            return Entry("", "dir", 0, mtime_ns, mode)
        case _:
            raise BadMessage("A folder's own time and bits are two numbers.")


def fail_header(index: int, error: TowlineError, t: str = "fail") -> Header:
    """An entry's bad outcome (`fail`), or the sender's word that it cannot be had (`gone`)."""
    return {"t": t, "file": index, "code": error.code, "message": error.sentence, "retryable": error.retryable}


def failure(header: Header) -> tuple[int, TowlineError]:
    """The inverse of `fail_header`; the peer's sentence is made printable."""
    sentence = printable(requests.text(header, "message"), limit=600)
    error = error_from_wire(requests.number(header, "code"), sentence, requests.flag(header, "retryable"))
    return requests.number(header, "file"), error
