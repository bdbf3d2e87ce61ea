"""The tutorials' legitimacy check: on connect the server sends 32 random bytes, the client answers their HMAC.

It proves that the client knows the shared secret. It does not protect what is said after it: whoever sits on the
line reads and changes everything. The check exists for interoperability; real protection is what a node has.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import stat
from typing import Literal

from towline.base.errors import ConnectionLost, NotFound, NotLegitimate, UsageError
from towline.classic.limits import GATE_SECONDS
from towline.classic.server import Peer

CHALLENGE_SIZE = 32
HmacName = Literal["md5", "sha256"]
HMACS: tuple[HmacName, ...] = ("md5", "sha256")


class Gate:
    """The check under one secret; `seconds` is the absolute time that a client has for its answer."""

    def __init__(self, secret: bytes, algorithm: HmacName = "sha256", *, seconds: float = GATE_SECONDS.value) -> None:
        self._secret = secret
        self._algorithm = algorithm
        self._seconds = seconds

    def __repr__(self) -> str:
        return f"<Gate {self._algorithm}>"

    def answer(self, challenge: bytes) -> bytes:
        """HMAC of the challenge: 16 bytes with md5, 32 with sha256."""
        return hmac.new(self._secret, challenge, self._algorithm).digest()

    async def admit(self, peer: Peer) -> None:
        """Challenge a client that has just connected. Raises NotLegitimate for a wrong or late answer."""
        challenge = os.urandom(CHALLENGE_SIZE)
        size = hashlib.new(self._algorithm, usedforsecurity=False).digest_size
        try:
            async with asyncio.timeout(self._seconds):
                await peer.send(challenge)
                answer = await peer.exactly(size)
        except TimeoutError:
            raise NotLegitimate(f"No answer to the legitimacy check within {self._seconds:g} s.") from None
        except (ConnectionError, ConnectionLost):
            raise NotLegitimate("The client left without an answer to the legitimacy check.") from None
        if not hmac.compare_digest(answer, self.answer(challenge)):
            raise NotLegitimate("The answer to the legitimacy check is wrong: another secret or another --hmac.")


def read_secret(path: str) -> tuple[bytes, str]:
    """The shared secret in a file, and a warning (or nothing) when others may read the file.

    One line end at its end does not belong to it. A warning only: the tutorials' peers keep the same secret in their
    source, and the check protects nothing that is said after it. Raises NotFound, UsageError when it is empty.
    """
    warning = ""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotFound(f"The secret file {path!r} cannot be opened: {error.strerror}.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"The secret file {path!r} is not a regular file.")
        if status.st_mode & 0o077:
            warning = f"The secret file {path!r} can be read by others; run: chmod 600 {path}"
        secret = os.read(descriptor, 64 * 1024).removesuffix(b"\n").removesuffix(b"\r")
    finally:
        os.close(descriptor)
    if not secret:
        raise UsageError(f"The secret file {path!r} is empty.")
    return secret, warning
