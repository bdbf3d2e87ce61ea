"""The service `files`: what a person asks of a node's shares, within their grants."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from towline.base.errors import BadMessage, BadTicket, NoGrant, Superseded
from towline.base.limits import Limit
from towline.protocol.codec import Header
from towline.runtime.channel import Channel
from towline.runtime.descriptors import descriptor_limit
from towline.runtime.lanes import Lane, StreamLane, TicketOffice
from towline.runtime.threads import in_thread, to_the_end
from towline.services import requests
from towline.services.files.conversation import Aside, ReceivingSide, SendingSide, Talk
from towline.services.files.digests import DigestCache
from towline.services.files.messages import LANES, TRANSFER_LANES, Outcome, encode_rows, top_entry, top_header
from towline.services.files.names import split_path
from towline.services.files.pace import Pace
from towline.services.files.places import receiver_places, sender_places
from towline.services.files.plan import Entry, Skipped
from towline.services.files.receiver import OVERWRITE, Receiver
from towline.services.files.sender import Sender
from towline.services.files.shares import Shares
from towline.services.files.sinks import OpenParts, TreeSink
from towline.services.files.sources import TreeSource
from towline.services.files.tree import Root, Stat
from towline.services.files.unsettled import Tally, Voice
from towline.store.transfers import Transfers
from towline.trust.grants import Grants

TRANSFERS = Limit("transfers", 256, "transfers", "what a node remembers of cut transfers to resume them quickly")
LISTING_BATCH = 500
_LINKS = ("skip", "keep")


@dataclass(slots=True)
class _Transfer:
    """What the node keeps of one transfer between its conversations: savings of time, nothing that is needed."""

    digests: DigestCache = field(default_factory=DigestCache)
    tally: Tally = field(default_factory=Tally)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    drive: Callable[[Lane, int], None] | None = None
    end: Callable[[], None] | None = None
    lanes: int = 0
    tickets: set[str] = field(default_factory=set)  # of this conversation, that nobody has used
    driven: set[object] = field(default_factory=set)  # lanes that a thread drives

    def check_lanes(self) -> None:
        """Raise LimitExceeded where there can be no lane more."""
        TRANSFER_LANES.check(1 + len(self.tickets) + len(self.driven))

    def counted(self, drive: Callable[[Lane, int], None], lane: Lane, number: int, ticket: str = "") -> None:
        """Drive a lane, on its thread."""
        self.driven.add(lane)
        self.tickets.discard(ticket)
        try:
            drive(lane, number)
        finally:
            self.driven.discard(lane)


class FilesService:
    """One for a node. Each request is a stream; `op` says what is wanted."""

    def __init__(self, shares: Shares, tickets: TicketOffice, transfers: Transfers) -> None:
        self._shares = shares
        self._tickets = tickets
        self._record = transfers
        self._parts = OpenParts()
        self._transfers: OrderedDict[tuple[str, str], _Transfer] = OrderedDict()

    async def __call__(self, channel: Channel) -> None:
        op = channel.header.get("op")
        match op:
            case "put":
                await self._put(channel)
            case "get":
                await self._get(channel)
            case "lane":
                await self._lane(channel)
            case "list":
                await self._list(channel)
            case "stat" | "mkdir" | "move" | "remove" | "shares":
                # A tree may take its time to go; the loop's shared threads are for all who want in, too.
                work = in_thread if op == "remove" else asyncio.to_thread
                result = await work(self._simple, str(op), channel.header, _grants(channel))
                channel.accept()
                await channel.send(encode_rows(result))
            case _:
                raise BadMessage(f"The service files has no operation {op!r}.")

    # --- single steps ---

    def _simple(self, op: str, header: Header, grants: Grants) -> list[object]:
        if op == "shares":
            return [[s.name, s.read_only or not grants.allows("write", s.name)] for s in self._shares.names(grants)]
        path = requests.text(header, "path")
        if op == "stat":
            return self._look(header, grants, path)
        with self._open(header, grants, write=True) as root:
            match op:
                case "mkdir":
                    parents = requests.flag(header, "parents")
                    return [root.mkdir(path, parents=parents, exist_ok=parents)]
                case "move":
                    to = requests.text(header, "to")
                    split_path(to, portable=root.portable)  # what is there may be called anything
                    root.view(portable=False).move(path, to, replace=requests.flag(header, "replace"))
                case "remove":
                    root.remove(path, recursive=requests.flag(header, "recursive"))
        return []

    def _look(self, header: Header, grants: Grants, path: str) -> list[object]:
        try:
            root = self._open(header, grants, write=False)
        except NoGrant:
            # Whoever may only write has to know whether a target is a folder, and learns no more than that.
            with self._open(header, grants, write=True) as root:
                return _row(root.stat(path)._replace(size=0, mtime_ns=0, mode=0))
        with root:
            return _row(root.stat(path))

    def _open(self, header: Header, grants: Grants, *, write: bool) -> Root:
        portable = not requests.flag(header, "any_names")
        return self._shares.open(requests.text(header, "share"), grants, write=write, portable=portable)

    async def _root(self, channel: Channel, *, write: bool) -> Root:
        """The share of a request, opened; whoever is cancelled waits for that, and leaves nothing open."""
        header, grants = channel.header, _grants(channel)
        return await to_the_end(lambda: self._open(header, grants, write=write), undo=Root.close)

    async def _list(self, channel: Channel) -> None:
        """The entries of a folder, a few hundred in a message; a file is listed as itself."""
        with await self._root(channel, write=False) as root:
            path = requests.text(channel.header, "path")
            info = await to_the_end(lambda: root.stat(path))
            entries = iter([info]) if info.kind != "dir" else await to_the_end(lambda: root.list(path))
            channel.accept({"kind": info.kind})
            while rows := await to_the_end(lambda: _some_rows(entries)):
                await channel.send(encode_rows(rows))

    # --- transfers ---

    async def _put(self, channel: Channel) -> None:
        header = channel.header
        overwrite = _choice(header, "overwrite", OVERWRITE)
        kind = _choice(header, "kind", ("file", "dir"))
        path = requests.text(header, "path")
        transfer = await self._begin(channel)
        async with transfer.turn:
            root = await self._root(channel, write=True)
            sink = TreeSink(root, path, kind=kind, owner=channel.person, parts=self._parts, digests=transfer.digests)
            try:
                if kind == "dir":
                    await to_the_end(lambda: root.mkdir(path, parents=True, exist_ok=True))
                await self._receive(channel, transfer, sink, overwrite)
            finally:
                sink.close()

    async def _receive(self, channel: Channel, transfer: _Transfer, sink: TreeSink, overwrite: str) -> None:
        talk = Talk(channel)
        side = ReceivingSide(
            talk,
            portable=not requests.flag(channel.header, "any_names"),
            settled=_ignore_outcome,
            skipped=_ignore_skipped,
            aside=self._aside(channel, talk, transfer),
            top=top_entry(channel.header),
        )
        voice = Voice(talk.say, side.settle, talk.abort, transfer.tally)
        places = receiver_places(descriptor_limit(), _lanes(channel))
        receiver = Receiver(sink, voice, places, overwrite=overwrite)
        side.attach(receiver)
        try:
            self._open_door(channel, transfer, receiver.drive, {"open": places.begun})
            await talk.run(side.listen(), side.conclude(lambda: transfer.tally.counts))
        finally:
            self._close_door(transfer)
            await to_the_end(receiver.close)

    async def _get(self, channel: Channel) -> None:
        header = channel.header
        path = requests.text(header, "path")
        links = _choice(header, "links", _LINKS)
        after = requests.text(header, "after", "") or None
        transfer = await self._begin(channel)
        async with transfer.turn:
            root = await self._root(channel, write=False)
            source = await to_the_end(
                lambda: TreeSource(root, path, links=links, digests=transfer.digests), undo=TreeSource.close
            )
            try:
                opening: Header = {"kind": source.kind, **top_header(source.top)}
                if requests.flag(header, "count"):
                    files, size = await to_the_end(source.totals, stop=source.interrupt)
                    opening |= {"files": files, "bytes": size}
                await self._send(channel, transfer, source, after, opening)
            finally:
                source.close()

    async def _send(
        self, channel: Channel, transfer: _Transfer, source: TreeSource, after: str | None, opening: Header
    ) -> None:
        header = channel.header
        talk = Talk(channel)
        pace = Pace(requests.number(header, "rate", 0))
        ours = sender_places(descriptor_limit())
        places = min(ours, requests.number(header, "open", ours, least=1))
        sender = Sender(source, talk.say, after=after, lanes=_lanes(channel), pace=pace, places=places)
        side = SendingSide(
            talk,
            sender,
            settled=_ignore_outcome,
            skipped=_ignore_skipped,
            aside=self._aside(channel, talk, transfer),
        )
        try:
            self._open_door(channel, transfer, sender.drive, opening)
            await talk.run(side.plan(), side.listen())
        finally:
            self._close_door(transfer)
            await to_the_end(sender.close)

    async def _begin(self, channel: Channel) -> _Transfer:
        """What is known of the transfer; an older conversation of it is ended: the newcomer is the live one."""
        name = requests.text(channel.header, "transfer")
        key = (channel.person, name[:64])
        transfer = self._transfers.pop(key, None) or _Transfer()
        self._transfers[key] = transfer
        while len(self._transfers) > TRANSFERS.value:
            oldest = next(iter(self._transfers))
            if self._transfers[oldest].turn.locked():
                self._transfers.move_to_end(oldest)
                break
            del self._transfers[oldest]
        if transfer.end is not None:
            transfer.end()
        return transfer

    def _open_door(
        self, channel: Channel, transfer: _Transfer, drive: Callable[[Lane, int], None], opening: Header
    ) -> None:
        """Accept, with tickets for as many lanes as were asked for."""
        transfer.drive = drive
        transfer.end = lambda: channel.reset(Superseded())
        tickets = [self._ticket(channel.person, transfer) for _ in range(_lanes(channel))]
        channel.accept(opening | {"tickets": tickets, "tally": transfer.tally.counts})

    def _close_door(self, transfer: _Transfer) -> None:
        """No more lanes for this conversation."""
        transfer.drive = transfer.end = None
        self._tickets.withdraw(list(transfer.tickets))  # lanes that begin take theirs out of it
        transfer.tickets.clear()

    def _ticket(self, person: str, transfer: _Transfer) -> list[object]:
        transfer.check_lanes()
        transfer.lanes += 1
        number, drive = transfer.lanes, transfer.drive
        if drive is None:
            raise BadTicket
        ticket = self._tickets.issue(person, lambda lane: transfer.counted(drive, lane, number, ticket))
        transfer.tickets.add(ticket)
        return [number, ticket]

    def _aside(self, channel: Channel, talk: Talk, transfer: _Transfer) -> Aside:
        async def hear(header: Header) -> None:
            if header.get("t") == "ticket":
                number, ticket = self._ticket(channel.person, transfer)
                talk.say({"t": "ticket", "lane": number, "ticket": ticket})

        return hear

    async def _lane(self, channel: Channel) -> None:
        """A lane over a stream, where a second connection cannot be had."""
        transfer = self._transfers.get((channel.person, requests.text(channel.header, "transfer")[:64]))
        number = requests.number(channel.header, "lane")
        if transfer is None or transfer.drive is None:
            raise BadTicket
        transfer.check_lanes()
        channel.accept()
        await in_thread(transfer.counted, transfer.drive, StreamLane(channel), number)


def _grants(channel: Channel) -> Grants:
    grants = channel.connection.grants
    assert isinstance(grants, Grants)
    return grants


def _lanes(channel: Channel) -> int:
    return requests.number(channel.header, "lanes", 1, least=0, most=LANES.value)


def _choice(header: Header, name: str, choices: tuple[str, ...]) -> str:
    value = requests.text(header, name, choices[0])
    if value not in choices:
        raise BadMessage(f"The request's {name!r} is none of {', '.join(choices)}.")
    return value


def _row(stat: Stat) -> list[object]:
    return [stat.name, stat.kind, stat.size, stat.mtime_ns, stat.mode]


def _some_rows(entries: Iterator[Stat]) -> list[list[object]]:
    rows: list[list[object]] = []
    for stat in entries:
        rows.append(_row(stat))
        if len(rows) >= LISTING_BATCH:
            break
    return rows


def _ignore_outcome(ended: list[tuple[Entry, Outcome]]) -> None:
    """The client keeps the books."""


def _ignore_skipped(skipped: Skipped) -> None:
    """The client says so."""
