"""The bare output pump: a command's pipe, Python's TLS on one blocking socket, standard output; nothing is framed.

It is the floor for what Towline's `run` could reach with these libraries on these cores: one process reads what the
command prints and sends it, another receives and prints it. With `kept`, each byte is written to a file before it is
sent: one of as many bytes as Towline keeps of a job, which is written over from its beginning when it is full. There
are no checksums, no positions, no order of two streams, and nothing goes on after a cut. As a script it is both
ends: `CERTIFICATE KEY PORT` serves, with a folder to keep in (or `-`) and a command it is the client.

TLS goes through memory BIOs, as in Towline: here that was quicker than a wrapped socket, which asks the kernel for
the header and the body of each record.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import ssl
import subprocess
import sys
import threading

HOST = "127.0.0.1"
CHUNK = 256 * 1024
PIPE = 1 << 20
KEPT = 256 << 20
_F_SETPIPE_SZ = 1031


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
    """A request is one line of JSON: the folder to keep in, and the command."""
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
            folder, *command = json.loads(bytes(request[: tls.receive(request)]))
            _run(tls, folder, command)
    except (OSError, ssl.SSLError):
        pass  # the waiting for our port, or a client that was ended


def _run(tls: Tls, folder: str, command: list[str]) -> None:
    kept = os.open(os.path.join(folder, "kept"), os.O_RDWR | os.O_CREAT, 0o600) if folder != "-" else -1
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


if __name__ == "__main__":
    certificate, key, port, *rest = sys.argv[1:]
    if rest:
        show(certificate, int(port), rest)
    else:
        serve(certificate, key, int(port))
