"""Sessions that stand somewhere, for bytes to be thrown at."""

from __future__ import annotations

from collections.abc import Callable

from towline.protocol.records import Limits, Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import Class, Role

SMALL = Limits(frame_header=1024, frame_body=1024, message=5000, streams=4, stream_window=8240,
               connection_window=8240)  # fmt: skip


def fresh(role: Role, lane: str | None = None) -> Session:
    return Session(role, agent="fuzz", nonce=bytes(32), now=0.0, name="n", lane=lane, limits=SMALL)


def taken(session: Session) -> bytes:
    return b"".join(bytes(buffer) for buffer in session.take(1 << 30))


def pair() -> tuple[Session, Session]:
    """A client and a node behind the handshake."""
    client, node = fresh(Role.CLIENT), fresh(Role.NODE)
    node.receive(taken(client), 0.1)
    client.receive(taken(node), 0.2)
    client.prove(Proof("peer"))
    node.receive(taken(client), 0.3)
    node.welcome(Welcome("ada", "read"))
    client.receive(taken(node), 0.4)
    return client, node


def _said_hello() -> Session:
    node = fresh(Role.NODE)
    node.receive(taken(fresh(Role.CLIENT)), 0.1)
    return node


def _with_streams(role: Role) -> Session:
    client, node = pair()
    subject = client if role is Role.CLIENT else node
    for cls in (Class.INTERACTIVE, Class.CHAT, Class.BULK):
        subject.send(subject.open({"service": "echo"}, cls), bytes(3000), {"n": 1})
    other = node if subject is client else client
    stream = other.open({"service": "echo"})
    other.send(stream, b"hello")
    subject.receive(taken(other), 0.5)
    return subject


LISTENERS: tuple[Callable[[], Session], ...] = (
    lambda: fresh(Role.NODE),
    lambda: fresh(Role.CLIENT),
    lambda: fresh(Role.CLIENT, "ticket"),
    _said_hello,
    lambda: pair()[0],
    lambda: pair()[1],
    lambda: _with_streams(Role.CLIENT),
    lambda: _with_streams(Role.NODE),
)
