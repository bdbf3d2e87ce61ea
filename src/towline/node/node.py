"""The node: listeners, admission, identity checks, and a task for each stream."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine

from towline.base.errors import (
    BadProof,
    DiskError,
    Draining,
    InternalError,
    NoSpace,
    NotJoined,
    Refused,
    Revoked,
    StreamClosed,
    TowlineError,
)
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.base.version import __version__
from towline.node.addresses import reachable_addresses
from towline.node.config import Listening, NodeConfig, default_name, own_share
from towline.protocol import events as ev
from towline.protocol.records import Welcome
from towline.protocol.session import Session
from towline.protocol.table import Role, State
from towline.runtime.channel import Channel
from towline.runtime.descriptors import raise_descriptor_limit
from towline.runtime.lanes import LANE_TIMEOUT, TicketOffice
from towline.runtime.listener import Admission
from towline.runtime.pump import Connection
from towline.services.admin import DEFAULT_GRANTS, INVITE_SECONDS, OWNER, Administration, AdminService
from towline.services.echo import echo
from towline.services.files.service import FilesService
from towline.services.files.shares import Shares
from towline.services.jobs.service import JobsService
from towline.services.registry import Handler, Registry
from towline.services.rooms.house import House
from towline.services.rooms.service import RoomsService
from towline.store import Store
from towline.store.lock import DataLock, lock_for_node
from towline.transports import tcp, unix
from towline.transports.blocking import BlockingPipe
from towline.trust.certificate import node_certificate
from towline.trust.files import refuse_writable
from towline.trust.grants import Grants
from towline.trust.invites import secret_hash
from towline.trust.keys import Identity, verify
from towline.trust.tls import server_context

log = logging.getLogger("towline.node")
_OWNER_GRANTS = "admin"
_TAIL_SECONDS = 10.0  # how long a peer may go on sending to a service that has ended
_CANCEL_SECONDS = 5.0  # how long a cancelled handler may take to tidy up
_HURRIED_SECONDS = 0.5  # … when the node was told to end at once
_GOODBYE_SECONDS = 1.0


class Node:
    """A server that can be embedded: `async with Node(data="…") as node: await node.serve_forever()`.

    `data` may also be a `NodeConfig`. Add services with `@node.service("name")` before it starts.
    """

    def __init__(self, data: str | NodeConfig) -> None:
        self.config = data if isinstance(data, NodeConfig) else NodeConfig(data=os.fspath(data))
        self.listening = Listening()
        self.fingerprint = ""
        self.name = ""
        self._services = Registry()
        self._services.add("echo", echo, auto_accept=True)
        self._admission = Admission()
        self._tickets = TicketOffice()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tails: dict[asyncio.Task[None], Channel] = {}  # the service is done, the stream not yet
        self._servers: list[asyncio.Server] = []
        self._lock: DataLock | None = None
        self._store: Store | None = None
        self._rooms: RoomsService | None = None
        self._jobs: JobsService | None = None
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Node {self.name} {self.listening.address} connections={len(self._admission.proved)}>"

    def service(self, name: str) -> Callable[[Handler], Handler]:
        """Offer a service of your own: a coroutine function that gets the channel of each stream, accepted."""

        def add(handler: Handler) -> Handler:
            self._services.add(name, handler, auto_accept=True)
            return handler

        return add

    async def invite(self, name: str, can: str = DEFAULT_GRANTS, lasts: float = INVITE_SECONDS) -> str:
        """A code that lets one key in as `name` within `lasts` seconds; for a running node. Raises UsageError."""
        return await asyncio.to_thread(self._administration.invite, OWNER, name, can, lasts)

    # --- life ---

    async def __aenter__(self) -> Node:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(drain=0)

    async def start(self) -> None:
        """Take the data folder, load keys, listen. Raises InUse, LaxPermissions, UsageError, DiskError."""
        try:
            await asyncio.to_thread(self._open_data)
            assert self._store is not None
            shares = Shares(self.config.shares or (await asyncio.to_thread(own_share, self.config.data),))
            self._administration = Administration(self._store, self.fingerprint, self.name, self.invite_addresses)
            self._services.add("admin", AdminService(self._administration, self._shut_out))
            self._services.add("files", FilesService(shares, self._tickets, self._store.transfers))
            self._rooms = self._make_rooms(self._store)
            await self._rooms.start()
            self._services.add("rooms", self._rooms)
            self._jobs = self._make_jobs(self._store)
            await self._jobs.open()
            self._services.add("jobs", self._jobs)
            raise_descriptor_limit()
            await self._listen()
        except BaseException:
            await self.stop(drain=0)
            raise

    async def serve_forever(self) -> None:
        """Until `request_stop`, then drain."""
        await self._stopping.wait()
        await self.stop()

    def request_stop(self) -> None:
        """Begin to drain; a second call ends at once."""
        if self._stopping.is_set():
            self._hurry.set()
        self._stopping.set()

    @property
    def hurried(self) -> bool:
        """Whether it was told to end at once."""
        return self._hurry.is_set()

    async def stop(self, drain: float | None = None) -> None:
        """Stop listening, let work finish for `drain` seconds (default: the configured time), close everything."""
        grace = self.config.drain if drain is None else drain
        for server in self._servers:
            server.close()
        self._servers.clear()
        going = Draining("The node is shutting down.", retry_after=1.0)
        work = self._tasks | {task for task, channel in self._tails.items() if channel.stream.has_output}
        if grace and work and not self.hurried:
            for connection in list(self._admission.proved):
                connection.drain(going, grace)
            if self._rooms is not None:
                self._rooms.drain(going)  # who follows a room would never be done
            self._let_jobs_go_on()
            await self._wait_for(work, grace)
        await self._close_all(going)

    def _make_jobs(self, store: Store) -> JobsService:
        folder = os.path.join(os.path.abspath(self.config.data), "jobs")
        return JobsService(
            store, self._tickets, folder, spool=self.config.spool, spool_per_job=self.config.spool_per_job
        )

    def _make_rooms(self, store: Store) -> RoomsService:
        config = self.config
        pace = {"rate": config.room_rate, "burst": config.room_burst, "grace": config.room_grace}
        return RoomsService(House(store, config.data, **pace))

    async def _wait_for(self, work: set[asyncio.Task[None]], grace: float) -> None:
        done = asyncio.ensure_future(asyncio.wait(work))
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait((done, hurry), timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        hurry.cancel()

    def _let_jobs_go_on(self) -> None:
        """Who looks at them comes back: it is us who leave, not they."""
        if self._jobs is not None:
            self._jobs.begin_drain()

    async def _close_all(self, going: TowlineError) -> None:
        self._let_jobs_go_on()
        for connection in self._admission.everyone():
            connection.close(going)
            if self.hurried or not connection.person:
                connection.abort()
        self._tickets.shutdown()
        work = {*self._tasks, *self._tails}
        for task in work:
            task.cancel()
        if work:
            await asyncio.wait(work, timeout=_HURRIED_SECONDS if self.hurried else _CANCEL_SECONDS)
        await asyncio.to_thread(self._tickets.join, _HURRIED_SECONDS if self.hurried else _CANCEL_SECONDS)
        await self._everyone_gone()
        for connection in self._admission.everyone():
            connection.abort()
        await self._everyone_gone()
        if self.listening.unix is not None:
            unix.remove(self.listening.unix)
            self.listening.unix = None
        if self._rooms is not None:
            await self._rooms.close()
        if self._jobs is not None:
            await self._jobs.close()
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        if self._lock is not None:
            self._lock.release()

    async def _everyone_gone(self) -> None:
        """Last words need a moment to be heard."""
        goodbyes = [asyncio.ensure_future(connection.wait_closed()) for connection in self._admission.everyone()]
        if goodbyes:
            await asyncio.wait(goodbyes, timeout=_GOODBYE_SECONDS)
        for goodbye in goodbyes:
            goodbye.cancel()

    def _open_data(self) -> None:
        config = self.config
        with oserrors(config.data):
            os.makedirs(config.data, mode=0o700, exist_ok=True)
        refuse_writable(config.data)
        self._lock = lock_for_node(config.data)
        self._store = Store.open(config.data)
        self.name = config.name or self._store.settings.get("name") or default_name()
        self._store.settings.set("name", self.name)
        identity = Identity.load_or_create(config.keys_folder, "node")
        certificate, key, self.fingerprint = node_certificate(identity, config.keys_folder, self.name)
        self._context = server_context(certificate, key)

    async def _listen(self) -> None:
        config = self.config
        if config.listen is not None:
            host, port = tcp.split_address(config.listen)
            server, self.listening.address = await tcp.listen(host, port, self._context, self._new_connection)
            self._servers.append(server)
        server = await unix.listen(config.unix_path, self._new_connection)
        self._servers.append(server)
        self.listening.unix = config.unix_path
        assert self._store is not None
        addresses = "\n".join(self.invite_addresses())
        await asyncio.to_thread(self._store.settings.set, "addresses", addresses)
        await asyncio.to_thread(self._store.settings.set, "unix", config.unix_path)

    def invite_addresses(self) -> list[str]:
        """Where an invited client finds this node, best first: the address listened on (this machine's own ones when
        that is all of them), or the Unix socket."""
        if self.listening.address is not None:
            return reachable_addresses(self.listening.address)
        return [f"unix:{self.listening.unix}"]

    # --- House ---

    def _new_connection(self) -> Connection:
        return Connection(self)

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        self._admission.arrive(connection)
        return Session(
            Role.NODE,
            agent=f"towline {__version__}",
            nonce=nonce,
            now=now,
            fingerprint=self.fingerprint,
            name=self.name,
            patience=self.config.handshake,
        )

    def on_connected(self, connection: Connection) -> None:
        """A node has nothing to check before the client's HELLO."""

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        match event:
            case ev.ProofOffered():
                self._spawn(self._check_proof(connection, event))
            case ev.LaneRequested(ticket):
                self._admit_lane(connection, ticket)
            case _:
                pass  # GoingAway: the client drains; its streams end by themselves

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        self._spawn(self._run_service(connection, channel))

    def on_closed(self, connection: Connection, error: TowlineError | None) -> None:
        self._admission.leave(connection)
        if connection.person:
            log.info("%s left: %s", connection.person, error.sentence if error else "closed")

    # --- inside ---

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._tails.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task failed", exc_info=error)

    async def _check_proof(self, connection: Connection, offered: ev.ProofOffered) -> None:
        try:
            person, grants = await asyncio.to_thread(self._identify, connection, offered)
            if connection.session.state is not State.VERDICT:
                return  # it left meanwhile
            self._admission.prove(connection)
        except TowlineError as error:
            log.info("%s was refused: %s", connection.peer.address, error.sentence)
            connection.close(error)
            return
        connection.person, connection.grants = person, grants
        connection.session.welcome(Welcome(person, str(grants)))
        connection.flush()
        if person != OWNER and not await asyncio.to_thread(self._still_welcome, person):
            connection.close(Revoked())  # shut out between the check and the welcome
            return
        log.info("%s came from %s", person, connection.peer.address)

    def _identify(self, connection: Connection, offered: ev.ProofOffered) -> tuple[str, Grants]:
        """Who that is. Blocking. Raises Refused and its kin."""
        proof = offered.proof
        assert self._store is not None
        if proof.method == "peer":
            if connection.peer.uid != os.getuid():
                raise Refused("Only the node's own user is let in without a key; join with an invite.")
            return OWNER, Grants.parse(_OWNER_GRANTS)
        if not verify(proof.key, proof.signature, offered.transcript):
            raise BadProof
        now = time.time()
        if proof.method == "invite":
            person = self._store.invites.redeem(secret_hash(proof.secret), proof.key, now)
            self._store.audit.note(now, person.name, "join", connection.peer.address, "")
        else:
            known = self._store.people.by_key(proof.key)
            if known is None:
                raise NotJoined
            person = known
        if person.revoked:
            raise Revoked
        try:
            self._store.people.seen(person.name, now)
        except (NoSpace, DiskError) as error:  # who comes to read, or to make room, is let in all the same
            log.warning("That %s was here could not be noted: %s", person.name, error.sentence)
        return person.name, Grants.parse(person.grants)

    def _still_welcome(self, name: str) -> bool:
        assert self._store is not None
        person = self._store.people.by_name(name)
        return person is not None and not person.revoked

    def _admit_lane(self, connection: Connection, ticket: str) -> None:
        try:
            person, drive = self._tickets.redeem(ticket)
        except TowlineError as error:
            connection.close(error)
            return
        connection.session.welcome(Welcome(person, "", lane=True))
        sock, tls, outgoing, rest = connection.detach()
        self._admission.leave(connection)
        if rest:
            sock.close()  # a client that talks before its WELCOME is not one of ours
            return
        self._tickets.run(BlockingPipe(sock, tls, timeout=LANE_TIMEOUT.value), outgoing, drive)

    async def _run_service(self, connection: Connection, channel: Channel) -> None:
        task = asyncio.current_task()
        assert task is not None
        channel.cancel_when_lost(task, self.config.orphan)
        try:
            await self._services.find(channel.service)(channel)
            channel.end()
            self._tasks.discard(task)
            self._tails[task] = channel
            await _see_off(channel)
        except TowlineError as error:
            channel.reset(error)
        except asyncio.CancelledError:
            channel.reset(Draining())
            raise
        except Exception:
            log.exception("the service %s failed", printable(channel.service, limit=80))
            channel.reset(InternalError("The node has a bug in this service; its log has the details."))
        finally:
            connection.release(channel)

    def _shut_out(self, name: str) -> None:
        for connection in list(self._admission.proved):
            if connection.person == name:
                connection.close(Revoked())


async def _see_off(channel: Channel) -> None:
    """Let the peer finish its side; what it says now is for nobody, and it may not take for ever over it."""
    try:
        async with asyncio.timeout(_TAIL_SECONDS):
            while await channel.receive() is not None:
                pass
    except TimeoutError:
        pass
    await channel.flush()
    channel.reset(StreamClosed("The service has ended."))
