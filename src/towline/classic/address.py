"""Where a dialect is served: `HOST:PORT`, `[IPV6]:PORT`, `:PORT` (loopback), or the path of a Unix socket."""

from __future__ import annotations

import socket

from msgspec import Struct

from towline.base.errors import TowlineError, Unreachable, UsageError
from towline.classic.dialects import Over

_LOOPBACK = "127.0.0.1"


class Address(Struct, frozen=True):
    """A parsed address; `port` 0 lets the kernel choose when serving. `path` is set for Unix sockets only."""

    over: Over
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return self.path if self.over == "unix" else endpoint_text((self.host, self.port))

    @property
    def kind(self) -> socket.SocketKind:
        return socket.SOCK_DGRAM if self.over == "udp" else socket.SOCK_STREAM

    def resolved(
        self, failure: type[TowlineError] = Unreachable
    ) -> tuple[socket.AddressFamily, tuple[object, ...] | str]:
        """Address family and what bind() or connect() takes; an unknown host raises `failure`."""
        if self.over == "unix":
            return socket.AF_UNIX, self.path
        try:
            found = socket.getaddrinfo(self.host, self.port, type=self.kind)
        except (OSError, UnicodeError) as error:
            raise failure(f"The host name {self.host!r} is not known: {error}.") from None
        # The tutorials' sockets are IPv4: `localhost` must not be ::1 where it is 127.0.0.1, too.
        family, _, _, _, where = next((one for one in found if one[0] == socket.AF_INET), found[0])
        return family, where


def parse_address(over: Over, text: str) -> Address:
    """`text` as an address for `over`. Raises UsageError."""
    if over == "unix":
        if not text or "\0" in text:
            raise UsageError("A Unix socket needs a path.")
        return Address(over, path=text)
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65535:
        raise UsageError(f"{text!r} is not an address; write HOST:PORT, [::1]:PORT or :PORT.")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"{text!r} is not an address; an IPv6 address stands in brackets: [::1]:PORT.")
    return Address(over, host=host or _LOOPBACK, port=int(port))


def endpoint_text(where: object) -> str:
    """A socket address of the kernel as people write it; unnamed Unix sockets have none."""
    if isinstance(where, tuple):
        host, port = where[0], where[1]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return where if isinstance(where, str) else ""
