"""The client's list of nodes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import Conflict, DiskError, LaxPermissions, UnknownAlias, UsageError
from towline.base.names import checked_alias
from towline.trust.home import client_home, default_data_folder
from towline.trust.pins import KnownNodes, Node, checked_address

_WRITER = """
import sys
from towline.trust.pins import KnownNodes, Node
home, prefix, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
known = KnownNodes(home)
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    known.add(Node(alias=f"{prefix}{number}", address="h:1", fingerprint="00" * 32, name="n"))
    known.set_address("shared", f"{prefix}:{number + 1}")
"""


def _node(alias: str = "home", fingerprint: str = "ab" * 32, address: str = "127.0.0.1:7440") -> Node:
    return Node(alias=alias, address=address, fingerprint=fingerprint, name="home", joined=1.5)


@pytest.fixture
def known(tmp_path: Path) -> KnownNodes:
    return KnownNodes(str(tmp_path / "home"))


def test_what_was_added_is_found_again(known: KnownNodes, tmp_path: Path) -> None:
    assert known.all() == []
    kept = known.add(_node("зал"))
    known.add(_node("home"))
    again = KnownNodes(str(tmp_path / "home"))
    assert again.find("зал") == kept
    assert kept.addresses == ("127.0.0.1:7440",)
    assert [node.alias for node in again.all()] == ["home", "зал"]
    path = tmp_path / "home" / "nodes.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["v"] == 1


def test_an_alias_keeps_its_pin_unless_replaced_explicitly(known: KnownNodes) -> None:
    known.add(_node())
    known.add(_node(address="unix:/run/tow.sock"))  # the same node elsewhere
    assert known.find("home").address == "unix:/run/tow.sock"
    for refuse in (known.add, known.check):
        with pytest.raises(Conflict, match=f"(?s){'ab' * 32}.*{'cd' * 32}.*tow nodes forget home"):
            refuse(_node(fingerprint="cd" * 32))
    assert known.find("home").fingerprint == "ab" * 32
    known.add(_node(fingerprint="CD" * 32), replace=True)
    assert known.find("home").fingerprint == "cd" * 32


def test_check_says_what_add_would_and_keeps_nothing(known: KnownNodes, tmp_path: Path) -> None:
    assert known.check(_node("cafe\u0301")).alias == "caf\u00e9"
    with pytest.raises(UsageError):
        known.check(_node("a/b"))
    assert not (tmp_path / "home").exists()


def test_set_address_keeps_the_pin_and_drops_the_other_addresses(known: KnownNodes) -> None:
    node = Node(alias="a", address="h:1", fingerprint="ab" * 32, name="n", addresses=("h:1", "g:2"))
    known.add(node)
    moved = known.set_address("a", "127.0.0.1:9")
    assert (moved.address, moved.addresses, moved.fingerprint) == ("127.0.0.1:9", ("127.0.0.1:9",), "ab" * 32)
    assert known.find("a") == moved


def test_forget(known: KnownNodes) -> None:
    known.add(_node())
    assert known.forget("home").alias == "home"
    with pytest.raises(UnknownAlias):
        known.forget("home")
    assert known.all() == []


def test_an_unknown_alias_names_close_ones(known: KnownNodes) -> None:
    known.add(_node("laptop"))
    with pytest.raises(UnknownAlias, match=r"'laptpo' is known here\. Did you mean 'laptop'"):
        known.find("laptpo")
    for change in (known.forget, lambda alias: known.set_address(alias, "h:1")):
        with pytest.raises(UnknownAlias):
            change("laptpo")


def test_the_same_letters_in_another_unicode_form_are_the_same_alias(known: KnownNodes) -> None:
    known.add(_node("cafe\u0301"))
    assert known.find("caf\u00e9").alias == known.find("cafe\u0301").alias == "caf\u00e9"


def test_two_processes_do_not_lose_each_others_changes(known: KnownNodes, tmp_path: Path) -> None:
    known.add(_node("shared"))
    count = 25
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "home"), prefix, str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for prefix in ("a", "b")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    while any(writer.poll() is None for writer in writers):
        known.all()  # a reader never sees half a file
    for writer in writers:
        writer.communicate(timeout=30)
        assert writer.returncode == 0
    expected = {f"{prefix}{number}" for prefix in "ab" for number in range(count)} | {"shared"}
    assert {node.alias for node in known.all()} == expected


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"v": 1}',
        '{"v": 1, "nodes": [1]}',
        '{"v": 1, "nodes": [{"alias": "a"}]}',
        "[" * 100_000,
    ],
)
def test_a_damaged_file_is_named_and_left_alone(known: KnownNodes, tmp_path: Path, content: str) -> None:
    known.add(_node())
    path = tmp_path / "home" / "nodes.json"
    path.write_text(content)
    with pytest.raises(DiskError, match=r"nodes\.json is damaged"):
        known.all()
    with pytest.raises(DiskError):
        known.add(_node("other"))
    assert path.read_text() == content


def test_a_newer_form_and_lax_modes_are_refused(known: KnownNodes, tmp_path: Path) -> None:
    known.add(_node())
    path = tmp_path / "home" / "nodes.json"
    path.write_text('{"v": 2, "nodes": []}')
    with pytest.raises(Conflict, match="newer Towline"):
        known.all()
    path.chmod(0o666)  # whoever writes here chooses whom we trust
    with pytest.raises(LaxPermissions, match="chmod 600"):
        known.all()


@pytest.mark.parametrize("alias", ["a", "a" * 64, "web-1", "web_1", "web.1", "4", "家", "नमस्ते", "_x", ".x"])
def test_good_aliases(alias: str) -> None:
    assert checked_alias(alias) == alias


@pytest.mark.parametrize(
    "alias",
    ["", "a" * 65, "a:b", "a/b", "@a", "a b", "a\n", "-a", "-", ".", "..", "a\x1b", "a\u202eb", "😀", "ㅤ", "a\ufe0f"],
)
def test_bad_aliases(known: KnownNodes, alias: str) -> None:
    with pytest.raises(UsageError, match="is no alias"):
        known.add(_node(alias))
    assert known.all() == []


@pytest.mark.parametrize("address", ["h:1", "127.0.0.1:7440", "[::1]:65535", "[fe80::1%eth0]:1", "unix:/a b/c"])
def test_good_addresses(address: str) -> None:
    assert checked_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "h",
        "h:",
        ":1",
        "h:0",
        "h:65536",
        "h:x",
        "h:١",
        "::1:80",
        "[::1]",
        "[h]:1",
        "unix:a",
        "unix:",
        "h\n:1",
        "a b:1",
    ],
)
def test_bad_addresses(known: KnownNodes, address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        known.add(_node(address=address))


@given(st.text(max_size=30))
def test_any_address_is_taken_or_refused_by_name(text: str) -> None:
    try:
        assert checked_address(text) == text
    except UsageError:  # anything else fails the test
        pass


def test_groups(known: KnownNodes, tmp_path: Path) -> None:
    assert known.groups() == {}
    for alias in ("a", "b", "c"):
        known.add(_node(alias))
    (tmp_path / "home" / "config.toml").write_text('[groups]\nweb = ["a", "b"]\nnone = []\nbroken = ["x"]\n')
    assert known.group("@web") == known.group("web") == ["a", "b"]
    assert known.expand("c, @web ,a") == ["c", "a", "b"]
    assert known.expand("@none") == []
    with pytest.raises(UnknownAlias, match=r"no group '@wbe'.*Did you mean '@web'"):
        known.expand("@wbe")
    with pytest.raises(UnknownAlias, match="'x'"):
        known.expand("@broken")
    with pytest.raises(UsageError, match="empty name"):
        known.expand("a,,b")


@pytest.mark.parametrize(
    "text",
    ["[groups", "groups = 3", '[groups]\nweb = "a"', "[groups]\nweb = [1]", '[groups]\nweb = ["a/b"]', "\xff\xfe"],
)
def test_a_configuration_that_cannot_be_used_is_one_sentence(known: KnownNodes, tmp_path: Path, text: str) -> None:
    (tmp_path / "home").mkdir(mode=0o700)
    (tmp_path / "home" / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError):
        known.groups()


def test_the_home_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TOWLINE_HOME", raising=False)
    assert client_home() == str(tmp_path / ".towline")
    monkeypatch.setenv("TOWLINE_HOME", "")
    assert client_home() == str(tmp_path / ".towline")
    monkeypatch.setenv("TOWLINE_HOME", str(tmp_path / "deep" / "two"))
    assert client_home() == str(tmp_path / "deep" / "two")
    assert default_data_folder() == str(tmp_path / "deep" / "two" / "node")
    assert stat.S_IMODE(os.stat(client_home()).st_mode) == 0o700
    os.chmod(client_home(), 0o755)
    assert client_home()
    assert stat.S_IMODE(os.stat(client_home()).st_mode) == 0o700, "an empty folder of ours is narrowed"
    (tmp_path / "deep" / "two" / "something").write_text("")
    os.chmod(client_home(), 0o755)
    with pytest.raises(LaxPermissions, match="chmod 700"):
        client_home()
