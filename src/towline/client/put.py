"""Upload: the client sends, the node receives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from towline.client.events import TransferEvent
from towline.client.reach import Reach
from towline.client.transfer import Options, Transfer, conversation, no_stream_left
from towline.protocol.codec import Header
from towline.runtime.descriptors import descriptor_limit
from towline.runtime.pump import Connection
from towline.runtime.threads import in_thread, to_the_end
from towline.services import requests
from towline.services.files.conversation import SendingSide, Talk
from towline.services.files.digests import DigestCache
from towline.services.files.messages import top_header
from towline.services.files.pace import Pace
from towline.services.files.places import sender_places
from towline.services.files.sender import Sender
from towline.services.files.sources import Source, TreeSource
from towline.services.files.tree import Root


class Put(Transfer):
    """One file, tree or stream to SHARE/PATH. `open_source` makes the source for each conversation anew."""

    verb = "put"

    def __init__(
        self,
        line: Reach,
        share: str,
        path: str,
        open_source: Callable[[], Source],
        options: Options,
        on_event: Callable[[TransferEvent], None],
    ) -> None:
        super().__init__(line, options, on_event)
        self._share = share
        self._path = path
        self._open_source = open_source
        self._sender: Sender | None = None

    def in_flight(self) -> int:
        return self._sender.sent_bytes if self._sender is not None else 0

    def under_way(self) -> tuple[str, int, int] | None:
        return self._sender.under_way() if self._sender is not None else None

    async def converse(self, connection: Connection) -> None:
        source = await to_the_end(self._open_source, undo=lambda source: source.close())
        try:
            await self._converse(connection, source)
        finally:
            source.close()

    def _request(self, source: Source) -> Header:
        return {
            "share": self._share,
            "path": self._path,
            "kind": source.kind,
            "overwrite": self.options.overwrite,
            "any_names": self.options.any_names,
            "lanes": self.lanes,
            **top_header(source.top),
        }

    async def _converse(self, connection: Connection, source: Source) -> None:
        if not self.counted:
            self.started(*await to_the_end(source.totals, stop=source.interrupt))
        self.begin_conversation()
        channel, answer = await self.open(connection, self._request(source))
        self.note_tally(answer.get("tally"))
        ours = sender_places(descriptor_limit())
        with no_stream_left(channel):
            places = min(ours, requests.number(answer, "open", ours, least=1))
        talk = Talk(channel)
        pace = Pace(self.options.rate)
        sender = Sender(source, talk.say, after=self.books.after, lanes=self.lanes, pace=pace, places=places)
        self._sender = sender
        side = SendingSide(
            talk,
            sender,
            settled=self.settled,
            skipped=self.skipped,
            aside=self.aside,
            leave_out=lambda entry: entry.kind != "dir" and self.settled_before(entry),
        )
        over = asyncio.Event()

        async def listen() -> None:
            await side.listen()
            if channel.trailer is not None:
                self.note_tally(channel.trailer.get("tally"))
            over.set()
            await in_thread(sender.close)
            channel.end()

        beside = (self.keep_lanes(connection, talk, sender.drive, over.is_set), self.tick())
        await conversation(talk, channel, talk.run(side.plan(), listen(), beside=beside), sender.close)


def tree_source(open_root: Callable[[], tuple[Root, str]], links: str) -> Callable[[], Source]:
    """Opens the tree anew for each conversation; digests in progress are kept between them."""
    digests = DigestCache()

    def open_source() -> Source:
        root, path = open_root()
        return TreeSource(root, path, links=links, digests=digests)

    return open_source
