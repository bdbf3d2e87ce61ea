"""The service `jobs`. Each request is a stream; `op` says what is wanted."""

from __future__ import annotations

import time

from towline.base.errors import BadMessage, Conflict, UnknownJob
from towline.protocol.codec import Header
from towline.runtime.channel import Channel
from towline.runtime.lanes import TicketOffice
from towline.services import requests
from towline.services.answers import in_messages
from towline.services.jobs import messages
from towline.services.jobs.bypass import Lanes
from towline.services.jobs.input import take_input
from towline.services.jobs.messages import KILL_GRACE, check_grants, parse_spec, signal_number
from towline.services.jobs.output import Wanted, send_output
from towline.services.jobs.replay import send_replay
from towline.services.jobs.roster import Roster
from towline.store import Store
from towline.store.jobs import JobRow
from towline.trust.grants import Grants

_STREAMS = {"stdout": frozenset({1}), "stderr": frozenset({2}), "both": frozenset({1, 2})}


class JobsService:
    """One for a node. `folder` is the jobs' own; `spool` and `spool_per_job` in bytes."""

    def __init__(self, store: Store, tickets: TicketOffice, folder: str, *, spool: int, spool_per_job: int) -> None:
        self._lanes = Lanes(tickets)
        self._roster = Roster(store, folder, spool=spool, spool_per_job=spool_per_job)

    async def open(self) -> None:
        """Take over what an earlier node left. Before the node listens."""
        await self._roster.open()

    def begin_drain(self) -> None:
        """End the streams of output that wait: their clients come back to the next node."""
        self._roster.draining.set()
        for live in self._roster.live.values():
            live.ring()

    async def close(self) -> None:
        """Let go of the keeper, which goes on."""
        await self._roster.close()

    async def __call__(self, channel: Channel) -> None:
        _grants(channel).require("run")
        match channel.header.get("op"):
            case "start":
                await self._start(channel)
            case "attach":
                await self._attach(channel)
            case "input":
                await self._input(channel)
            case "signal":
                await self._signal(channel)
            case "list":
                await self._list(channel)
            case "forget":
                await self._forget(channel)
            case other:
                raise BadMessage(f"The service jobs has no operation {other!r}.")

    # --- the operations ---

    async def _start(self, channel: Channel) -> None:
        message = await channel.receive()
        if message is None:
            raise BadMessage("The command did not come.")
        spec = parse_spec(message.body)
        if not spec.request:
            raise BadMessage("The command has no request id.")
        check_grants(_grants(channel), spec)
        row = await self._roster.start(channel.person, spec)
        channel.accept(_opening(row))
        if requests.flag(channel.header, "follow"):
            await self._send(channel, row, Wanted(1, True, _STREAMS["both"], True))

    async def _attach(self, channel: Channel) -> None:
        header = channel.header
        row = await self._find(channel)
        stream = requests.text(header, "stream", "both")
        if stream not in _STREAMS:
            raise BadMessage("The request's 'stream' is none of stdout, stderr, both.")
        seq = requests.number(header, "from", 1, least=-1)
        if requests.flag(header, "note"):
            self._roster.note(channel.person, "attach", row.id, f"from {seq}")
        opening = _opening(row)
        if seq < 0:  # the end, whatever it is by then
            seq = self._roster.live[row.id].end if row.id in self._roster.live else 1 << 62
        channel.accept(opening)
        if requests.flag(header, "screen"):
            seq = await send_replay(channel, self._roster, row) or seq
        wanted = Wanted(max(seq, 1), requests.flag(header, "follow"), _STREAMS[stream], requests.flag(header, "acks"))
        await self._send(channel, row, wanted)

    async def _send(self, channel: Channel, row: JobRow, wanted: Wanted) -> None:
        # A lost lane ends the stream; a job that is to end with its connection would take that for the loss of it.
        may = requests.flag(channel.header, "lanes") and row.on_disconnect != "kill"
        lanes = self._lanes if may else None
        await send_output(channel, self._roster, row, wanted, lanes)

    async def _input(self, channel: Channel) -> None:
        row = await self._find(channel)
        writer = requests.text(channel.header, "writer")[:64]
        await take_input(channel, self._roster, self._roster.live.get(row.id), row.id, f"{channel.person}/{writer}")

    async def _signal(self, channel: Channel) -> None:
        row = await self._find(channel)
        number = signal_number(requests.text(channel.header, "signal"))
        grace = requests.seconds(channel.header, "kill_after", KILL_GRACE)
        hard = number == signal_number("TERM") and grace > 0
        done = await self._roster.signal(channel.person, row, number, grace if hard else None)
        channel.accept({"done": done})

    async def _list(self, channel: Channel) -> None:
        everybody = _grants(channel).allows("admin") and requests.flag(channel.header, "all")
        rows = await self._roster.rows(None if everybody else channel.person)
        stalled = await self._roster.keeping.stalled()
        channel.accept()
        for part in in_messages(_listed(*each) | {"full": each[0].id in stalled} for each in rows):
            await channel.send(part)

    async def _forget(self, channel: Channel) -> None:
        row = await self._find(channel)
        if row.id in self._roster.live and not self._roster.live[row.id].over:
            raise Conflict("The job is running; kill it first.")
        await self._roster.forget(row)
        self._roster.note(channel.person, "forget", row.id)
        channel.accept()

    # --- inside ---

    async def _find(self, channel: Channel) -> JobRow:
        row = await self._roster.find(requests.text(channel.header, "job"))
        if row.person != channel.person and not _grants(channel).allows("admin"):
            raise UnknownJob
        return row


def _grants(channel: Channel) -> Grants:
    grants = channel.connection.grants
    assert isinstance(grants, Grants)
    return grants


def _opening(row: JobRow) -> Header:
    return {"job": row.id, "state": row.state, "terminal": row.terminal, "started": row.started}


def _listed(row: JobRow, clients: int) -> Header:
    """One job for a list; `argv` is cut to what fits a message."""
    return {
        "job": row.id,
        "person": row.person,
        "state": row.state if row.state != "starting" else "running",
        "status": row.status if row.signal is None else 128 + row.signal,
        "signal": None if row.signal is None else messages.signal_name(row.signal),
        "argv": [word[:500] for word in row.argv[:50]],
        "started": row.started,
        "ended": row.ended,
        "age": round(max(time.time() - row.started, 0.0), 3),
        "bytes": row.bytes,
        "clients": clients,
        "terminal": row.terminal,
        "on_disconnect": [row.on_disconnect, row.after],
        "reason": row.reason,
    }
