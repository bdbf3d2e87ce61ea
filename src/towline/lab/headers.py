"""The bytes of a captured frame, named.

Ethernet (IEEE 802.3), IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293), UDP (RFC 768).
Pure. What is cut short or unknown ends the naming; it never raises.
"""

from __future__ import annotations

import socket

from msgspec import Struct

FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR")
ETHERNET, IPV4, IPV6, TCP, UDP, PAYLOAD = "Ethernet", "IPv4", "IPv6", "TCP", "UDP", "payload"


class Field(Struct, frozen=True):
    """Some bytes of a header: name, offset from the start of the frame, length in bytes, what they mean."""

    name: str
    offset: int
    length: int
    value: str


class Layer(Struct, frozen=True):
    """One header (or the payload): where it starts in the frame, how long it is, its fields."""

    name: str
    offset: int
    length: int
    fields: tuple[Field, ...] = ()


class Segment(Struct, frozen=True):
    """The transport's view of one frame. `size` is the payload's length in bytes."""

    source: tuple[str, int]
    target: tuple[str, int]
    protocol: str
    size: int
    payload: bytes
    flags: tuple[str, ...] = ()
    seq: int = 0
    ack: int = 0


def layers(frame: bytes) -> list[Layer]:
    """The layers of an Ethernet frame, from the outside in."""
    if len(frame) < 14:
        return []
    fields = (
        Field("destination MAC", 0, 6, mac(frame[0:6])),
        Field("source MAC", 6, 6, mac(frame[6:12])),
        Field("type", 12, 2, {0x0800: "0x0800 IPv4", 0x86DD: "0x86dd IPv6"}.get(_number(frame, 12, 2), "other")),
    )
    found = [Layer(ETHERNET, 0, 14, fields)]
    inner = {0x0800: _ipv4, 0x86DD: _ipv6}.get(_number(frame, 12, 2))
    return found + inner(frame, 14) if inner else found


def segment(frame: bytes) -> Segment | None:
    """The TCP segment or UDP datagram in an Ethernet frame; None for anything else."""
    named = {layer.name: layer for layer in layers(frame)}
    network = named.get(IPV4) or named.get(IPV6)
    transport = named.get(TCP) or named.get(UDP)
    if network is None or transport is None:
        return None
    source, target = _ends(frame, network)
    at = transport.offset
    ports = _number(frame, at, 2), _number(frame, at + 2, 2)
    body = named.get(PAYLOAD)
    payload = frame[body.offset : body.offset + body.length] if body else b""
    if transport.name == UDP:
        return Segment((source, ports[0]), (target, ports[1]), UDP, len(payload), payload)
    return Segment(
        source=(source, ports[0]),
        target=(target, ports[1]),
        protocol=TCP,
        size=len(payload),
        payload=payload,
        flags=_flags(frame[at + 13]),
        seq=_number(frame, at + 4, 4),
        ack=_number(frame, at + 8, 4),
    )


def mac(raw: bytes) -> str:
    """`02:fc:00:00:00:01`."""
    return ":".join(f"{byte:02x}" for byte in raw)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): ones' complement of the ones' complement sum of 16-bit words."""
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2]) for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _ipv4(frame: bytes, at: int) -> list[Layer]:
    if len(frame) < at + 20:
        return []
    length = (frame[at] & 15) * 4
    total = _number(frame, at + 2, 2)
    fragment = _number(frame, at + 6, 2)
    source, target = (socket.inet_ntoa(frame[at + 12 : at + 16]), socket.inet_ntoa(frame[at + 16 : at + 20]))
    fields = (
        Field("version and header length", at, 1, f"{frame[at] >> 4}, {frame[at] & 15} × 4 = {length}"),
        Field("type of service", at + 1, 1, f"{frame[at + 1]:#04x}"),
        Field("total length", at + 2, 2, str(total)),
        Field("identification", at + 4, 2, f"{_number(frame, at + 4, 2):#06x}"),
        Field("flags and fragment offset", at + 6, 2, ("DF, " if fragment & 0x4000 else "") + str(fragment & 0x1FFF)),
        Field("time to live", at + 8, 1, str(frame[at + 8])),
        Field("protocol", at + 9, 1, f"{frame[at + 9]} {({6: TCP, 17: UDP}).get(frame[at + 9], '')}".strip()),
        Field("header checksum", at + 10, 2, f"{_number(frame, at + 10, 2):#06x}"),
        Field("source address", at + 12, 4, source),
        Field("destination address", at + 16, 4, target),
    )
    end = min(len(frame), at + total) if total else len(frame)  # 0: segmented later by the card
    return [Layer(IPV4, at, length, fields), *_transport(frame[:end], at + length, frame[at + 9])]


def _ipv6(frame: bytes, at: int) -> list[Layer]:
    if len(frame) < at + 40:
        return []
    size = _number(frame, at + 4, 2)
    fields = (
        Field("version, class, flow label", at, 4, f"6, flow {_number(frame, at, 4) & 0xFFFFF:#x}"),
        Field("payload length", at + 4, 2, str(size)),
        Field("next header", at + 6, 1, f"{frame[at + 6]} {({6: TCP, 17: UDP}).get(frame[at + 6], '')}".strip()),
        Field("hop limit", at + 7, 1, str(frame[at + 7])),
        Field("source address", at + 8, 16, socket.inet_ntop(socket.AF_INET6, frame[at + 8 : at + 24])),
        Field("destination address", at + 24, 16, socket.inet_ntop(socket.AF_INET6, frame[at + 24 : at + 40])),
    )
    end = min(len(frame), at + 40 + size) if size else len(frame)
    return [Layer(IPV6, at, 40, fields), *_transport(frame[:end], at + 40, frame[at + 6])]


def _transport(frame: bytes, at: int, protocol: int) -> list[Layer]:
    if protocol == 6 and len(frame) >= at + 20:
        header = _tcp(frame, at)
    elif protocol == 17 and len(frame) >= at + 8:
        header = _udp(frame, at)
    else:
        return []
    start = header.offset + header.length
    if len(frame) <= start:
        return [header]
    size = len(frame) - start
    return [header, Layer(PAYLOAD, start, size, (Field("data", start, size, f"{size} bytes"),))]


def _tcp(frame: bytes, at: int) -> Layer:
    length = (frame[at + 12] >> 4) * 4
    fields = [
        Field("source port", at, 2, str(_number(frame, at, 2))),
        Field("destination port", at + 2, 2, str(_number(frame, at + 2, 2))),
        Field("sequence number", at + 4, 4, str(_number(frame, at + 4, 4))),
        Field("acknowledgment number", at + 8, 4, str(_number(frame, at + 8, 4))),
        Field("data offset", at + 12, 1, f"{length // 4} × 4 = {length}"),
        Field("flags", at + 13, 1, " ".join(_flags(frame[at + 13]))),
        Field("window", at + 14, 2, str(_number(frame, at + 14, 2))),
        Field("checksum", at + 16, 2, f"{_number(frame, at + 16, 2):#06x}"),
        Field("urgent pointer", at + 18, 2, str(_number(frame, at + 18, 2))),
    ]
    if length > 20:
        fields.append(Field("options", at + 20, length - 20, _options(frame[at + 20 : at + length])))
    return Layer(TCP, at, length, tuple(fields))


def _udp(frame: bytes, at: int) -> Layer:
    fields = (
        Field("source port", at, 2, str(_number(frame, at, 2))),
        Field("destination port", at + 2, 2, str(_number(frame, at + 2, 2))),
        Field("length", at + 4, 2, str(_number(frame, at + 4, 2))),
        Field("checksum", at + 6, 2, f"{_number(frame, at + 6, 2):#06x}"),
    )
    return Layer(UDP, at, 8, fields)


_OPTION_NAMES = {2: "MSS", 3: "window scale", 4: "SACK permitted", 5: "SACK", 8: "timestamps"}


def _options(raw: bytes) -> str:
    names = []
    at = 0
    while at < len(raw) and raw[at] != 0:
        if raw[at] == 1:  # a no-operation byte, for alignment
            at += 1
            continue
        names.append(_OPTION_NAMES.get(raw[at], f"option {raw[at]}"))
        step = raw[at + 1] if at + 1 < len(raw) else 0
        if step < 2:
            break
        at += step
    return ", ".join(names)


def _flags(byte: int) -> tuple[str, ...]:
    return tuple(name for bit, name in enumerate(FLAGS) if byte >> bit & 1)


def _ends(frame: bytes, network: Layer) -> tuple[str, str]:
    values = {field.name: field.value for field in network.fields}
    return values["source address"], values["destination address"]


def _number(frame: bytes, at: int, size: int) -> int:
    return int.from_bytes(frame[at : at + size])
