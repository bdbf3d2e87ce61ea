"""Classic BPF programs on sockets: a deaf socket, and a capture of some ports only (socket(7), SO_ATTACH_FILTER).

A filter on a TCP socket runs before TCP sees the segment. One that keeps nothing makes its end of the connection
*deaf*: no acknowledgement, no reset, silence. That is what a machine without power, or a cut cable, looks like from
the other end, and it works on loopback. Some kernels keep it for the administrator; `can_deafen` says so.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache

_SO_ATTACH_FILTER = 26
_SO_DETACH_FILTER = 27
_ALL = 0xFFFFFFFF

# One instruction: operation code, jump if true, jump if false, constant (struct sock_filter).
Instruction = tuple[int, int, int, int]
_LOAD_BYTE, _LOAD_HALF, _LOAD_HALF_X, _LOAD_X_IHL = 0x30, 0x28, 0x48, 0xB1
_AND, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x54, 0x15, 0x45, 0x06

KEEP_NOTHING: list[Instruction] = [(_RETURN, 0, 0, 0)]
# Byte 13 of a TCP header holds the flags; 0x02 is SYN.
KEEP_SYN: list[Instruction] = [
    (_LOAD_BYTE, 0, 0, 13),
    (_JUMP_SET, 0, 1, 0x02),
    (_RETURN, 0, 0, _ALL),
    (_RETURN, 0, 0, 0),
]


def attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Let the kernel run `program` on all that arrives at `sock`. Raises OSError where that is not permitted."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code)
    # struct sock_fprog: a count and a pointer; the kernel copies the program before it returns.
    value = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, value)


def detach(sock: socket.socket) -> None:
    """Take the filter away; what arrives is heard again."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)


@contextmanager
def deaf(sock: socket.socket, program: list[Instruction] | None = None) -> Iterator[None]:
    """Within this block `sock` hears nothing (or only what `program` keeps)."""
    attach(sock, program or KEEP_NOTHING)
    try:
        yield
    finally:
        if sock.fileno() >= 0:
            detach(sock)


@cache
def can_deafen() -> bool:
    """Whether this system lets this process put a filter on a socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            attach(probe, KEEP_NOTHING)
        except OSError:
            return False
    return True


def keep_ports(ports: Iterable[int], *, link: int) -> list[Instruction]:
    """Keep frames from or to one of `ports` (at most 60), IPv4 or IPv6; `link` bytes of link header come first."""
    wanted = sorted(set(ports))[:60]  # a jump of classic BPF spans 255 instructions
    program: list[Instruction] = [(_LOAD_BYTE, 0, 0, link), (_AND, 0, 0, 0xF0)]
    four = [(_LOAD_X_IHL, 0, 0, link), *_either_port(_LOAD_HALF_X, link, wanted)]
    six = _either_port(_LOAD_HALF, link + 40, wanted)
    program += [(_JUMP_EQUAL, 0, len(four), 0x40), *four]
    return program + six


def _either_port(load: int, at: int, ports: list[int]) -> list[Instruction]:
    # Source port, then destination port; each test jumps to the last instruction, which keeps the frame.
    tests: list[Instruction] = []
    total = 2 * (len(ports) + 1)
    for offset in (at, at + 2):
        tests.append((load, 0, 0, offset))
        for port in ports:
            tests.append((_JUMP_EQUAL, total - len(tests), 0, port))
    return [*tests, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]
