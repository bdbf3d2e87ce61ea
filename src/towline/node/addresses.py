"""Under which addresses other machines find this one."""

from __future__ import annotations

import socket

from towline.transports.tcp import join_address, split_address

_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104  # what to recognise, not what to bind
# Addresses for documentation (RFC 5737, RFC 3849): no packet is sent, the kernel only says which way it would go.
_FAR_AWAY = ((socket.AF_INET, "192.0.2.1", "127.0.0.1"), (socket.AF_INET6, "2001:db8::1", "::1"))


def reachable_addresses(listening: str) -> list[str]:
    """`listening` itself, or for one that means "all interfaces" the addresses behind it, loopback last."""
    host, port = split_address(listening)
    if host not in _EVERYWHERE:
        return [listening]
    families = [entry for entry in _FAR_AWAY if host != "0.0.0.0" or entry[0] is socket.AF_INET]  # noqa: S104
    outward = [own for family, far, _ in families if (own := _own_address(family, far)) is not None]
    loopback = [near for _, _, near in families if near not in outward]
    return [join_address(each, port) for each in outward + loopback]


def _own_address(family: int, far: str) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            own: str = probe.getsockname()[0]
            return own
    except OSError:
        return None  # no such family here, or no way out
