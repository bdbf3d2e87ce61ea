"""The bare pump: one blocking socket, Python's TLS, a file at each end; nothing is framed, resumed or granted.

It is the floor for what Towline could reach with these libraries: `plain` moves the bytes, `hashed` also takes their
BLAKE3 at both ends and compares. As a script it is both ends: `serve FOLDER PORT`, `get …`, `put …`.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading
from typing import Any

HOST = "127.0.0.1"
CHUNK = 256 * 1024


def serve(certificate: str, key: str, port: int) -> None:
    """Requests are one line: `get|put hashed|plain SIZE PATH`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    with socket.create_server((HOST, port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_answer, args=(context, connection), daemon=True).start()


def _answer(context: ssl.SSLContext, connection: socket.socket) -> None:
    try:
        with context.wrap_socket(connection, server_side=True) as tls:
            verb, kind, size, path = tls.recv(4096).decode().split(" ", 3)
            if verb == "get":
                send_file(tls, path, hashed=kind == "hashed")
            else:
                tls.sendall(b"ok")
                receive_file(tls, path, int(size), hashed=kind == "hashed")
                tls.sendall(b"ok")
    except (OSError, ssl.SSLError):
        pass  # the waiting for our port, or a client that was ended


def transfer(certificate: str, port: int, verb: str, kind: str, source: str, target: str) -> None:
    """One file there or here."""
    context = ssl.create_default_context(cafile=certificate)
    size = os.path.getsize(source)
    with context.wrap_socket(socket.create_connection((HOST, port)), server_hostname=HOST) as tls:
        remote = source if verb == "get" else target
        tls.sendall(f"{verb} {kind} {size} {remote}".encode())
        if verb == "get":
            receive_file(tls, target, size, hashed=kind == "hashed")
        else:
            tls.recv(2)
            send_file(tls, source, hashed=kind == "hashed")
            assert tls.recv(2) == b"ok"


def send_file(tls: ssl.SSLSocket, path: str, *, hashed: bool) -> None:
    """The file's bytes, then its digest when `hashed`."""
    digest = _hasher(hashed)
    buffer = memoryview(bytearray(CHUNK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            if digest is not None:
                digest.update(buffer[:count])
            tls.sendall(buffer[:count])
    if digest is not None:
        tls.sendall(digest.digest())


def receive_file(tls: ssl.SSLSocket, path: str, size: int, *, hashed: bool) -> None:
    """`size` bytes into a new file; whole chunks are written, as Towline does."""
    digest = _hasher(hashed)
    buffer = memoryview(bytearray(CHUNK))
    left = size
    with open(path, "wb", buffering=0) as file:
        while left:
            count = _fill(tls, buffer[: min(left, CHUNK)])
            if digest is not None:
                digest.update(buffer[:count])
            file.write(buffer[:count])
            left -= count
    if digest is not None:
        told = memoryview(bytearray(32))
        _fill(tls, told)
        assert bytes(told) == digest.digest(), "the digests differ"


def _fill(tls: ssl.SSLSocket, target: memoryview) -> int:
    filled = 0
    while filled < len(target):
        count = tls.recv_into(target[filled:])
        if not count:
            raise ConnectionError("the other side has closed")
        filled += count
    return filled


def _hasher(hashed: bool) -> Any:
    if not hashed:
        return None
    from blake3 import blake3

    return blake3()


if __name__ == "__main__":
    certificate, key, port, *rest = sys.argv[1:]
    if rest:
        transfer(certificate, int(port), *rest)
    else:
        serve(certificate, key, int(port))
