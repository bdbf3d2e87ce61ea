"""An Ed25519 identity (RFC 8032): the same for a node and for a client. The private key never leaves its file."""

from __future__ import annotations

import binascii
import hashlib
import os
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from towline.base import ids
from towline.base.errors import DiskError
from towline.base.text import printable
from towline.trust.files import folder_lock, private_folder, read_private, write_private

PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64
# PKCS #8 of an Ed25519 seed as RFC 8410, section 7, has it: always these bytes, and the 32 of the seed.
_SEED_PREFIX = bytes.fromhex("302e020100300506032b657004220420")
_SEED_BYTES = 32
_FINGERPRINT_BYTES = 20  # 160 bits: 32 characters are still compared by eye, and nobody finds a second key for them


class Identity:
    """A private key, the file it is kept in, and what one does with it."""

    def __init__(self, private: Ed25519PrivateKey, path: str | None = None) -> None:
        self._private = private
        self.path = path
        self.public: bytes = private.public_key().public_bytes_raw()

    @classmethod
    def load_or_create(cls, folder: str, name: str = "identity") -> Self:
        """The identity in `folder`/`name`.key (PKCS #8 PEM, mode 0600, folder 0700), made on first use.

        Raises LaxPermissions when others could read it, DiskError when the file holds no Ed25519 key.
        """
        home = private_folder(folder)
        path = os.path.join(home, f"{name}.key")
        pem = read_private(path)
        if pem is None:
            with folder_lock(home):
                pem = read_private(path)  # another process may have made it while we waited
                if pem is None:
                    pem = _new_pem()
                    write_private(path, pem)
        return cls(_parsed(pem, path), path)

    @classmethod
    def ephemeral(cls) -> Self:
        """An identity that lives in memory alone."""
        return cls(Ed25519PrivateKey.generate())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over `data`."""
        return self._private.sign(data)

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key itself, for making the node's certificate."""
        return self._private

    def __repr__(self) -> str:
        return f"<Identity {fingerprint(self.public)}>"


def verify(public: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` over `data` was made by the key behind `public`; False for anything malformed."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A public key as people compare it: eight groups of four, from its SHA-256."""
    return ids.short_id(hashlib.sha256(public).digest()[:_FINGERPRINT_BYTES])


def _new_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _parsed(pem: bytes, path: str) -> Ed25519PrivateKey:
    key = _plain_seed(pem) or _any_key(pem)
    if not isinstance(key, Ed25519PrivateKey):
        raise DiskError(
            f"{printable(path)} holds no Ed25519 key that can be read; restore it from a backup, or move it away "
            "(a new key means joining or inviting again)."
        )
    return key


def _plain_seed(pem: bytes) -> Ed25519PrivateKey | None:
    """The key in a file as `_new_pem` writes it; None for anything else."""
    match pem.split(b"\n"):
        case [b"-----BEGIN PRIVATE KEY-----", body, b"-----END PRIVATE KEY-----", b""]:
            try:
                der = binascii.a2b_base64(body, strict_mode=True)
            except binascii.Error:
                return None
            if der.startswith(_SEED_PREFIX) and len(der) == len(_SEED_PREFIX) + _SEED_BYTES:
                return Ed25519PrivateKey.from_private_bytes(der[len(_SEED_PREFIX) :])
    return None


def _any_key(pem: bytes) -> object:
    """Whatever the library finds. That door loads every kind of key (8 ms), so it is not for our own files."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
