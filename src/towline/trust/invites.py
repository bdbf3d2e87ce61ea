"""An invite as one code to copy: where the node is, how to know it, and a secret that works once. Pure.

    tow1- base32( secret 16 | certificate fingerprint 32 | len(name) - 1 | name | addresses… | CRC-32 )
    address = 4, IPv4 4, port 2  |  6, IPv6 16, port 2  |  0, length 1, text

The checksum is CRC-32, appended with its low byte first: it finds every change that lies within 32 bits, so any one
wrong character and any two that changed places. It tells "mistyped" from "expired"; it protects from nothing else.
"""

from __future__ import annotations

import hashlib
import ipaddress
import zlib

from msgspec import Struct

from towline.base import ids
from towline.base.errors import BadInvite, UsageError
from towline.base.limits import Limit
from towline.base.names import checked_alias
from towline.base.text import printable

SECRET_BYTES = 16
FINGERPRINT_BYTES = 32
CODE_TEXT = Limit(
    "code_text", 4096, "characters", "eight long addresses fit; decoding costs the square of the length"
)
CODE_ADDRESSES = Limit("code_addresses", 8, "addresses", "a node has a few; a code is copied by people")
_CHECKSUM_BYTES = 4
_PREFIX = "tow1"
_LOOKALIKES = str.maketrans("oil", "011")
# What mail and chat programs put into a copied line: soft hyphens, zero-width spaces, typographic dashes.
_NOISE = {ord(char): None for char in "-\u00ad\u200b\u2060\ufeff\u2010\u2011\u2012\u2013\u2014"}
_TEXT, _IPV4, _IPV6 = 0, 4, 6


class Code(Struct, frozen=True):
    """What an invite carries. `fingerprint` is lower-case hex of 32 bytes; `addresses` are in order of preference:
    `host:port`, `[v6]:port` or `unix:/path`."""

    addresses: tuple[str, ...]
    fingerprint: str
    name: str
    secret: bytes

    def __repr__(self) -> str:
        return f"<Code of {self.name} at {', '.join(self.addresses)}>"  # the secret is not for logs


def encode_code(code: Code) -> str:
    """The code on one line. Raises UsageError for a bad name or address, ValueError for a secret of another size."""
    fingerprint = bytes.fromhex(code.fingerprint)
    if len(code.secret) != SECRET_BYTES or len(fingerprint) != FINGERPRINT_BYTES:
        raise ValueError("a code needs a secret of 16 bytes and a fingerprint of 32")
    if not code.addresses:
        raise UsageError("An invite needs at least one address.")
    CODE_ADDRESSES.check(len(code.addresses))
    name = checked_alias(code.name, what="name for a node").encode()
    body = b"".join(
        [code.secret, fingerprint, bytes([len(name) - 1]), name, *(_packed(address) for address in code.addresses)]
    )
    return f"{_PREFIX}-{ids.encode(body + _checksum(body))}"


def decode_code(text: str) -> Code:
    """What a code says, however it was wrapped, spaced or capitalised. Raises BadInvite ("mistyped")."""
    digits = "".join(text.split()).translate(_NOISE).lower().translate(_LOOKALIKES)
    prefix = _PREFIX.translate(_LOOKALIKES)
    if len(digits) > CODE_TEXT.value or not digits.startswith(prefix):
        raise _mistyped("it does not begin with 'tow1-'" if digits else "it is empty")
    digits = digits.removeprefix(prefix)
    try:
        data = ids.decode(digits)
    except ValueError:
        raise _mistyped("it has a character that no code has")
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if checksum != _checksum(body) or ids.encode(data) != digits:
        raise _mistyped("its check digits do not fit")
    try:
        return _parsed(body)
    except (IndexError, ValueError, UsageError):  # a right checksum over nonsense: made by another program
        raise _mistyped("its content cannot be understood")


def secret_hash(secret: bytes) -> str:
    """What the node keeps of a secret. It is 128 random bits, so a plain hash cannot be turned round by guessing."""
    return hashlib.sha256(b"towline invite v1" + secret).hexdigest()


def _mistyped(why: str) -> BadInvite:
    return BadInvite(f"The invite code was mistyped or is not whole: {why}. Copy it again; it has not been used.")


def _checksum(body: bytes) -> bytes:
    return zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def _packed(address: str) -> bytes:
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        packed = bytes([ip.version]) + ip.packed + int(port).to_bytes(2)
        if _unpacked(packed)[0] == address:  # only what comes back letter for letter (no zone, no leading zero)
            return packed
    except (ValueError, OverflowError):
        pass  # a name or a socket path: as text
    raw = address.encode()
    if not 1 <= len(raw) <= 255 or printable(address) != address:
        raise UsageError(f"'{printable(address, limit=80)}' does not fit into an invite as an address.")
    return bytes([_TEXT, len(raw)]) + raw


def _parsed(body: bytes) -> Code:
    secret, rest = body[:SECRET_BYTES], body[SECRET_BYTES:]
    fingerprint, rest = rest[:FINGERPRINT_BYTES], rest[FINGERPRINT_BYTES:]
    length = rest[0] + 1
    name, rest = rest[1 : 1 + length].decode(), rest[1 + length :]
    addresses = []
    while rest:
        address, rest = _unpacked(rest)
        addresses.append(address)
    if not 1 <= len(addresses) <= CODE_ADDRESSES.value or checked_alias(name) != name:
        raise ValueError("no such code is ever made")
    return Code(tuple(addresses), fingerprint.hex(), name, secret)


def _unpacked(data: bytes) -> tuple[str, bytes]:
    """One address and the bytes behind it. Raises ValueError or IndexError."""
    kind = data[0]
    size = {_TEXT: 2 + data[1], _IPV4: 7, _IPV6: 19}.get(kind, 0)
    piece, rest = data[:size], data[size:]
    if not size or len(piece) != size:
        raise ValueError("an address is cut short")
    if kind == _TEXT:
        text = piece[2:].decode()
        if not text or printable(text) != text:
            raise ValueError("an address cannot be shown")
        return text, rest
    host, port = piece[1:-2], int.from_bytes(piece[-2:])
    shown = str(ipaddress.IPv4Address(host)) if kind == _IPV4 else f"[{ipaddress.IPv6Address(host)}]"
    return f"{shown}:{port}", rest
