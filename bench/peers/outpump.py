"""The bare output pump: a command's pipe, Python's TLS on one blocking socket, standard output; nothing is framed.

It is the floor for what Towline's `run` could reach with these libraries on these cores: one process reads what the
command prints and sends it, another receives and prints it. With `kept`, each byte is written to a file before it is
sent: one of as many bytes as Towline keeps of a job, which is written over from its beginning when it is full. With
`apart`, which is the floor under what Towline promises, a process of its own runs the command and keeps what it
prints, each time in a new file, so that both would outlive the server; the server reads it there. There are no
checksums, no positions, no order of two streams, and nothing goes on after a cut.

As a script it is all ends: `CERTIFICATE KEY PORT` serves; with `plain`, `kept` or `apart`, a folder and a command it
is the client; `keep FILE COMMAND…` is the process that keeps.

TLS goes through memory BIOs, as in Towline: here that was quicker than a wrapped socket, which asks the kernel for
the header and the body of each record.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

HOST = "127.0.0.1"
CHUNK = 256 * 1024
PIPE = 1 << 20
KEPT = 256 << 20
_F_SETPIPE_SZ = 1031
_TOLD = struct.Struct("<Q")


class Tls:
    """A blocking socket inside TLS."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket, *, server_side: bool) -> None:
        self._sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if server_side else HOST
        self._tls = context.wrap_bio(self._in, self._out, server_side=server_side, server_hostname=name)
        self._buffer = memoryview(bytearray(CHUNK))
        while not self._shaken():
            self._sock.sendall(self._out.read())
            answer = self._sock.recv(CHUNK)
            if not answer:
                raise ConnectionError("the other side has closed")
            self._in.write(answer)
        self._sock.sendall(self._out.read())

    def _shaken(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def send(self, data: memoryview | bytes) -> None:
        self._tls.write(data)
        self._sock.sendall(self._out.read())

    def receive(self, target: memoryview) -> int:
        """At least one byte; 0 at the end."""
        while True:
            try:
                return int(self._tls.read(len(target), target))
            except ssl.SSLWantReadError:
                count = self._sock.recv_into(self._buffer)
                if not count:
                    return 0
                self._in.write(self._buffer[:count])


def serve(certificate: str, key: str, port: int) -> None:
    """A request is one line of JSON: how to keep, the folder for it, and the command."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    with socket.create_server((HOST, port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(context, connection), daemon=True).start()


def _answer(context: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        with connection:
            tls = Tls(context, connection, server_side=True)
            request = memoryview(bytearray(4096))
            how, folder, *command = json.loads(bytes(request[: tls.receive(request)]))
            if how == "apart":
                _run_apart(tls, folder, command)
            else:
                _run(tls, os.path.join(folder, "kept") if how == "kept" else "", command)
    except (OSError, ssl.SSLError):
        pass  # the waiting for our port, or a client that was ended


def _run(tls: Tls, path: str, command: list[str]) -> None:
    kept = os.open(path, os.O_RDWR | os.O_CREAT, 0o600) if path else -1
    buffer = memoryview(bytearray(CHUNK))
    at = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE)
        while count := _fill(pipe, buffer):
            if kept >= 0:
                os.pwrite(kept, buffer[:count], at)
                at = (at + count) % KEPT
            tls.send(buffer[:count])
    if kept >= 0:
        os.close(kept)


def _run_apart(tls: Tls, folder: str, command: list[str]) -> None:
    """The keeping process says on its standard output how far it has got, and hears on its input how far we are."""
    path = os.path.join(folder, f"kept-{time.monotonic_ns()}")
    argv = [sys.executable, os.path.abspath(__file__), "keep", path, *command]
    buffer = memoryview(bytearray(CHUNK))
    sent = told = kept = 0
    with (
        open(path, "x+b", buffering=0) as file,
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as keeper,
    ):
        assert keeper.stdout is not None
        assert keeper.stdin is not None
        while data := keeper.stdout.read(4096):
            kept = _TOLD.unpack(data[-_TOLD.size :])[0]
            while sent < kept:
                count = os.preadv(file.fileno(), [buffer[: min(kept - sent, KEPT - sent % KEPT)]], sent % KEPT)
                tls.send(buffer[:count])
                sent += count
                if sent - told > KEPT // 8:
                    told = sent
                    with contextlib.suppress(BrokenPipeError):  # all is kept, and the keeper has ended
                        keeper.stdin.write(_TOLD.pack(told))


def keep(path: str, command: list[str]) -> None:
    """Write what a command prints to a file of KEPT bytes, over and over; never over what was not sent."""
    buffer = memoryview(bytearray(CHUNK))
    at = sent = 0
    with open(path, "r+b", buffering=0) as file, subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pipe = process.stdout.fileno()
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, PIPE)
        while count := os.readv(pipe, [buffer]):
            while at + count - sent > KEPT:
                sent = _TOLD.unpack(os.read(0, _TOLD.size))[0]
            first = min(count, KEPT - at % KEPT)
            os.pwrite(file.fileno(), buffer[:first], at % KEPT)
            os.pwrite(file.fileno(), buffer[first:count], 0)
            at += count
            os.write(1, _TOLD.pack(at))


def _fill(pipe: int, buffer: memoryview) -> int:
    """A whole chunk, less at the end."""
    filled = 0
    while filled < len(buffer) and (count := os.readv(pipe, [buffer[filled:]])):
        filled += count
    return filled


def show(certificate: str, port: int, words: list[str]) -> None:
    """Whole chunks go to standard output, as Towline's do."""
    context = ssl.create_default_context(cafile=certificate)
    buffer = memoryview(bytearray(CHUNK))
    with socket.create_connection((HOST, port)) as connection:
        tls = Tls(context, connection, server_side=False)
        tls.send(json.dumps(words).encode())
        filled = 0
        while count := tls.receive(buffer[filled:]):
            filled += count
            if filled == len(buffer):
                _print(buffer)
                filled = 0
        _print(buffer[:filled])


def _print(view: memoryview) -> None:
    while view:
        view = view[os.write(1, view) :]


if __name__ == "__main__" and sys.argv[1] == "keep":
    keep(sys.argv[2], sys.argv[3:])
elif __name__ == "__main__":
    certificate, key, port, *rest = sys.argv[1:]
    if rest:
        show(certificate, int(port), rest)
    else:
        serve(certificate, key, int(port))
