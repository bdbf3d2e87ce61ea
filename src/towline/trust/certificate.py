"""The node's certificate: made once from its key, and pinned by everybody who joins.

Apart from `tls`, because a client needs the contexts at each start and this never.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from towline.base.errors import Conflict, DiskError
from towline.base.text import printable
from towline.trust.files import folder_lock, private_folder, read_private, write_private
from towline.trust.keys import Identity
from towline.trust.tls import certificate_fingerprint

CERTIFICATE_FILE = "node.crt"
_COMMON_NAME_BYTES = 64  # X.520 ub-common-name
# Fixed dates: RFC 5280, 4.1.2.5 has the last one for "no expiry that means anything". With them and a deterministic
# signature scheme, a lost node.crt is made again from the same key and name with the very same fingerprint.
_NOT_BEFORE = datetime(2024, 1, 1, tzinfo=UTC)
_NOT_AFTER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def node_certificate(identity: Identity, folder: str, name: str) -> tuple[str, str, str]:
    """The node's certificate file, its key file and the fingerprint; made once, kept for good.

    `name` becomes the common name when the certificate is made; a later change of it leaves the certificate alone,
    because every client has pinned it. Raises Conflict when the certificate was made from another key.
    """
    if identity.path is None:
        raise ValueError("a certificate needs an identity that is kept in a file")
    home = private_folder(folder)
    path = os.path.join(home, CERTIFICATE_FILE)
    pem = read_private(path)
    if pem is None:
        with folder_lock(home):
            pem = read_private(path)
            if pem is None:
                pem = _self_signed(identity, name)
                write_private(path, pem)
    return path, identity.path, certificate_fingerprint(_checked_der(pem, path, identity))


def _self_signed(identity: Identity, name: str) -> bytes:
    common = name.encode()[:_COMMON_NAME_BYTES].decode("utf-8", "ignore") or "node"
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])
    serial = int.from_bytes(hashlib.sha256(b"towline serial v1" + identity.public).digest()[:16])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(identity.private.public_key())
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .sign(identity.private, None)
    )
    return certificate.public_bytes(Encoding.PEM)


def _checked_der(pem: bytes, path: str, identity: Identity) -> bytes:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        ours = identity.private.public_key()
        info = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        fits = certificate.public_key().public_bytes(*info) == ours.public_bytes(*info)
    except (ValueError, UnsupportedAlgorithm):
        raise DiskError(f"{printable(path)} holds no certificate that can be read; restore it or move it away.")
    if not fits:
        raise Conflict(
            f"{printable(path)} was made from another key than {printable(identity.path or '')}. Restore the key "
            "that belongs to it; or move the certificate away, and every client has to join again."
        )
    return certificate.public_bytes(Encoding.DER)
