"""Ways for bytes to travel: TCP with TLS 1.3, Unix sockets, an in-memory pair.

In: addresses, TLS contexts, buffers to write. Out: bytes as they come, and what the kernel knows of the peer.
May import: base, protocol's table (names of the wire); asyncio and ssl start here.
Must not: know frames, sessions, keys or people; a TLS context is an argument.

Each transport passes the same conformance suite (tests/transports/conformance.py). They push into a `Receiver` and
take a list of buffers; none of them starts a task, so that an idle connection costs its TLS state and little more.
"""

from towline.transports.interface import Peer, Receiver, Transport

__all__ = ["Peer", "Receiver", "Transport"]
