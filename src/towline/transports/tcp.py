"""TCP with TLS 1.3: connect by Happy Eyeballs (RFC 8305), listen on IPv4 and IPv6."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from towline.base.errors import InUse, Unreachable, UsageError
from towline.base.text import printable
from towline.transports.interface import Receiver, ReceiverFactory
from towline.transports.streams import StreamTransport

# Connections that wait to be accepted. The kernel caps it at net.core.somaxconn (listen(2)).
BACKLOG = 1024
_SAME_PORT_TRIES = 20
_ATTEMPT_DELAY = 0.25  # RFC 8305, section 5

_AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[Any, ...]]  # of getaddrinfo(3)


def split_address(text: str, *, default_port: int | None = None) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT`, `:PORT` (all interfaces). Raises UsageError."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if default_port is not None and (not colon or (":" in host and not bracketed) or port.endswith("]")):
        host, port, colon = text, str(default_port), ":"
        bracketed = True  # or an IPv6 address that needs no brackets without a port
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1
    if not colon or not 0 <= number <= 65535 or (":" in host and not bracketed):
        raise UsageError(f"{printable(text, limit=200)!r} is not HOST:PORT; an IPv6 address is written [::1]:PORT.")
    return host.removeprefix("[").removesuffix("]"), number


def join_address(host: str, port: int) -> str:
    """The inverse of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def connect(host: str, port: int, context: ssl.SSLContext, receiver: Receiver) -> StreamTransport:
    """Connect; `receiver.connected` follows once TLS is up. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    where = join_address(host, port)
    try:
        found = await loop.getaddrinfo(host or "localhost", port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
        raise Unreachable(f"The name {printable(host, limit=200)!r} cannot be resolved: {_reason(error)}.") from error

    def make() -> StreamTransport:
        return StreamTransport(receiver, context, server_side=False)

    try:
        if len(found) == 1 and not any(found[0][4][2:]):  # nothing to race, and no scope (fe80::1%eth0) to keep
            return (await loop.create_connection(make, *found[0][4][:2]))[1]
        return await _quickest(found, make)
    except (OSError, RuntimeError) as error:  # RuntimeError: uvloop's way of saying some of them
        raise Unreachable(f"{where} cannot be reached: {_reason(error)}.") from error


async def _quickest(found: Sequence[_AddressInfo], make: Callable[[], StreamTransport]) -> StreamTransport:
    import aiohappyeyeballs

    sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_ATTEMPT_DELAY)
    try:
        return (await asyncio.get_running_loop().create_connection(make, sock=sock))[1]
    except BaseException:
        sock.close()
        raise


async def listen(
    host: str, port: int, context: ssl.SSLContext, make_receiver: ReceiverFactory
) -> tuple[asyncio.Server, str]:
    """Listen; returns the server and the address it got (port 0 becomes a real one). Raises InUse, UsageError."""
    loop = asyncio.get_running_loop()

    async def on(wanted: int) -> asyncio.Server:
        return await loop.create_server(
            lambda: StreamTransport(make_receiver(), context, server_side=True),
            host or None,
            wanted,
            backlog=BACKLOG,
            reuse_address=True,
        )

    try:
        server = await on(port)
        for _ in range(_SAME_PORT_TRIES):
            ports = {sock.getsockname()[1] for sock in server.sockets}
            if len(ports) == 1:
                break
            # A name with several addresses and port 0: each got a port of its own. Try the first one for all.
            server.close()
            server = await _or_any(on, ports.pop())
    except OSError as error:
        kind = UsageError if isinstance(error, socket.gaierror) else InUse
        raise kind(f"Cannot listen on {join_address(host, port)}: {_reason(error)}.") from error
    name = server.sockets[0].getsockname()
    return server, join_address(name[0], name[1])


async def _or_any(listen_on: Callable[[int], Awaitable[asyncio.Server]], port: int) -> asyncio.Server:
    try:
        return await listen_on(port)
    except OSError:
        return await listen_on(0)  # taken meanwhile


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ECONNREFUSED:
        return "nothing listens there"
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such name"
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error)
