"""Who speaks, and is it us they mean? Strangers recognised by their first bytes, and the transcript that a key signs.

The proof covers the prefaces and both HELLOs to the byte and the fingerprint of the certificate that the client saw,
so nothing of the negotiation can be deleted or injected unnoticed (Terrapin, CVE-2023-48795).
"""

from __future__ import annotations

import hashlib

from towline.base.errors import NotTowline, TowlineError, VersionMismatch
from towline.protocol.codec import Header
from towline.protocol.table import MAGIC, PREFACE, VERSION

_LABEL = b"towline prove v1"
# A node answers a stranger with no more bytes than it got: this is what a client's HELLO is filled up to.
CLIENT_HELLO_SIZE = 1200

# No entry begins with another one, so what a peer is called does not depend on how its bytes were cut.
STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"GET ", "HTTP"),
    (b"HEAD ", "HTTP"),
    (b"POST ", "HTTP"),
    (b"PUT ", "HTTP"),
    (b"PATCH ", "HTTP"),
    (b"OPTIONS ", "HTTP"),
    (b"CONNECT ", "HTTP"),
    (b"DELETE ", "HTTP"),
    (b"PRI * HTTP/2", "HTTP"),
    (b"HTTP/", "HTTP"),
    (b"SSH-", "SSH"),
    (b"\x16\x03", "TLS"),
    (b"220 ", "FTP or SMTP"),
    (b"220-", "FTP or SMTP"),
)


def transcript(client_hello: bytes, node_hello: bytes, fingerprint: str) -> bytes:
    """32 bytes to sign. Both HELLOs as they stood on the wire, prefaces included; the fingerprint in hexadecimal."""
    digest = hashlib.sha256()
    for part in (_LABEL, client_hello, node_hello, fingerprint.encode("ascii", "replace")):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()


def padding(header: Header, encoded_size: int) -> Header:
    """`header` with a pad, so that the whole frame has about CLIENT_HELLO_SIZE bytes."""
    missing = CLIENT_HELLO_SIZE - encoded_size - len(',"pad":""')
    return header | {"pad": "." * missing} if missing > 0 else header


def could_be_preface(first: bytes) -> bool:
    """Whether the bytes so far (at most eight) may become our preface."""
    return PREFACE.startswith(first[: len(PREFACE)])


def undecided(first: bytes) -> bool:
    """Whether more bytes are needed to say who speaks."""
    return could_be_preface(first) or any(start.startswith(first) for start, _ in STRANGERS if start != first)


def stranger(first: bytes) -> TowlineError:
    """The error for a peer whose first bytes are not our preface."""
    if first.startswith(MAGIC) and len(first) > len(MAGIC):
        return VersionMismatch(
            f"The other side speaks version {first[len(MAGIC)]} of the Towline protocol and this one {VERSION}; "
            "update the older of the two."
        )
    for start, name in STRANGERS:
        if first and first.startswith(start[: len(first)]):
            return NotTowline(f"The other side speaks {name}, not Towline; check the address and port.")
    return NotTowline()


def readable_line(error: TowlineError) -> bytes:
    """The one line that a stranger gets before the close."""
    return f"This is a Towline node. {error.sentence}\r\n".encode("ascii", "replace")


def last_words(error: TowlineError, room: int) -> bytes:
    """What a node says to a peer that did not get past the preface, in at most `room` bytes (perhaps nothing)."""
    if isinstance(error, VersionMismatch):
        return PREFACE[:room]  # another version of us understands that, and says the same to its person
    for line in (readable_line(error), b"This is a Towline node.\r\n", b"Towline\r\n"):
        if len(line) <= room:
            return line
    return b""
