"""Letting people in and shutting them out, by hand, as real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from tests import kit
from tests.kit import NodeProcess, events, tow

from towline.store import Store

node = kit.node
address = kit.address


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of a node that is not running."""
    with kit.running_node(tmp_path_factory.mktemp("stopped")) as node:
        return node.data


def test_the_first_line_of_serve(node: NodeProcess) -> None:
    assert list(node.listening) == ["v", "event", "address", "unix", "fingerprint"]
    assert node.listening["v"] == 1
    assert node.listening["event"] == "listening"
    host, port = node.address.rsplit(":", 1)
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert node.listening["unix"] == str(node.data / "run" / "tow.sock")
    assert len(node.fingerprint) == 64
    node.signal()
    assert node.wait() == 0
    assert events(node.read_rest()) == [{"v": 1, "event": "stopped"}], "nothing but JSON on standard output"


def test_a_list_of_nothing_says_so_beside_the_result(tmp_path: Path) -> None:
    home, share = tmp_path / "client", tmp_path / "share"
    share.mkdir()
    with kit.running_node(tmp_path, "--share", f"files={share}") as node:
        node.join(home, "ann", "home", "--can", "read,chat,run")
        for words, sentence in (
            (("who", "home"), "Nobody is here.\n"),
            (("who", "home", "lobby"), "Nobody is here.\n"),
            (("jobs", "home"), "There are no jobs.\n"),
            (("jobs", "home", "--running"), "There are no running jobs.\n"),
            (("ls", "home:files"), "The folder is empty.\n"),
        ):
            said = tow(*words, home=home)
            assert (said.stdout, said.stderr) == ("", sentence), words
        assert (said := tow("who", "home", "--json", home=home)).stdout + said.stderr == ""


def test_invite_join_ping(node: NodeProcess, tmp_path: Path) -> None:
    home = tmp_path / "client"
    invited = node.tow("invite", "laptop")
    code = invited.stdout.strip()
    assert invited.stdout == f"{code}\n", "only the code on standard output"
    assert code.startswith("tow1-")
    assert code not in invited.stderr
    said = tow("join", "-", "--as", "home", home=home, stdin=code)
    assert node.address in said.stdout
    assert node.fingerprint in said.stdout
    assert code not in said.stdout + said.stderr
    assert "home (" in tow("ping", "home", "--count", "2", home=home).stdout
    pongs = events(tow("ping", "home", "--count", "3", "--json", home=home).stdout)
    assert [each["event"] for each in pongs] == ["pong"] * 3
    assert all(0 < each["seconds"] < 5 for each in pongs)
    known = events(tow("nodes", "--json", home=home).stdout)
    assert [(each["alias"], each["address"], each["fingerprint"]) for each in known] == [
        ("home", node.address, node.fingerprint)
    ]
    for path in (home, home / "identity.key", home / "nodes.json"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    assert code.encode() not in (node.data / "towline.db").read_bytes()


def test_the_default_alias_is_the_nodes_name(tmp_path: Path) -> None:
    with kit.running_node(tmp_path, "--name", "castle") as node:
        tow("join", node.invite("ann"), home=tmp_path / "c")
        tow("ping", "castle", home=tmp_path / "c")
    with kit.running_node(tmp_path) as again:
        said = events(tow("join", again.invite("bob"), "--json", home=tmp_path / "d").stdout)
        assert said[0]["alias"] == said[0]["name"] == "castle", "it keeps its name"


@pytest.mark.parametrize("running", [True, False])
def test_people_invites_and_revocation(node: NodeProcess, tmp_path: Path, running: bool) -> None:
    """The same on a running node, through its Unix socket, and on a stopped one."""
    node.join(tmp_path / "ann", "ann")
    if not running:
        node.signal()
        assert node.wait() == 0

    def people() -> dict[str, str]:
        return {each["name"]: each["state"] for each in events(node.tow("people", "--json").stdout)}

    node.tow("invite", "bob", "--can", "read=docs,chat", "--for", "2h")
    assert people() == {"ann": "joined", "bob": "invited"}
    listing = node.tow("people").stdout
    assert "chat,read=docs" in listing
    assert "invite ends in" in listing
    node.tow("revoke", "ann")
    node.tow("revoke", "bob")
    assert people() == {"ann": "revoked"}
    assert "Nobody with the name 'carl'" in node.tow("revoke", "carl", expect=4).stderr
    rows = [(each["action"], each["subject"]) for each in events(node.tow("audit", "--json").stdout)]
    assert rows[-2:] == [("revoke", "ann"), ("revoke", "bob")]
    assert ("join", rows[1][1]) in rows
    assert "revoke  ann" in node.tow("audit", "--limit", "2").stdout
    if running:
        assert "revoked" in tow("ping", "home", home=tmp_path / "ann", expect=3).stderr


def test_an_invite_made_on_a_stopped_node_is_good_later(tmp_path: Path, address: str) -> None:
    with kit.running_node(tmp_path, listen=address) as node:
        pass
    code = node.invite("ann")
    with kit.running_node(tmp_path, listen=address):
        tow("join", "-", "--as", "home", home=tmp_path / "c", stdin=code)
        tow("ping", "home", home=tmp_path / "c")


def test_bad_codes(node: NodeProcess, tmp_path: Path) -> None:
    home, other = tmp_path / "c", tmp_path / "d"
    used = node.invite("ann")
    tow("join", used, "--as", "home", home=home)
    assert "used already" in tow("join", used, home=other, expect=3).stderr
    cancelled = node.invite("bob")
    node.tow("revoke", "bob")
    assert "cancelled" in tow("join", cancelled, home=other, expect=3).stderr
    expired = node.invite("carl", "--for", "1ms")
    assert "expired" in tow("join", expired, home=other, expect=3).stderr
    fresh = node.invite("dora")
    mistyped = fresh[:20] + fresh[21] + fresh[20] + fresh[22:] if fresh[20] != fresh[21] else fresh[:-1]
    for bad in (mistyped, fresh[:-3], "tow1-", "hello", "\x1b[31m"):
        said = tow("join", "-", home=other, stdin=bad, expect=3).stderr
        assert "mistyped" in said
        assert "\x1b" not in said
    assert "No code was given" in tow("join", "-", home=other, expect=2).stderr
    assert events(tow("nodes", "--json", home=other).stdout) == []
    tow("join", f"  {fresh.upper()[:30]}\n {fresh[30:]} ", "--as", "x", home=other)
    assert "stands for another node" not in tow("join", node.invite("dora"), "--as", "x", home=other).stderr


def test_an_alias_that_stands_for_another_node_is_kept_and_the_invite_not_used_up(tmp_path: Path) -> None:
    (tmp_path / "n").mkdir()
    (tmp_path / "m").mkdir()
    with kit.running_node(tmp_path / "n") as one, kit.running_node(tmp_path / "m") as two:
        home = tmp_path / "c"
        one.join(home)
        code = two.invite("ann")
        said = tow("join", code, "--as", "home", home=home, expect=5).stderr
        assert one.fingerprint in said
        assert two.fingerprint in said
        tow("join", code, "--as", "other", home=home)


def test_a_node_with_another_key_is_refused_with_both_fingerprints(tmp_path: Path, address: str) -> None:
    home = tmp_path / "c"
    with kit.running_node(tmp_path, listen=address) as node:
        node.join(home)
        before = node.fingerprint
    shutil.rmtree(node.data / "keys")
    with kit.running_node(tmp_path, listen=address) as changed:
        assert changed.fingerprint != before
        said = tow(
            "ping", "home", "--give-up", "1h", home=home, expect=3
        ).stderr  # what cannot be mended is told at once
        assert before in said
        assert changed.fingerprint in said
        failure = events(tow("ping", "home", "--json", home=home, expect=3).stdout)[-1]
        assert (failure["event"], failure["name"], failure["retryable"]) == ("error", "wrong-pin", False)


def test_aliases_and_addresses(node: NodeProcess, tmp_path: Path) -> None:
    home = tmp_path / "c"
    said = tow("ping", "home", home=home, expect=4).stderr
    assert said.startswith("tow ping: No node with the alias 'home'")
    assert said.count("\n") == 1
    node.join(home)
    assert "Did you mean 'home'" in tow("ping", "hoem", home=home, expect=4).stderr
    with kit.dead_port() as port:
        tow("nodes", "set", "home", "--address", f"127.0.0.1:{port}", home=home)
        assert "nothing listens there" in tow("ping", "home", home=home, expect=6).stderr
        tow("ping", "home", "--give-up", "100ms", home=home, expect=6)
    tow("nodes", "set", "home", "--address", node.address, home=home)
    tow("ping", "home", home=home)
    tow("nodes", "set", "home", "--address", "nonsense", home=home, expect=2)
    tow("nodes", "forget", "home", home=home)
    tow("nodes", "forget", "home", home=home, expect=4)
    tow("ping", "home", home=home, expect=4)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ping",),
        ("ping", "home", "--count", "0"),
        ("ping", "home", "--give-up", "soon"),
        ("invite", "a b"),
        ("invite", "ann", "--can", "fly"),
        ("invite", "ann", "--for", "x"),
        ("invite", "owner"),
        ("invite", "ann", "--address", "nowhere"),
        ("serve", "--listen", "nowhere"),
        ("serve", "--listen", "127.0.0.1:99999"),
        ("serve", "--share", "nonsense"),
        ("serve", "--name", "a/b"),
        ("serve", "--drain", "-1"),
        ("audit", "--limit", "-1"),
        ("nonsense",),
        ("nodes", "set", "home"),
    ],
)
def test_usage_errors_are_one_sentence_and_status_2(
    stopped: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    data = {"invite": stopped, "audit": stopped, "serve": tmp_path / "other"}.get(arguments[0])
    rest = ("--data", str(data)) if data is not None else ()
    assert tow(*arguments, *rest, home=tmp_path / "c", expect=2).stderr


def test_a_share_that_is_not_there(tmp_path: Path) -> None:
    said = tow("serve", "--data", str(tmp_path / "d"), "--share", f"x={tmp_path}/none", home=tmp_path / "c", expect=4)
    assert "does not exist" in said.stderr
    twice = [word for folder in ("one", "two") for word in ("--share", f"x={_made(tmp_path / folder)}")]
    said = tow("serve", "--data", str(tmp_path / "d"), *twice, home=tmp_path / "c", expect=2)
    assert "given twice" in said.stderr


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_no_node_there(tmp_path: Path) -> None:
    for data in (tmp_path / "none", tmp_path):
        said = tow("invite", "ann", "--data", str(data), home=tmp_path / "c", expect=4).stderr
        assert "There is no node in" in said
    assert sorted(os.listdir(tmp_path)) == [], "nothing was made by asking"


# --- permissions ---


def test_lax_homes_and_keys_are_refused_with_the_command_that_mends_them(node: NodeProcess, tmp_path: Path) -> None:
    home = tmp_path / "c"
    node.join(home)
    for path, mode in ((home, 0o755), (home / "identity.key", 0o644), (home / "nodes.json", 0o666)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        said = tow("ping", "home", home=home, expect=3).stderr
        assert f"chmod {before:o} {path}" in said
        path.chmod(before)
    tow("ping", "home", home=home)


def test_a_nodes_lax_keys_are_refused(tmp_path: Path) -> None:
    with kit.running_node(tmp_path) as node:
        pass
    for path, mode in ((node.data / "keys", 0o750), (node.data / "keys" / "node.key", 0o640)):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode)
        said = tow("serve", "--data", str(node.data), "--listen", "127.0.0.1:0", home=tmp_path / "h", expect=3).stderr
        assert f"chmod {before:o} {path}" in said
        assert "chmod" in node.tow("invite", "ann", expect=3).stderr
        path.chmod(before)
    with kit.running_node(tmp_path):
        pass


def test_ready_made_folders(tmp_path: Path) -> None:
    """An empty home of ours is narrowed; a data folder may be open, because what is secret in it is not."""
    home, data = tmp_path / "node-home", tmp_path / "data"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    with kit.running_node(tmp_path) as node:
        node.join(home)
        tow("ping", "home", home=home)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(data.stat().st_mode) == 0o755
        tow("say", "home", "lobby", "hello", home=home)
        for path in (data / "keys", data / "run", data / "towline.db", data / "keys" / "node.key", data / "rooms"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_data_folder_that_others_can_write_into_is_refused(tmp_path: Path, mode: int) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    words = ("serve", "--data", str(data), "--listen", "127.0.0.1:0")
    assert f"chmod go-w {data}" in tow(*words, home=tmp_path / "h", expect=3).stderr
    assert not os.listdir(data)


def test_a_long_audit_log_is_shown_whole(node: NodeProcess, tmp_path: Path) -> None:
    with Store.open(str(node.data)) as store, store.database.transaction():
        for index in range(1500):
            store.audit.note(float(index), "ann", "run", str(index), "x" * 1000)
    node.join(tmp_path / "c", "ann", "home", "--can", "admin")
    for words, home in ((("--data", str(node.data)), node.home), (("home",), tmp_path / "c")):
        said = kit.events(tow("audit", *words, "--limit", "1600", "--json", home=home).stdout)
        assert [each["subject"] for each in said if each["action"] == "run"] == [str(index) for index in range(1500)]


# --- one node, and its end ---


def test_one_node_for_a_folder_and_one_for_an_address(node: NodeProcess, tmp_path: Path) -> None:
    said = tow("serve", "--data", str(node.data), "--listen", "127.0.0.1:0", home=tmp_path / "h", expect=5).stderr
    assert f"(process {node.process.pid})" in said
    said = tow(
        "serve", "--data", str(tmp_path / "other"), "--listen", node.address, home=tmp_path / "h", expect=5
    ).stderr
    assert f"Cannot listen on {node.address}" in said
    node.join(tmp_path / "c")
    tow("ping", "home", home=tmp_path / "c")


def test_without_json_it_speaks_to_people(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*kit.TOW, "serve", "--data", str(tmp_path / "d"), "--listen", "none", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=kit.environment(tmp_path / "h"),
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert "listens on no network address and" in lines[0]
    assert "tow invite NAME" in lines[2]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=kit.DEADLINE)
    assert process.returncode == 0
    assert err == ""


def test_a_killed_node_starts_again(tmp_path: Path, address: str) -> None:
    node = NodeProcess(tmp_path, listen=address)
    try:
        node.join(tmp_path / "c")
        node.signal(signal.SIGKILL)
        node.wait()
    finally:
        node.end()
    with kit.running_node(tmp_path, listen=address):
        tow("ping", "home", home=tmp_path / "c")


def test_interrupting_a_client(node: NodeProcess, tmp_path: Path) -> None:
    node.join(tmp_path / "c")
    node.signal(signal.SIGSTOP)
    try:
        client = subprocess.Popen(
            [*kit.TOW, "ping", "home", "--give-up", "1m", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kit.environment(tmp_path / "c"),
        )
        wait_for_connection(node.address)
        client.send_signal(signal.SIGINT)
        out, err = client.communicate(timeout=kit.DEADLINE)
    finally:
        node.signal(signal.SIGCONT)
    assert client.returncode == 130
    assert json.loads(out.splitlines()[-1])["name"] == "interrupted"
    assert not kit.complaints(err)


def wait_for_connection(address: str) -> None:
    """Until somebody is connected to `address` (proc_net_tcp(5))."""
    port = f":{int(address.rsplit(':', 1)[1]):04X}"
    deadline = time.monotonic() + kit.DEADLINE
    while time.monotonic() < deadline:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, _, remote, state = line.split()[:4]
            if remote.endswith(port) and state == "01":
                return
    raise AssertionError("nobody came")
