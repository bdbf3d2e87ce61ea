"""Download: the node sends, the client receives and names its own files."""

from __future__ import annotations

from collections.abc import Callable

from towline.base.errors import PeerError
from towline.client.events import TransferEvent
from towline.client.reach import Reach
from towline.client.transfer import Options, Transfer, conversation, no_stream_left
from towline.protocol.codec import Header
from towline.runtime.descriptors import descriptor_limit
from towline.runtime.pump import Connection
from towline.runtime.threads import in_thread
from towline.services import requests
from towline.services.files.conversation import ReceivingSide, Talk
from towline.services.files.messages import top_entry
from towline.services.files.places import Places, receiver_places
from towline.services.files.plan import Entry
from towline.services.files.receiver import Receiver
from towline.services.files.sinks import Sink
from towline.services.files.unsettled import Tally, Voice


class Get(Transfer):
    """SHARE/PATH into a sink. `open_sink` makes the sink for each conversation anew, for a file or a folder."""

    verb = "get"

    def __init__(
        self,
        line: Reach,
        share: str,
        path: str,
        open_sink: Callable[[str], Sink],
        options: Options,
        on_event: Callable[[TransferEvent], None],
    ) -> None:
        super().__init__(line, options, on_event)
        self._share = share
        self._path = path
        self._open_sink = open_sink
        self._tally = Tally()
        self._tally_before = 0
        self._receiver: Receiver | None = None

    def in_flight(self) -> int:
        self.books.received, self.books.wasted = self._tally.received, self._tally.wasted
        return self._tally.received - self._tally.wasted - self._tally_before

    def under_way(self) -> tuple[str, int, int] | None:
        return self._receiver.under_way() if self._receiver is not None else None

    async def converse(self, connection: Connection) -> None:
        self.begin_conversation()
        self._tally_before = self._tally.received - self._tally.wasted
        places = receiver_places(descriptor_limit(), self.lanes)
        channel, answer = await self.open(connection, self._request(places))
        with no_stream_left(channel):
            sink, top = self._begin(answer)
        talk = Talk(channel)
        side = ReceivingSide(
            talk,
            portable=not self.options.any_names,
            settled=self.settled,
            skipped=self.skipped,
            aside=self.aside,
            already=self.books.ahead,
            links=self.options.links == "keep",
            top=top,
        )
        receiver = self._receiver = self._new_receiver(sink, talk, side, places)

        async def conclude() -> None:
            await side.conclude(lambda: self._tally.counts)
            await in_thread(receiver.close)

        beside = (self.keep_lanes(connection, talk, receiver.drive, lambda: side.whole), self.tick())
        try:
            await conversation(talk, channel, talk.run(side.listen(), conclude(), beside=beside), receiver.close)
        finally:
            self.in_flight()
            sink.close()

    def _request(self, places: Places) -> Header:
        after = {} if self.books.after is None else {"after": self.books.after}
        return {
            "share": self._share,
            "path": self._path,
            "links": self.options.links,
            "any_names": self.options.any_names,
            "lanes": self.lanes,
            "rate": self.options.rate,
            "open": places.begun,
            "count": not self.counted,
            **after,
        }

    def _begin(self, answer: Header) -> tuple[Sink, Entry | None]:
        """Where it goes, and what the whole is, if it is a folder."""
        if not self.counted:
            self.started(requests.number(answer, "files", 0), requests.number(answer, "bytes", 0))
        kind = requests.text(answer, "kind")
        if kind not in ("file", "dir", "link"):
            raise PeerError("The node sends something that is neither a file nor a folder.")
        top = top_entry(answer) if kind == "dir" else None
        return self._open_sink(kind), top

    def _new_receiver(self, sink: Sink, talk: Talk, side: ReceivingSide, places: Places) -> Receiver:
        def say(header: Header, body: bytes) -> None:
            if header.get("t") in ("resume", "restarted"):
                talk.call(self._note, dict(header), side)
            talk.say(header, body)

        voice = Voice(say, side.settle, talk.abort, self._tally)
        receiver = Receiver(sink, voice, places, overwrite=self.options.overwrite)
        side.attach(receiver)
        return receiver

    def _note(self, header: Header, side: ReceivingSide) -> None:
        entry = side.entry(requests.number(header, "file"))
        path = entry.path if entry is not None else ""
        if header.get("t") == "resume":
            self.resumed(path, requests.number(header, "covered"))
        else:
            self.tell_restarted(path, requests.text(header, "reason"))
