"""The contexts, on real handshakes over loopback TCP; OpenSSL itself says what was agreed."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from towline.base.errors import Conflict, DiskError, NotFound, WrongPin
from towline.trust.certificate import node_certificate
from towline.trust.keys import Identity
from towline.trust.tls import (
    ALPN,
    certificate_fingerprint,
    check_pin,
    client_context,
    server_context,
)


@pytest.fixture(autouse=True)
def _no_key_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSLKEYLOGFILE", raising=False)


@pytest.fixture
def node(tmp_path: Path) -> tuple[str, str, str]:
    folder = str(tmp_path / "node")
    return node_certificate(Identity.load_or_create(folder), folder, "home")


@contextmanager
def _talk(server: ssl.SSLContext, client: ssl.SSLContext) -> Iterator[tuple[ssl.SSLSocket, ssl.SSLSocket]]:
    """A finished handshake: (the server's socket, the client's)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ends: list[ssl.SSLSocket | Exception] = []

        def accept() -> None:
            raw, _ = listener.accept()
            raw.settimeout(20)
            try:
                ends.append(server.wrap_socket(raw, server_side=True))
            except OSError as error:
                raw.close()
                ends.append(error)

        thread = threading.Thread(target=accept)
        thread.start()
        with socket.create_connection(listener.getsockname(), timeout=20) as raw:
            try:
                ours = client.wrap_socket(raw)
            finally:
                thread.join(20)
            theirs = ends[0]
            assert isinstance(theirs, ssl.SSLSocket), theirs
            with ours, theirs:
                yield theirs, ours


def test_a_handshake_agrees_on_tls_13_our_protocol_and_the_pinned_certificate(node: tuple[str, str, str]) -> None:
    cert, key, fingerprint = node
    with _talk(server_context(cert, key), client_context()) as (server, client):
        for side in (server, client):
            assert side.version() == "TLSv1.3"
            assert side.selected_alpn_protocol() == ALPN == "towline/1"
        der = client.getpeercert(binary_form=True)
        assert der is not None
        assert certificate_fingerprint(der) == fingerprint
        check_pin(der, fingerprint.upper(), "home")
        client.sendall(b"there")
        assert server.recv(100) == b"there"
        server.sendall(b"back")
        assert client.recv(100) == b"back"


def test_the_server_gives_nothing_to_resume_from(node: tuple[str, str, str]) -> None:
    cert, key, _ = node
    context, client = server_context(cert, key), client_context()
    assert context.num_tickets == 0
    with _talk(context, client) as (theirs, ours):
        theirs.sendall(b"x")  # a ticket would come before the first byte
        assert ours.recv(1) == b"x"
        session = ours.session
        assert session is None or not session.has_ticket
        assert not ours.session_reused
    assert context.session_stats()["hits"] == 0


def test_a_server_with_tickets_would_be_noticed(node: tuple[str, str, str]) -> None:
    """The control for the test above: the same look at a context that was loosened again."""
    cert, key, _ = node
    context = server_context(cert, key)
    context.num_tickets = 2
    with _talk(context, client_context()) as (theirs, ours):
        theirs.sendall(b"x")
        assert ours.recv(1) == b"x"
        assert ours.session is not None
        assert ours.session.has_ticket


@pytest.mark.parametrize("side", ["server", "client"])
def test_tls_12_is_refused_by_either_side(node: tuple[str, str, str], side: str) -> None:
    cert, key, _ = node
    server, client = server_context(cert, key), client_context()
    older = server if side == "client" else client
    older.minimum_version = older.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises((ssl.SSLError, ConnectionError)), _talk(server, client):
        pass


def test_a_certificate_without_its_key_makes_no_server(node: tuple[str, str, str], tmp_path: Path) -> None:
    cert, _, _ = node
    imposter = Identity.load_or_create(str(tmp_path / "imposter"))
    assert imposter.path is not None
    with pytest.raises(DiskError, match="cannot be used for TLS"):
        server_context(cert, imposter.path)


def test_another_nodes_certificate_is_a_wrong_pin_and_both_are_shown(
    node: tuple[str, str, str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "other")
    cert, key, other = node_certificate(Identity.load_or_create(folder), folder, "home")
    with _talk(server_context(cert, key), client_context()) as (_, client), pytest.raises(WrongPin) as refused:
        check_pin(client.getpeercert(binary_form=True), node[2], "home")
    assert node[2] in refused.value.sentence
    assert other in refused.value.sentence
    assert "'home'" in refused.value.sentence
    with pytest.raises(WrongPin, match="no certificate"):
        check_pin(None, node[2], "home")


def test_the_certificate_is_made_once_and_kept_whatever_the_name_becomes(
    node: tuple[str, str, str], tmp_path: Path
) -> None:
    folder = str(tmp_path / "node")
    again = node_certificate(Identity.load_or_create(folder), folder, "renamed")
    assert again == node
    assert stat.S_IMODE(os.stat(node[0]).st_mode) == 0o600


def test_a_lost_certificate_comes_back_with_the_same_fingerprint(node: tuple[str, str, str], tmp_path: Path) -> None:
    os.unlink(node[0])
    folder = str(tmp_path / "node")
    assert node_certificate(Identity.load_or_create(folder), folder, "home") == node


def test_the_certificate_says_its_name_and_lasts(node: tuple[str, str, str]) -> None:
    certificate = x509.load_pem_x509_certificate(Path(node[0]).read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=home"
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=20 * 366)
    assert certificate.not_valid_before_utc < datetime.now(UTC)


@pytest.mark.parametrize("name", ["小服务器" * 16, "a" * 64, "é" * 64])
def test_a_long_name_fits(tmp_path: Path, name: str) -> None:
    cert, key, _ = node_certificate(Identity.load_or_create(str(tmp_path / "n")), str(tmp_path / "n"), name)
    certificate = x509.load_pem_x509_certificate(Path(cert).read_bytes())
    common = str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    assert common
    assert name.startswith(common)
    server_context(cert, key)


def test_a_certificate_of_another_key_is_refused(node: tuple[str, str, str], tmp_path: Path) -> None:
    folder = str(tmp_path / "node")
    os.unlink(node[1])
    with pytest.raises(Conflict, match="made from another key"):
        node_certificate(Identity.load_or_create(folder), folder, "home")


def test_a_damaged_certificate_is_named(node: tuple[str, str, str], tmp_path: Path) -> None:
    folder = str(tmp_path / "node")
    Path(node[0]).write_bytes(b"noise")
    with pytest.raises(DiskError, match=r"node\.crt holds no certificate"):
        node_certificate(Identity.load_or_create(folder), folder, "home")


def test_the_key_log_is_written_by_both_contexts_and_is_ours_alone(
    node: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cert, key, _ = node
    for side in ("server", "client"):
        log = tmp_path / f"{side}.keys"
        with monkeypatch.context() as patched:
            patched.setenv("SSLKEYLOGFILE", str(log))
            server = server_context(cert, key) if side == "server" else None
            client = client_context() if side == "client" else None
        with _talk(server or server_context(cert, key), client or client_context()):
            pass
        assert "SERVER_TRAFFIC_SECRET_0 " in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_key_log_that_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "missing" / "log"))
    with pytest.raises(NotFound, match='missing/log": there is nothing'):
        client_context()
