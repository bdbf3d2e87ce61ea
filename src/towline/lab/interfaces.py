"""This machine's addresses: interfaces, masks, MACs, gateway, names; and whether two addresses share a network.

Sources: netdevice(7) (SIOCGIF… requests), /proc/net/route, /proc/net/if_inet6, getaddrinfo(3). Reads only.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys

from msgspec import Struct

from towline.lab import headers

_SIOCGIFFLAGS, _SIOCGIFADDR, _SIOCGIFNETMASK, _SIOCGIFHWADDR = 0x8913, 0x8915, 0x891B, 0x8927
_IFF_UP = 1


class Interface(Struct, frozen=True):
    """One interface; what it does not have is empty."""

    name: str
    up: bool
    address: str = ""
    netmask: str = ""
    mac: str = ""
    ipv6: tuple[str, ...] = ()


class Comparison(Struct, frozen=True):
    """Are two addresses in one network? The bits of each step, in groups of eight."""

    one: str
    two: str
    mask: str
    bits_one: str
    bits_two: str
    bits_mask: str
    network_one: str
    network_two: str

    @property
    def same(self) -> bool:
        return self.network_one == self.network_two


def interfaces() -> list[Interface]:
    """Every interface of this machine (of this network namespace)."""
    six = _ipv6_addresses()
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            flags = _ask(sock, name, _SIOCGIFFLAGS)
            hardware = _ask(sock, name, _SIOCGIFHWADDR)
            found.append(
                Interface(
                    name=name,
                    up=bool(flags and struct.unpack("=H", flags[:2])[0] & _IFF_UP),
                    address=_dotted(_ask(sock, name, _SIOCGIFADDR)),
                    netmask=_dotted(_ask(sock, name, _SIOCGIFNETMASK)),
                    mac=headers.mac(hardware[2:8]) if hardware else "",
                    ipv6=tuple(six.get(name, ())),
                )
            )
    return found


def parse_routes(text: str) -> list[tuple[str, str, str, str]]:
    """/proc/net/route as (interface, destination, gateway, netmask); the default route's destination is 0.0.0.0."""
    routes = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) >= 8:
            routes.append((parts[0], _hex_address(parts[1]), _hex_address(parts[2]), _hex_address(parts[7])))
    return routes


def gateway() -> tuple[str, str]:
    """(interface, address) of the default gateway; two empty strings without one."""
    try:
        with open("/proc/net/route", encoding="ascii") as file:
            routes = parse_routes(file.read())
    except OSError:
        return "", ""
    for name, destination, via, mask in routes:
        if destination == mask == "0.0.0.0":  # noqa: S104 - an address that is read, not listened at
            return name, via
    return "", ""


def lookup(name: str) -> list[str]:
    """The addresses that the system's resolver has for a name, without doubles; empty when it has none."""
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def compare(one: str, two: str, prefix: int) -> Comparison:
    """Put the mask of `prefix` bits over two IPv4 addresses."""
    mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    first, second = int(ipaddress.IPv4Address(one)), int(ipaddress.IPv4Address(two))
    return Comparison(
        one=one,
        two=two,
        mask=str(ipaddress.IPv4Address(mask)),
        bits_one=_bits(first),
        bits_two=_bits(second),
        bits_mask=_bits(mask),
        network_one=str(ipaddress.IPv4Address(first & mask)),
        network_two=str(ipaddress.IPv4Address(second & mask)),
    )


def _bits(number: int) -> str:
    text = f"{number:032b}"
    return " ".join(text[at : at + 8] for at in range(0, 32, 8))


def _ask(sock: socket.socket, name: str, request: int) -> bytes:
    if not sys.platform.startswith("linux"):
        return b""
    import fcntl

    try:
        return fcntl.ioctl(sock.fileno(), request, struct.pack("16s24x", name.encode()[:15]))[16:]
    except OSError:  # the interface has no such address
        return b""


def _dotted(raw: bytes) -> str:
    # struct sockaddr_in: family, port, then the address.
    return socket.inet_ntoa(raw[4:8]) if len(raw) >= 8 else ""


def _hex_address(text: str) -> str:
    # Printed as a number of this machine's byte order.
    return socket.inet_ntoa(struct.pack("=I", int(text, 16)))


def _ipv6_addresses() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with open("/proc/net/if_inet6", encoding="ascii") as file:
            lines = file.read().splitlines()
    except OSError:
        return found
    for line in lines:
        raw, _, prefix, _, _, name = line.split()
        address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(raw))
        found.setdefault(name, []).append(f"{address}/{int(prefix, 16)}")
    return found
