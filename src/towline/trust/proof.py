"""What a client signs to prove its key. Pure."""

from __future__ import annotations

import hashlib

LABEL = b"towline prove v1"
_FINGERPRINT_BYTES = 32


def transcript(preface_c: bytes, hello_c: bytes, preface_s: bytes, hello_s: bytes, fingerprint: str | bytes) -> bytes:
    """32 bytes that stand for this one conversation: both sides' first bytes as they were on the wire, in full.

    `fingerprint` is the node's certificate (hex or 32 raw bytes), empty where there is no TLS (a Unix socket). It
    binds the proof to the one node: whoever sits in between with another certificate gets a proof that the real node
    refuses. Every part goes in behind its length, so that no two conversations give the same bytes (Terrapin,
    CVE-2023-48795, lived on a handshake that did not cover all of its own messages).
    """
    certificate = bytes.fromhex(fingerprint) if isinstance(fingerprint, str) else fingerprint
    if len(certificate) not in {0, _FINGERPRINT_BYTES}:
        raise ValueError("a certificate's fingerprint is 32 bytes")
    digest = hashlib.sha256()
    for part in (LABEL, preface_c, hello_c, preface_s, hello_s, certificate):
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()
