"""Segments and flags, seen through a packet socket on the loopback interface (packet(7)).

Needs CAP_NET_RAW. Where it is missing, `Capture.open` returns the reason instead, and the recording says that
segments are not shown. No thread: the kernel keeps the frames of our ports, stamped, until `drain`.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable

from msgspec import Struct

from towline.lab import filters, headers

_ETH_P_ALL = 3
_ETHERNET_HEADER = 14
_SO_TIMESTAMPNS = 35  # SO_TIMESTAMPNS_OLD; the control message has the same number
_OUTGOING = 4  # PACKET_OUTGOING: on loopback every frame is seen twice, leaving and arriving
_SO_RCVBUFFORCE = 33
_BUFFER = 16 << 20  # a whole exhibit fits
_SNAP = 65536 + 64


class Seen(Struct, frozen=True):
    """One frame: seconds on the monotonic clock, the raw bytes, and their transport part."""

    when: float
    frame: bytes
    segment: headers.Segment


class Capture:
    """An open packet socket; watches nothing until `watch` names ports."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._ports: set[int] = set()
        self._skew = time.time() - time.monotonic()  # frames are stamped with wall-clock time

    @classmethod
    def open(cls) -> Capture | str:
        """A capture, or why there is none."""
        if not hasattr(socket, "AF_PACKET"):
            return "this system has no packet sockets"
        try:
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: receives nothing yet
        except OSError as error:
            return error.strerror or str(error)
        try:
            filters.attach(sock, filters.KEEP_NOTHING)
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            _enlarge(sock)
            sock.bind(("lo", _ETH_P_ALL))
            sock.setblocking(False)
            _warm_up(sock)
        except OSError as error:
            sock.close()
            return error.strerror or str(error)
        return cls(sock)

    def watch(self, ports: Iterable[int]) -> None:
        """Keep frames from or to these TCP or UDP ports too, from now on."""
        more = {port for port in ports if port} - self._ports
        if more:
            self._ports |= more
            filters.attach(self._sock, filters.keep_ports(self._ports, link=_ETHERNET_HEADER))

    def drain(self) -> list[Seen]:
        """All frames kept since the last drain, in the order they arrived."""
        found: list[Seen] = []
        while True:
            try:
                frame, control, _, address = self._sock.recvmsg(_SNAP, 256)
            except BlockingIOError:
                return found
            part = headers.segment(frame)
            if address[2] == _OUTGOING or part is None or self._ports.isdisjoint((part.source[1], part.target[1])):
                continue
            found.append(Seen(_stamp(control) - self._skew, frame, part))

    def close(self) -> None:
        self._sock.close()


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except OSError:  # CAP_NET_RAW without CAP_NET_ADMIN: as much as anybody may have
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def _warm_up(sock: socket.socket) -> None:
    # Linux switches the stamping of packets on a little after it is asked to; until then the moment of *reading* is
    # taken for the moment of arrival. So datagrams go to ourselves until one's stamp is older than our read.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
        filters.attach(sock, filters.keep_ports([address[1]], link=_ETHERNET_HEADER))
        deadline = time.monotonic() + 0.2
        stamped = False
        while not stamped and time.monotonic() < deadline:
            probe.sendto(b"probe", address)
            sent = time.time()
            while select.select([sock], [], [], 0)[0]:
                _, control, _, _ = sock.recvmsg(64, 256)
                stamped = _stamp(control) <= sent
        filters.attach(sock, filters.KEEP_NOTHING)


def _stamp(control: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in control:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(data) >= 16:
            seconds, nanoseconds = struct.unpack_from("@qq", data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()
