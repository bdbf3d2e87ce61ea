"""Both TLS contexts, and the pin. TLS 1.3 (RFC 8446) only, no resumption, trust by pin alone.

There is no certificate authority. The client learnt the SHA-256 of the node's certificate from the invite and accepts
that one certificate and no other; a name in it, a signature on it or a date in it would add nothing.
"""

from __future__ import annotations

import hashlib
import os
import ssl

from towline.base.errors import DiskError, WrongPin
from towline.base.oserrors import oserrors
from towline.base.text import printable

ALPN = "towline/1"


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
