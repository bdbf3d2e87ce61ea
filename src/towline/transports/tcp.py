"""TCP with TLS 1.3: connect by Happy Eyeballs (RFC 8305), listen on IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohappyeyeballs

from towline.base.errors import InUse, Unreachable, UsageError
from towline.transports.interface import Receiver, ReceiverFactory
from towline.transports.streams import StreamTransport

# Connections that wait to be accepted. The kernel caps it at net.core.somaxconn (listen(2)).
BACKLOG = 1024
_ATTEMPT_DELAY = 0.25  # RFC 8305, section 5


def split_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT`, `:PORT` (all interfaces). Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if (not colon or (":" in host and not host.startswith("[")) or port.endswith("]")) and default_port is not None:
        host, port = text, str(default_port)
    host = host.strip("[]")
    if not port.isdecimal() or int(port) > 65535 or (not colon and default_port is None):
        raise UsageError(f"{text!r} is not HOST:PORT.")
    return host, int(port)


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(host: str, port: int, context: ssl.SSLContext, receiver: Receiver) -> StreamTransport:
    """Connect; `receiver.connected` follows once TLS is up. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    where = join_address(host, port)
    try:
        found = await loop.getaddrinfo(host or "localhost", port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"The name {host!r} cannot be resolved: {error.strerror or error}.") from error
    try:
        sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_ATTEMPT_DELAY)
    except OSError as error:
        raise Unreachable(f"{where} cannot be reached: {_reason(error)}.") from error
    try:
        _, protocol = await loop.create_connection(
            lambda: StreamTransport(receiver, context, server_side=False), sock=sock
        )
    except OSError as error:
        sock.close()
        raise Unreachable(f"{where} cannot be reached: {_reason(error)}.") from error
    return protocol


async def listen(
    host: str, port: int, context: ssl.SSLContext, make_receiver: ReceiverFactory
) -> tuple[asyncio.Server, str]:
    """Listen; returns the server and the address it got (port 0 becomes a real one). Raises InUse, UsageError."""
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(
            lambda: StreamTransport(make_receiver(), context, server_side=True),
            host or None,
            port,
            backlog=BACKLOG,
            reuse_address=True,
        )
    except OSError as error:
        kind = UsageError if isinstance(error, socket.gaierror) else InUse
        raise kind(f"Cannot listen on {join_address(host, port)}: {_reason(error)}.") from error
    name = server.sockets[0].getsockname()
    return server, join_address(name[0], name[1])


def _reason(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    return error.strerror or str(error)
