"""What the kernel says about a socket: TCP_INFO, queue sizes, and the states in /proc/net/tcp. None of it needs
root.

Sources: tcp(7), socket(7), proc(5), include/uapi/linux/tcp.h. On a system without them every answer is empty.
"""

from __future__ import annotations

import socket
import struct
import sys

from msgspec import Struct

from towline.lab.recording import Kernel

Address = tuple[str, int]

# enum in include/net/tcp_states.h; /proc/net/tcp prints the number in hexadecimal.
STATES = {
    1: "ESTABLISHED",
    2: "SYN_SENT",
    3: "SYN_RECV",
    4: "FIN_WAIT1",
    5: "FIN_WAIT2",
    6: "TIME_WAIT",
    7: "CLOSED",
    8: "CLOSE_WAIT",
    9: "LAST_ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "SYN_RECV",
}
GONE = "CLOSED"

_BYTES = ("state", "ca_state", "retransmits", "probes", "backoff", "options", "window_scales", "flags")
_WORDS = (
    *("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets"),
    *("last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv", "pmtu", "rcv_ssthresh", "rtt", "rttvar"),
    *("snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space", "total_retrans"),
)
_REST = (
    ("pacing_rate", "Q"),
    ("max_pacing_rate", "Q"),
    ("bytes_acked", "Q"),
    ("bytes_received", "Q"),
    ("segs_out", "I"),
    ("segs_in", "I"),
    ("notsent_bytes", "I"),
    ("min_rtt", "I"),
    ("data_segs_in", "I"),
    ("data_segs_out", "I"),
    ("delivery_rate", "Q"),
    ("busy_time", "Q"),
    ("rwnd_limited", "Q"),
    ("sndbuf_limited", "Q"),
    ("delivered", "I"),
    ("delivered_ce", "I"),
    ("bytes_sent", "Q"),
    ("bytes_retrans", "Q"),
)
_LAYOUT = [(name, "B") for name in _BYTES] + [(name, "I") for name in _WORDS] + list(_REST)
# The part of TCP_INFO that a recording keeps with every call: enough to tell who joined or resent what.
KEPT = ("data_segs_out", "data_segs_in", "total_retrans", "unacked", "rtt")

_SIOCINQ = 0x541B
_SIOCOUTQ = 0x5411
_SIOCOUTQNSD = 0x894B


def parse_tcp_info(raw: bytes) -> dict[str, int]:
    """`struct tcp_info` as named numbers; an older kernel returns a shorter struct and so fewer names."""
    found: dict[str, int] = {}
    offset = 0
    for name, code in _LAYOUT:
        size = struct.calcsize("=" + code)
        if offset + size > len(raw):
            break
        found[name] = struct.unpack_from("=" + code, raw, offset)[0]
        offset += size
    return found


def tcp_info(sock: socket.socket) -> dict[str, int]:
    """TCP_INFO of a TCP socket; empty for any other socket and where the system has none."""
    option = getattr(socket, "TCP_INFO", None)
    if option is None or sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        return {}
    try:
        return parse_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, option, 512))
    except OSError:
        return {}


def unread(sock: socket.socket) -> int | None:
    """Bytes that lie in the receive queue (for datagrams: the size of the first one)."""
    return _queue(sock, _SIOCINQ)


def unsent(sock: socket.socket) -> int | None:
    """Bytes that the peer has not acknowledged yet, sent or not."""
    return _queue(sock, _SIOCOUTQ)


def held(sock: socket.socket) -> int | None:
    """Bytes that were never put on the wire yet; TCP only."""
    return _queue(sock, _SIOCOUTQNSD) if sock.type == socket.SOCK_STREAM and sock.family != socket.AF_UNIX else None


def observe(sock: socket.socket) -> Kernel:
    """All of it in one look."""
    info = tcp_info(sock)
    state = STATES.get(info["state"], "") if info else ""
    if state == "LISTEN":
        return Kernel(state=state, info={"queued": info.get("unacked", 0), "backlog": info.get("sacked", 0)})
    kept = {name: info[name] for name in KEPT if name in info}
    return Kernel(state=state, unread=unread(sock), unsent=unsent(sock), held=held(sock), info=kept)


def _queue(sock: socket.socket, request: int) -> int | None:
    if not sys.platform.startswith("linux"):
        return None
    import fcntl

    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), request, b"\0" * 4))[0])
    except (OSError, ValueError):  # a listener has no such queue; a closed socket has no descriptor
        return None


# --- /proc/net/tcp ---


class Row(Struct, frozen=True):
    """One line of /proc/net/tcp or tcp6. For a listener `unread` counts connections that wait for accept."""

    local: Address
    peer: Address
    state: str
    unsent: int
    unread: int


def parse_table(text: str) -> list[Row]:
    """The lines of /proc/net/tcp or tcp6 as rows."""
    rows = []
    for line in text.splitlines()[1:]:
        parts = line.split()
        if len(parts) < 5:
            continue
        tx, rx = parts[4].split(":")
        state = STATES.get(int(parts[3], 16), "?")
        rows.append(Row(_address(parts[1]), _address(parts[2]), state, int(tx, 16), int(rx, 16)))
    return rows


def table() -> list[Row]:
    """Every TCP socket of this machine (of this network namespace), TIME_WAIT included."""
    rows: list[Row] = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as file:
                rows += parse_table(file.read())
        except OSError:  # no /proc here, or no IPv6
            continue
    return rows


def state_of(local: Address, peer: Address, rows: list[Row] | None = None) -> str:
    """The state of one end of a connection; `CLOSED`, or `LISTEN` with a listener, when there is none."""
    found = table() if rows is None else rows
    for row in found:
        if row.local == local and row.peer == peer:
            return row.state
    listening = any(row.state == "LISTEN" and row.local == local for row in found)
    return "LISTEN" if listening else GONE


def _address(text: str) -> Address:
    # The kernel prints each 32-bit word of the address in the byte order of this machine.
    host, port = text.split(":")
    words = bytes.fromhex(host)
    if sys.byteorder == "little":
        words = b"".join(words[at : at + 4][::-1] for at in range(0, len(words), 4))
    family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, words), int(port, 16)
