"""Identities: made once, kept narrow, refused when wide."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from towline.base.errors import DiskError, LaxPermissions, NotADirectory
from towline.trust import keys
from towline.trust.keys import Identity, fingerprint, verify

_PRINT_PUBLIC = (
    "import sys; from towline.trust.keys import Identity; print(Identity.load_or_create(sys.argv[1]).public.hex())"
)


def _mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_an_identity_is_made_once_with_narrow_modes(tmp_path: Path) -> None:
    home = tmp_path / "home"
    old = os.umask(0)  # the widest: the modes must come from us
    try:
        first = Identity.load_or_create(str(home))
    finally:
        os.umask(old)
    assert first.path == str(home / "identity.key")
    assert (_mode(home), _mode(first.path)) == (0o700, 0o600)
    assert Identity.load_or_create(str(home)).public == first.public
    assert Identity.load_or_create(str(home), "other").public != first.public
    assert sorted(os.listdir(home)) == [".lock", "identity.key", "other.key"]


def test_processes_that_start_together_get_the_same_identity(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PRINT_PUBLIC, str(tmp_path / "home")]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    publics = {process.communicate(timeout=30)[0] for process in started}
    assert len(publics) == 1
    assert len(publics.pop().strip()) == 64


def test_signatures() -> None:
    identity, other = Identity.ephemeral(), Identity.ephemeral()
    signature = identity.sign(b"hello")
    assert verify(identity.public, signature, b"hello")
    assert not verify(identity.public, signature, b"hellO")
    assert not verify(other.public, signature, b"hello")
    assert not verify(identity.public, signature[:-1], b"hello")
    assert not verify(identity.public[:-1], signature, b"hello")
    assert not verify(b"\xff" * 32, signature, b"hello")
    assert not verify(b"", b"", b"")


def test_a_fingerprint_is_short_stable_and_shows_no_secret() -> None:
    identity = Identity.ephemeral()
    shown = fingerprint(identity.public)
    assert len(shown.split("-")) == 8
    assert shown in repr(identity)
    assert fingerprint(bytes(32)) == "csm7-nbfr-cayq-ev4f-r65r-x7we-4049-e545"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620])
def test_a_lax_key_file_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "it's mine"
    path = Identity.load_or_create(str(home)).path
    assert path is not None
    os.chmod(path, mode)
    with pytest.raises(LaxPermissions) as refused:
        Identity.load_or_create(str(home))
    _mend(refused.value.sentence)
    Identity.load_or_create(str(home))


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770])
def test_a_lax_folder_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    home = tmp_path / "my home"
    Identity.load_or_create(str(home))
    os.chmod(home, mode)
    with pytest.raises(LaxPermissions) as refused:
        Identity.load_or_create(str(home))
    _mend(refused.value.sentence)
    Identity.load_or_create(str(home))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "home"
    path = Identity.load_or_create(str(home)).path
    assert path is not None
    os.chown(path, 12345, -1)
    with pytest.raises(LaxPermissions, match="belongs to user 12345, you are user 0; mend it: chown 0 "):
        Identity.load_or_create(str(home))


def _pem(der: bytes, width: int = 64) -> bytes:
    text = base64.b64encode(der)
    lines = [text[at : at + width] for at in range(0, len(text), width)]
    return b"\n".join([b"-----BEGIN PRIVATE KEY-----", *lines, b"-----END PRIVATE KEY-----", b""])


def test_our_own_file_is_read_by_the_short_way_and_any_other_form_by_the_library(tmp_path: Path) -> None:
    first = Identity.load_or_create(str(tmp_path / "home"))
    path = tmp_path / "home" / "identity.key"
    pem = path.read_bytes()
    der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
    assert keys._plain_seed(pem) is not None
    for other in (pem.replace(b"\n", b"\r\n"), b"a note\n" + pem, _pem(der, 40), pem.rstrip()):
        assert keys._plain_seed(other) is None
        path.write_bytes(other)
        assert Identity.load_or_create(str(path.parent)).public == first.public


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"noise",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n",
        _pem(keys._SEED_PREFIX + bytes(31)),
        _pem(keys._SEED_PREFIX[:-2] + b"\x04\x21" + bytes(33)),
    ],
)
def test_a_damaged_key_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "home" / "identity.key"
    Identity.load_or_create(str(path.parent))
    path.write_bytes(content)
    with pytest.raises(DiskError, match=r"identity\.key holds no Ed25519 key"):
        Identity.load_or_create(str(path.parent))
    assert path.read_bytes() == content


def test_a_fifo_in_the_place_of_the_key_does_not_hang(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.mkfifo(home / "identity.key", 0o600)
    with pytest.raises(LaxPermissions, match="not a regular file"):
        Identity.load_or_create(str(home))


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(NotADirectory, match='home": a folder was expected'):
        Identity.load_or_create(str(tmp_path / "home"))


def test_a_crash_while_writing_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    (home / "identity.key.new").write_bytes(b"half a key")
    Identity.load_or_create(str(home))
    assert not (home / "identity.key.new").exists()


def _mend(sentence: str) -> None:
    command = sentence.split("mend it: ", 1)[1]
    assert command.startswith("chmod ")
    subprocess.run(["sh", "-c", command], check=True)
