"""A tap on one plain socket: every call is noted by its recorder, with what the kernel says after it.

Errors are noted and raised again. Several taps share one recorder and so one time line.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from towline.lab import kernel
from towline.lab.recording import Event, Kernel

if TYPE_CHECKING:
    from towline.lab.recorder import Recorder

# A socket's address as Python gives it: (host, port, ...) for IP, a path for Unix.
SocketAddress = Any


class Tap:
    """A socket whose calls are noted. Has the calls of a socket; `sock` is the socket itself."""

    def __init__(self, recorder: Recorder, sock: socket.socket, who: str) -> None:
        self.recorder = recorder
        self.sock = sock
        self.who = who
        self.local: SocketAddress = ()
        self.peer: SocketAddress = ()
        self.out = ""  # the name of the flow that this end writes
        self.into = ""  # and of the one that it reads
        self.accepted = False
        self.listening = False
        self._wrote = 0
        self._read = 0
        # For datagrams that may be lost or doubled: the position that a payload itself tells.
        self.locate: Callable[[bytes], int] | None = None
        self._learn()

    def __repr__(self) -> str:
        return f"<Tap {self.who} {self.local} → {self.peer}>"

    def fileno(self) -> int:
        return self.sock.fileno()

    # --- setting up ---

    def bind(self, address: SocketAddress) -> None:
        self._call("bind", lambda: self.sock.bind(address), detail=show(address))
        self._learn()
        self.recorder.watch(self)

    def listen(self, backlog: int) -> None:
        self._call("listen", lambda: self.sock.listen(backlog), detail=f"backlog={backlog}")
        self.listening = True

    def option(self, name: str, value: int) -> None:
        """Set a SOL_SOCKET (SO_…) or IPPROTO_TCP (TCP_…) option by its name."""
        level = socket.IPPROTO_TCP if name.startswith("TCP_") else socket.SOL_SOCKET
        number = int(getattr(socket, name))
        self._call("setsockopt", lambda: self.sock.setsockopt(level, number, value), detail=f"{name} = {value}")

    def connect(self, address: SocketAddress) -> None:
        """Blocking: returns when the connection stands. Non-blocking: raises BlockingIOError while it does not."""
        if self.sock.family != socket.AF_UNIX and not self.local:
            # Bound first, so that the capture knows our port before the first segment.
            self.sock.bind((("::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1"), 0))
            self._learn()
            self.recorder.watch(self)
        self.peer = address
        if not self.out:
            self.join(None, self.recorder.owner(address))
        self._call("connect", lambda: self.sock.connect(address), detail=show(address))
        self._learn()

    def accept(self) -> Tap:
        """The next connection, tapped, joined with its other end where that is ours too."""
        sock, _ = self._call("accept", self.sock.accept, late=True)
        sock.settimeout(self.sock.gettimeout())
        tap = self.recorder.tap(sock, self.who)
        mate = self.recorder.mate(tap)
        if mate:
            mate.accepted = True
            tap.out, tap.into = mate.into, mate.out
        else:
            tap.join(None)
        return tap

    def join(self, mate: Tap | None, name: str = "peer") -> None:
        """Name the two flows between this end and `mate` (or an untapped peer called `name`)."""
        name = mate.who if mate else name
        self.out, self.into = self.recorder.flow(self.who, name), self.recorder.flow(name, self.who)
        if mate:
            mate.out, mate.into = self.into, self.out

    # --- bytes ---

    def send(self, data: bytes, *, of: str = "") -> int:
        """One send; returns how many bytes the kernel took. `of` names the message that the bytes belong to."""
        return self._send("send", lambda: self.sock.send(data), data, of)

    def sendall(self, data: bytes, *, of: str = "") -> None:
        def whole() -> int:
            self.sock.sendall(data)
            return len(data)

        self._send("sendall", whole, data, of)

    def sendto(self, data: bytes, address: SocketAddress, *, of: str = "") -> int:
        if not self.local or self.local[-1] == 0:
            self.sock.bind((("::1" if self.sock.family == socket.AF_INET6 else "127.0.0.1"), 0))
            self._learn()
            self.recorder.watch(self)
        return self._send("sendto", lambda: self.sock.sendto(data, address), data, of)

    def recv(self, size: int) -> bytes:
        """One recv: at most `size` bytes, as few as one; b"" at the end."""
        data, _ = self._recv("recv", size, lambda: (self.sock.recv(size), None))
        return data

    def recvfrom(self, size: int) -> tuple[bytes, SocketAddress]:
        """One datagram; what does not fit into `size` is thrown away by the kernel, and the recording says so."""
        if self.sock.gettimeout() != 0.0:
            # Wait outside the call, so that the size of the datagram (SIOCINQ) is known before it is taken.
            select.select([self.sock], [], [], self.sock.gettimeout())
        return self._recv("recvfrom", size, lambda: self.sock.recvfrom(size))

    # --- the end ---

    def shutdown(self, how: int) -> None:
        names = {socket.SHUT_RD: "SHUT_RD", socket.SHUT_WR: "SHUT_WR", socket.SHUT_RDWR: "SHUT_RDWR"}
        self._call("shutdown", lambda: self.sock.shutdown(how), detail=names[how])

    def close(self) -> None:
        self._call("close", self.sock.close, detail="the listener" if self.listening else "")

    # --- the kernel's view ---

    def states(self) -> tuple[str, str]:
        """TCP states of (this end, the other end), `CLOSED` for an end that the kernel no longer knows."""
        rows = kernel.table()
        here, there = self.local[:2], self.peer[:2]
        return kernel.state_of(here, there, rows), kernel.state_of(there, here, rows)

    def unread(self) -> int:
        """Bytes waiting to be received (FIONREAD)."""
        return kernel.unread(self.sock) or 0

    # --- noting ---

    def _send(self, name: str, action: Callable[[], int], data: bytes, of: str) -> int:
        start = self.locate(data) if self.locate else self._wrote
        taken = self._call(name, action, asked=len(data), flow=self.out, start=start, data=data, of=of)
        self._wrote += int(taken)
        return int(taken)

    def _recv(
        self, name: str, size: int, action: Callable[[], tuple[bytes, SocketAddress]]
    ) -> tuple[bytes, SocketAddress]:
        waiting = kernel.unread(self.sock)
        data, address = self._call(
            name, action, late=True, asked=size, flow=self.into, start=self._read, waiting=waiting
        )
        # A datagram is taken whole even when only a part of it fits.
        self._read += max(len(data), waiting or 0) if name == "recvfrom" else len(data)
        return data, address

    def _call(self, name: str, action: Callable[[], Any], *, late: bool = False, **known: Any) -> Any:
        began = self.recorder.clock()
        try:
            result = action()
        except (OSError, ValueError) as error:  # ValueError: an argument that Python itself refuses
            failure = errno.errorcode.get(getattr(error, "errno", None) or 0, type(error).__name__)
            self._note(name, began, late, failure, known)
            raise
        # Not in a `finally`: a call that Ctrl-C ended has returned nothing that could be noted.
        if name not in {"bind", "listen", "connect", "accept", "setsockopt", "shutdown", "close"}:
            self._measure(known, result)
        self._note(name, began, late, "", known)
        return result

    def _note(self, name: str, began: float, late: bool, failure: str, known: dict[str, Any]) -> None:
        ended = self.recorder.clock()
        known.setdefault("returned", None)
        self.recorder.note(
            Event(
                at=ended if late else began,
                who=self.who,
                call=name,
                took=ended - began,
                error=failure,
                kernel=kernel.observe(self.sock) if self.sock.fileno() >= 0 else Kernel(state=""),
                **known,
            )
        )

    def _measure(self, known: dict[str, Any], result: Any) -> None:
        if isinstance(result, tuple):  # received
            data: bytes = result[0]
            known["returned"] = len(data)
            if self.locate and data:
                known["start"] = self.locate(data)
        else:
            data = known["data"]
            known["returned"] = result
        known["data"] = data[: min(known["returned"], self.recorder.keep)]

    def _learn(self) -> None:
        # Addresses are remembered: after close they are still needed to look up the state.
        try:
            self.local = self.sock.getsockname()
        except OSError:
            return
        if self.sock.family != socket.AF_UNIX and self.local[1] == 0:
            self.local = ()
        try:
            self.peer = self.sock.getpeername() or self.peer
        except OSError:  # not connected
            return


def family_of(address: SocketAddress) -> int:
    """The address family that fits: a path is a Unix socket, a colon in the host IPv6."""
    if isinstance(address, (str, bytes, os.PathLike)):
        return int(socket.AF_UNIX)
    return int(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)


def show(address: SocketAddress) -> str:
    """`127.0.0.1:80`, `[::1]:80`, or the path."""
    if not isinstance(address, tuple) or not address:
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
