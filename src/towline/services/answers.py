"""Long lists as an answer: in as many messages as they need, because a message has a limit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from towline.base.limits import MESSAGE

# A row of a list of ours takes less than half of what a message may have, so that there is always room for one more.
MESSAGE_BYTES = MESSAGE.value // 2


def in_messages(rows: Iterable[object]) -> Iterator[bytes]:
    """Each a list in JSON; one empty list when there are no rows."""
    parts: list[str] = []
    size = 0
    for row in rows:
        part = json.dumps(row)
        if parts and size + len(part) > MESSAGE_BYTES:
            yield _list_of(parts)
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    yield _list_of(parts)


def _list_of(parts: list[str]) -> bytes:
    return f"[{','.join(parts)}]".encode("ascii")
