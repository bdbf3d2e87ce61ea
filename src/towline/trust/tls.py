"""The node's certificate and both TLS contexts. TLS 1.3 (RFC 8446) only, no resumption, trust by pin alone.

There is no certificate authority. The client learnt the SHA-256 of the node's certificate from the invite and accepts
that one certificate and no other; a name in it, a signature on it or a date in it would add nothing.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from datetime import UTC, datetime

from towline.base.errors import Conflict, DiskError, NotTowline, WrongPin
from towline.base.oserrors import oserrors
from towline.base.text import printable
from towline.trust.files import folder_lock, private_folder, read_private, write_private
from towline.trust.keys import Identity

ALPN = "towline/1"
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


def server_context(cert: str, key: str) -> ssl.SSLContext:
    """The node's side. Raises DiskError when the files cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _harden(context)
    # No ticket, no session to resume: every connection proves the key anew (OpenSSH's roaming, CVE-2016-0777).
    context.num_tickets = 0
    with oserrors(cert):
        try:
            context.load_cert_chain(cert, key)
        except ssl.SSLError as error:
            raise DiskError(f"{printable(cert)} and {printable(key)} cannot be used for TLS: {error.reason}.")
    return context


def client_context() -> ssl.SSLContext:
    """The client's side; whoever uses it calls `check_pin` before sending the first byte.

    CERT_NONE is safe here because it only switches off the search for a certificate authority. The handshake still
    checks the server's signature over it (CertificateVerify, RFC 8446, 4.4.3), so whoever we talk to holds the key
    of the certificate that was shown; and `check_pin` accepts exactly the one certificate that the invite named.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _harden(context)
    return context


def certificate_fingerprint(der: bytes) -> str:
    """Lower-case hex SHA-256 of the certificate's DER bytes."""
    return hashlib.sha256(der).hexdigest()


def check_pin(der: bytes | None, pinned_hex: str, alias: str) -> None:
    """Raise WrongPin, showing both fingerprints, unless `der` (SSLObject.getpeercert(True)) is the pinned one."""
    shown = certificate_fingerprint(der) if der else "no certificate"
    if shown != pinned_hex.lower():
        raise WrongPin(
            f"The node behind '{printable(alias)}' shows another key than the one pinned when joining. "
            f"Pinned: {printable(pinned_hex.lower())}; shown: {shown}. Somebody may be in between. If the node was "
            "really set up anew, ask for an invite and join again."
        )


def check_alpn(selected: str | None) -> None:
    """Raise NotTowline unless the handshake agreed on our protocol (OpenSSL itself lets a missing ALPN pass)."""
    if selected != ALPN:
        raise NotTowline("The other side speaks TLS but not Towline; check the address and port.")


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    context.set_alpn_protocols([ALPN])
    log = os.environ.get("SSLKEYLOGFILE")
    if log:
        # Only create_default_context does this by itself. What the file holds opens every recording: ours alone.
        with oserrors(log):
            os.close(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
            context.keylog_filename = log


def _self_signed(identity: Identity, name: str) -> bytes:
    # Late, because a client needs the contexts on each start and this never.
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

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
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
