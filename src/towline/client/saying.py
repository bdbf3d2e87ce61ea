"""What `say` and its kin share: messages made ready to be sent, and whoever waits for what becomes of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from towline.base.errors import TowlineError
from towline.base.ids import encode
from towline.base.limits import KIB
from towline.journal import Cursor
from towline.services.rooms.limits import ROOM_ID, ROOM_PENDING, ROOM_TEXT
from towline.services.rooms.messages import Post, said, utf8

if TYPE_CHECKING:
    from towline.client.parcel import Outcome

PARCEL_BYTES = 64 * KIB


def names(count: int) -> list[str]:
    """New ids for so many messages."""
    name = encode(os.urandom(10))
    return [f"{name}.{number}" for number in range(count)]


def measured(post: Post) -> Post:
    """Raises BadMessage, LimitExceeded for what never could be sent; the node looks at everything else."""
    if not post.is_plain:
        ROOM_TEXT.check(len(utf8(post.text)), what="text of one message")
        ROOM_ID.check(len(utf8(post.id)))
    return post


def parcels(posts: list[Post]) -> Iterator[tuple[list[Post], bytes]]:
    """In requests that are not larger than they should be."""
    body = said(posts)
    if len(posts) <= 1 or (len(posts) <= ROOM_PENDING.value and len(body) <= PARCEL_BYTES):
        yield posts, body
        return
    half = len(posts) // 2
    yield from parcels(posts[:half])
    yield from parcels(posts[half:])


def waiter() -> asyncio.Future[Any]:
    """For outcomes that nobody need ask for."""
    waiter = asyncio.get_running_loop().create_future()
    waiter.add_done_callback(lambda done: done.cancelled() or done.exception())
    return waiter


def tell_one(waiter: asyncio.Future[Cursor], told: list[Outcome] | TowlineError) -> bool:
    if waiter.done():
        return False
    outcome = told if isinstance(told, TowlineError) else told[0]
    if isinstance(outcome, TowlineError):
        waiter.set_exception(outcome)
    else:
        waiter.set_result(outcome)
    return True


def tell_all(waiter: asyncio.Future[list[Outcome]], told: list[Outcome] | TowlineError) -> bool:
    if waiter.done():
        return False
    if isinstance(told, TowlineError):
        waiter.set_exception(told)
    else:
        waiter.set_result(told)
    return True
