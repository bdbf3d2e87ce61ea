"""Unix sockets: the folder is 0700 and the kernel says who the peer is (SO_PEERCRED, unix(7)). No TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

from towline.base.errors import InUse, LaxPermissions, Unreachable, UsageError
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.transports.interface import Receiver, ReceiverFactory
from towline.transports.streams import StreamTransport

_PATH_MAX = 107  # sun_path less its final NUL


async def connect(path: str, receiver: Receiver) -> StreamTransport:
    """Connect to the socket at `path`. Raises Unreachable."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with short_path(path) as short:
            await loop.sock_connect(sock, short)
        _, protocol = await loop.create_unix_connection(
            lambda: StreamTransport(receiver, None, server_side=False), sock=sock
        )
    except OSError as error:
        sock.close()
        reason = "nothing listens there" if isinstance(error, ConnectionRefusedError) else error.strerror or error
        raise Unreachable(f"The socket {printable(path)} cannot be reached: {reason}.") from error
    except BaseException:
        sock.close()
        raise
    return protocol


async def listen(path: str, make_receiver: ReceiverFactory) -> asyncio.Server:
    """Listen at `path`, replacing a socket that nobody listens on any more.

    Raises InUse, LaxPermissions (the folder is open to others) and what the disk says.
    """
    loop = asyncio.get_running_loop()
    with oserrors(path):
        _check_folder(os.path.dirname(path) or ".")
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        with short_path(path) as short:
            sock.bind(short)
        os.chmod(path, 0o600)
        return await loop.create_unix_server(
            lambda: StreamTransport(make_receiver(), None, server_side=True), sock=sock, backlog=128
        )
    except OSError as error:
        sock.close()
        raise InUse(f"Cannot listen on {printable(path)}: {error.strerror or error}.") from error
    except BaseException:
        sock.close()
        raise


def remove(path: str) -> None:
    """Take the socket's name away when its listener is closed."""
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody tidied up before us; a name that is left over is found stale by the next listener


def _check_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder, mode=0o700)
    info = os.stat(folder)
    mode, ours = stat.S_IMODE(info.st_mode), os.geteuid()
    if info.st_uid != ours:
        raise LaxPermissions(
            f"The Unix socket's folder {printable(folder)} belongs to user {info.st_uid}, you are user {ours}; "
            "choose a folder of your own."
        )
    if mode & 0o077:
        from shlex import quote  # for mistakes only

        shared = mode & stat.S_ISVTX or os.path.ismount(folder)  # /tmp, say: nobody should close that to the others
        mend = "" if shared else f", or mend it: chmod 700 {printable(quote(folder))}"
        raise LaxPermissions(
            f"The Unix socket's folder {printable(folder)} is open to others ({mode:04o}); "
            f"choose one of your own{mend}"
        )


def _remove_stale(path: str) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise InUse(f"{printable(path)} exists and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, short_path(path) as short:
        try:
            probe.connect(short)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise InUse(f"Another process listens on {printable(path)}.")


class short_path:  # noqa: N801  # used like a function
    """A name for `path` that fits sun_path: long ones go through a descriptor of their folder."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) <= _PATH_MAX:
            return self._path
        folder, name = os.path.split(self._path)
        if len(os.fsencode(name)) > 64:
            raise UsageError(f"The socket's name {name!r} is too long.")
        self._folder = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._folder}/{name}"

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)
