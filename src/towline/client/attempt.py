"""One attempt to reach a node at one address: connect, check the pin, prove the key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from towline.base.errors import ConnectionLost, TowlineError, UnknownService, Unreachable
from towline.base.quantity import format_duration
from towline.base.text import printable
from towline.base.version import __version__
from towline.client.reach import Reach
from towline.protocol import events as ev
from towline.protocol.records import Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import Role
from towline.runtime.channel import Channel
from towline.runtime.pump import Connection
from towline.transports import tcp, unix
from towline.trust.keys import Identity


class Credentials:
    """How this client proves itself: its key, a key with an invite, or (Unix socket) the kernel's word."""

    def __init__(self, identity: Identity | None, secret: bytes | None = None) -> None:
        self._identity = identity
        self._secret = secret

    def proof(self, transcript: bytes) -> Proof:
        if self._identity is None:
            return Proof("peer")
        signature = self._identity.sign(transcript)
        if self._secret is None:
            return Proof("key", self._identity.public, signature)
        return Proof("invite", self._identity.public, signature, self._secret)


class Attempt:
    """The house of one connection: dials it, answers the handshake, then has nothing more to decide.

    `on_gone` is called once when a connection that was made is over, whether or not it ever was of use.
    """

    def __init__(self, line: Reach, credentials: Credentials, on_gone: Callable[[Connection], None]) -> None:
        self._line = line
        self._credentials = credentials
        self._on_gone = on_gone
        self._done: asyncio.Future[Welcome] = asyncio.get_running_loop().create_future()
        self._done.add_done_callback(lambda done: done.cancelled() or done.exception())  # if nobody waits any more
        self.connection = Connection(self)

    async def run(self, address: str, timeout: float) -> Welcome:
        """Connect to `HOST:PORT` or `unix:PATH` within `timeout` seconds.

        Raises Unreachable, NotTowline, WrongPin, and whatever the node refuses with.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._connect(address)
                return await self._done
        except TimeoutError:
            self.connection.abort()
            raise Unreachable(f"{printable(address)} did not answer within {format_duration(timeout)}.") from None
        except BaseException:
            self.connection.abort()
            raise

    async def _connect(self, address: str) -> None:
        if address.startswith("unix:"):
            await unix.connect(address[5:], self.connection)
        else:
            host, port = tcp.split_address(address)
            await tcp.connect(host, port, self._line.tls_context(), self.connection)

    # --- House ---

    def session_for(self, connection: Connection, now: float, nonce: bytes) -> Session:
        return Session(
            Role.CLIENT,
            agent=f"towline {__version__}",
            nonce=nonce,
            now=now,
            fingerprint=self._line.target.fingerprint,
        )

    def on_connected(self, connection: Connection) -> None:
        if connection.peer.kind == "tcp":
            self._line.check_certificate(connection.peer.certificate)

    def on_event(self, connection: Connection, event: ev.Event) -> None:
        match event:
            case ev.ProofWanted(transcript=transcript):
                connection.session.prove(self._credentials.proof(transcript))
            case ev.Welcomed(welcome):
                connection.session.ping(connection.loop.time())  # the first measure of the round trip
                if not self._done.done():
                    self._done.set_result(welcome)
            case _:
                pass  # GoingAway: the line looks at `going_away` before it opens the next stream

    def on_stream(self, connection: Connection, channel: Channel) -> None:
        channel.reset(UnknownService("This client offers no services."))
        connection.release(channel)

    def on_closed(self, connection: Connection, error: TowlineError | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionLost("The node closed the connection."))
        self._on_gone(connection)
