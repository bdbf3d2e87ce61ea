from __future__ import annotations

import ssl
from pathlib import Path
from typing import NamedTuple

import pytest

from towline.trust.certificate import node_certificate
from towline.trust.keys import Identity
from towline.trust.tls import client_context, server_context


class Tls(NamedTuple):
    node: ssl.SSLContext
    client: ssl.SSLContext
    fingerprint: str


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    folder: Path = tmp_path_factory.mktemp("keys")
    folder.chmod(0o700)
    certificate, key, fingerprint = node_certificate(Identity.load_or_create(str(folder)), str(folder), "node")
    return Tls(server_context(certificate, key), client_context(), fingerprint)
