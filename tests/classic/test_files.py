"""`files-json` against plain sockets, both ways: exact bytes, confined names, many requests, sloppy servers."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from towline.base.errors import (
    ClosedEarly,
    Conflict,
    DialectError,
    LimitExceeded,
    NoSpace,
    NotFound,
    Refused,
    TowlineError,
    UsageError,
    VerificationFailed,
)
from towline.classic.files import Files
from towline.classic.files_client import FilesTalker
from towline.classic.part import Part
from towline.services.files.tree import Root

from .kit import DEADLINE, ended, int32, naive_server, received, reset, serving, wire_to

CONTENT = random.Random(5).randbytes(700_001)


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.bin").write_bytes(CONTENT)
    (folder / "empty").write_bytes(b"")
    (folder / "sub" / "中文.txt").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (folder / "link").symlink_to("../secret")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe")
    return folder


_OPENED: list[Root] = []


def files(root: Path, **options: Any) -> Callable[[Any], Files]:
    """A maker for `serving`; the folder is closed with the test."""
    _OPENED.append(Root.open(str(root), portable=False))
    return lambda events: Files(_OPENED[-1], **options)


@pytest.fixture(autouse=True)
def _close_roots() -> Iterator[None]:
    yield
    while _OPENED:
        _OPENED.pop().close()


def download(conn: socket.socket, name: str) -> tuple[dict[str, Any], bytes]:
    """A tutorial's client."""
    conn.send(name.encode("utf-8"))
    header = json.loads(received(conn, struct.unpack("i", received(conn, 4))[0]).decode("utf-8"))
    if not header:
        return {}, b""
    data, size = b"", 0
    while size < header["lenth"]:
        piece = conn.recv(min(1024, header["lenth"] - size))
        assert piece
        data += piece
        size += len(piece)
    return header, data


def upload(conn: socket.socket, name: Any, data: bytes, **changed: Any) -> dict[str, Any]:
    """A tutorial's client, in three sends."""
    header = json.dumps({"filename": name, "lenth": len(data), "md5": md5(data)} | changed).encode("utf-8")
    conn.send(struct.pack("i", len(header)))
    conn.send(header)
    conn.sendall(data)
    return answer(conn)


def answer(conn: socket.socket) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(received(conn, struct.unpack("i", received(conn, 4))[0]))
    return said


def test_downloads_to_the_byte(root: Path) -> None:
    with serving(files(root)) as served, served.connect() as client:
        header, data = download(client, "a.bin")
        assert data == CONTENT
        assert header == {"lenth": len(CONTENT), "md5": md5(CONTENT), "size(MB)": 0.67}
        assert download(client, "sub/中文.txt")[1] == b"inside"
        assert download(client, "empty") == ({"lenth": 0, "md5": md5(b""), "size(MB)": 0.0}, b"")
        assert download(client, "missing") == ({}, b"")
        assert download(client, "a.bin\n")[1] == CONTENT


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "link",
        "up/secret",
        "sub/../../secret",
        "sub",
        ".",
        "..",
        "pipe",
        "sub//x",
        "a\\b",
        "x",
    ],
)
def test_no_name_leaves_the_root(root: Path, name: str) -> None:
    with serving(files(root)) as served, served.connect() as client:
        assert download(client, name) == ({}, b"")
        assert download(client, "sub/中文.txt")[1] == b"inside"


def test_uploads_and_downloads_on_one_connection(root: Path) -> None:
    with serving(files(root)) as served, served.connect() as client:
        for _ in range(2):
            assert download(client, "a.bin")[1] == CONTENT
        assert upload(client, "new", CONTENT) == {"ok": True}
        assert upload(client, "sub/nothing", b"") == {"ok": True}
        assert download(client, "new")[1] == CONTENT
    assert (root / "new").read_bytes() == CONTENT
    assert (root / "sub" / "nothing").read_bytes() == b""


@pytest.mark.parametrize("cuts", [[1], [2], [3], [4], [5], [1, 2, 3, 4], [4, 60], list(range(1, 100))])
def test_an_upload_in_any_pieces(root: Path, cuts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towline.classic.files.SETTLE_SECONDS", DEADLINE)  # we may be held up between the pieces
    header = json.dumps({"filename": "b", "lenth": 5, "md5": md5(b"bytes")}).encode()
    wire = int32(len(header)) + header + b"bytes"
    with serving(files(root)) as served, served.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = 0
        for cut in [*(cut for cut in cuts if cut < len(wire)), len(wire)]:
            client.send(wire[start:cut])
            start = cut
        assert answer(client) == {"ok": True}
    assert (root / "b").read_bytes() == b"bytes"


def test_a_name_of_one_letter(root: Path) -> None:
    (root / "z").write_bytes(b"short")
    with serving(files(root)) as served, served.connect() as client:
        assert download(client, "z")[1] == b"short"
        client.sendall(b"z")
        client.shutdown(socket.SHUT_WR)
        assert answer(client)["lenth"] == 5
        assert received(client, 5) == b"short"


@pytest.mark.parametrize(
    ("name", "changed", "reason"),
    [
        ("a.bin", {}, "exists"),
        ("../evil", {}, "leave its folder"),
        ("/tmp/evil", {}, "absolute"),
        ("up/evil", {}, "symlinks are not followed"),
        ("link", {}, "exists"),
        ("no/such/folder", {}, "nothing with that name"),
        ("ok", {"md5": "0" * 32}, "md5"),
        ("ok", {"md5": None}, "md5"),
        (None, {}, "filename"),
        ("half\ud800", {}, "not text that a file name can hold"),
        ("n" * 300, {}, "longer than 255"),
        ("\x1b[31mred", {}, "control character"),
        (".towline-0123456789.part", {}, "own unfinished files"),
    ],
)
def test_refused_uploads_leave_nothing_and_the_connection_goes_on(
    root: Path, name: Any, changed: dict[str, Any], reason: str
) -> None:
    before = sorted(path.name for path in root.rglob("*"))
    with serving(files(root)) as served, served.connect() as client:
        said = upload(client, name, b"evil" * 20_000, **changed)
        assert said["ok"] is False
        assert reason in said["error"]
        assert download(client, "sub/中文.txt")[1] == b"inside"
    assert sorted(path.name for path in root.rglob("*")) == before
    assert (root / "a.bin").read_bytes() == CONTENT
    assert (root.parent / "secret").read_bytes() == b"outside"


def test_overwrite_replaces_a_link_rather_than_what_it_points_to(root: Path) -> None:
    with serving(files(root, overwrite=True)) as served, served.connect() as client:
        assert upload(client, "a.bin", b"new") == {"ok": True}
        assert upload(client, "link", b"no link any more") == {"ok": True}
    assert (root / "a.bin").read_bytes() == b"new"
    assert not (root / "link").is_symlink()
    assert (root.parent / "secret").read_bytes() == b"outside"


@pytest.mark.parametrize(
    "data",
    [int32(-1), int32(2**30), int32(3) + b"{x}", int32(2) + b"[]", b"n" * 5000],
    ids=lambda data: repr(data[:8]),
)
def test_broken_headers_are_answered_then_closed(root: Path, data: bytes) -> None:
    with serving(files(root)) as served:
        with served.connect() as client:
            client.sendall(data)
            assert answer(client)["ok"] is False
            assert ended(client)
        served.events.wait("refused", client=1)
        with served.connect() as client:
            assert download(client, "sub/中文.txt")[1] == b"inside"


@pytest.mark.parametrize("size", [-1, 2**60, "7", 1.0])
def test_absurd_sizes_are_answered_then_closed(root: Path, size: Any) -> None:
    with serving(files(root)) as served, served.connect() as client:
        header = json.dumps({"filename": "b", "lenth": size, "md5": ""}).encode()
        client.sendall(int32(len(header)) + header)
        said = answer(client)
        assert said["ok"] is False
        assert ended(client)
    assert not (root / "b").exists()


def test_more_than_the_disk_holds_is_refused_before_it_is_taken(root: Path) -> None:
    with serving(files(root)) as served, served.connect() as client:
        header = json.dumps({"filename": "b", "lenth": 2**39, "md5": ""}).encode()
        client.sendall(int32(len(header)) + header + b"start")
        served.events.wait("request", upload="b")
        assert list(root.glob(".*")) == []


def test_an_upload_that_vanishes_leaves_nothing(root: Path) -> None:
    header = json.dumps({"filename": "b", "lenth": 10_000_000, "md5": md5(b"")}).encode()
    with serving(files(root)) as served:
        for leave in (socket.socket.close, reset):
            client = served.connect()
            client.sendall(int32(len(header)) + header + b"x" * 500_000)
            served.events.wait("request", upload="b")
            leave(client)
        served.events.wait("left", client=1)
        served.events.wait("left", client=2)
    assert not (root / "b").exists()
    assert list(root.glob(".*")) == []


def test_a_file_that_changes_on_its_way_is_never_whole(root: Path) -> None:
    big = root / "big"
    big.write_bytes(b"1" * 30_000_000)
    with serving(files(root)) as served, served.connect() as client:
        client.send(b"big")
        header = answer(client)
        with big.open("r+b") as file:
            file.write(b"2")
        taken = 0
        while data := client.recv(1 << 20):
            taken += len(data)
        assert taken < header["lenth"]
        served.events.wait("refused", name="source-changed")


def test_gbk_names(root: Path) -> None:
    with serving(files(root, encoding="gbk")) as served, served.connect() as client:
        client.send("sub/中文.txt".encode("gbk"))
        assert answer(client)["lenth"] == 6


def test_big_endian_files(root: Path) -> None:
    with serving(files(root, endian="big")) as served, served.wire() as wire:
        talker = FilesTalker(wire, endian="big")
        assert talker.fetch("a.bin", str(root / "copy")).md5 == md5(CONTENT)
        assert talker.put(str(root / "copy"), "again").size == len(CONTENT)


# --- our client, their server ---


def naive_files(share: dict[str, bytes], **changed: Any) -> Callable[[socket.socket], None]:
    """A tutorial's download server, with whatever is wrong in its headers."""

    def server(conn: socket.socket) -> None:
        while name := conn.recv(1024).decode("utf-8"):
            data = share.get(name)
            header = {}
            if data is not None:
                header = {
                    "lenth": len(data),
                    "md5": md5(data),
                    "size(MB)": round(len(data) / 1024 / 1024, 2),
                } | changed
            raw = json.dumps(header).encode()
            conn.send(struct.pack("i", len(raw)))
            conn.send(raw)
            conn.sendall(data or b"")
            if changed:
                break

    return server


def test_our_client_downloads_from_the_tutorials_server(tmp_path: Path) -> None:
    with naive_server(naive_files({"a": CONTENT, "b": b""})) as address, wire_to(address) as wire:
        progress: list[tuple[int, int]] = []
        talker = FilesTalker(wire, on_progress=lambda done, total: progress.append((done, total)))
        assert talker.fetch("a", str(tmp_path / "one")).size == len(CONTENT)
        assert talker.fetch("b", str(tmp_path / "two")).size == 0
        with pytest.raises(NotFound):
            talker.fetch("c", str(tmp_path / "three"))
        assert talker.in_step
        (tmp_path / "into").mkdir()
        assert talker.fetch("a", str(tmp_path / "into")).name == str(tmp_path / "into" / "a")
    assert (tmp_path / "into" / "a").read_bytes() == CONTENT
    assert (tmp_path / "one").read_bytes() == CONTENT
    assert sorted(os.listdir(tmp_path)) == ["into", "one", "two"]
    assert (len(CONTENT), len(CONTENT)) in progress


@pytest.mark.parametrize(
    ("changed", "kind", "exit_status"),
    [
        ({"md5": "0" * 32}, VerificationFailed, 7),
        ({"lenth": 700_002}, ClosedEarly, 11),
        ({"lenth": -1}, DialectError, 9),
        ({"lenth": 2**60}, LimitExceeded, 10),
        ({"lenth": 2**39}, NoSpace, 8),
        ({"lenth": None}, DialectError, 9),
        ({"md5": 5}, DialectError, 9),
    ],
)
def test_nothing_is_left_after_a_sloppy_server(
    tmp_path: Path, changed: dict[str, Any], kind: type[TowlineError], exit_status: int
) -> None:
    with (
        naive_server_that_may_break(naive_files({"a": CONTENT}, **changed)) as address,
        wire_to(address) as wire,
        pytest.raises(kind) as raised,
    ):
        FilesTalker(wire).fetch("a", str(tmp_path / "a"))
    assert raised.value.exit_status == exit_status
    assert os.listdir(tmp_path) == []


def naive_server_that_may_break(handle: Callable[[socket.socket], None]) -> Any:
    """We leave in the middle of its payload; its traceback is not ours."""

    def shielded(conn: socket.socket) -> None:
        try:
            handle(conn)
        except OSError:
            return

    return naive_server(shielded)


def test_bytes_that_belong_to_nothing_end_the_conversation(tmp_path: Path) -> None:
    def chatty(conn: socket.socket) -> None:
        conn.recv(1024)
        conn.sendall(int32(2) + b"{}stray")
        conn.recv(1)

    with naive_server(chatty) as address, wire_to(address) as wire:
        talker = FilesTalker(wire)
        with pytest.raises(NotFound):
            talker.fetch("a", str(tmp_path / "a"))
        with pytest.raises(DialectError, match="no request"):
            talker.fetch("a", str(tmp_path / "a"))
        assert not talker.in_step


def test_our_client_keeps_what_exists(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    with naive_server(naive_files({"a": b"theirs"})) as address, wire_to(address) as wire:
        with pytest.raises(Conflict):
            FilesTalker(wire).fetch("a", str(tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == b"mine"
        FilesTalker(wire, overwrite=True).fetch("a", str(tmp_path / "a"))
        assert (tmp_path / "a").read_bytes() == b"theirs"


def naive_upload_server(folder: Path, reply: dict[str, Any]) -> Callable[[socket.socket], None]:
    def server(conn: socket.socket) -> None:
        header = json.loads(received(conn, struct.unpack("i", received(conn, 4))[0]))
        data = received(conn, header["lenth"])
        assert md5(data) == header["md5"]
        (folder / header["filename"]).write_bytes(data)
        raw = json.dumps(reply).encode()
        conn.send(struct.pack("i", len(raw)))
        conn.send(raw)

    return server


def test_our_client_uploads_to_the_tutorials_server(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    with naive_server(naive_upload_server(theirs, {"ok": True})) as address, wire_to(address) as wire:
        assert FilesTalker(wire).put(str(tmp_path / "a")).md5 == md5(CONTENT)
    assert (theirs / "a").read_bytes() == CONTENT
    refusing = naive_upload_server(theirs, {"ok": False, "error": "full \x1b[31m"})
    with naive_server(refusing) as address, wire_to(address) as wire, pytest.raises(Refused) as raised:
        FilesTalker(wire).put(str(tmp_path / "a"))
    assert raised.value.sentence == "The server refused a: full \\x1b[31m"


def test_our_client_stops_when_the_server_refuses_early(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50_000_000)

    def early(conn: socket.socket) -> None:
        received(conn, 100)
        raw = b'{"ok": false, "error": "enough"}'
        conn.sendall(int32(len(raw)) + raw)
        conn.shutdown(socket.SHUT_WR)
        while conn.recv(1 << 20):
            pass

    with (
        naive_server_that_may_break(early) as address,
        wire_to(address) as wire,
        pytest.raises(Refused, match="enough"),
    ):
        FilesTalker(wire).put(str(tmp_path / "a"))


def test_our_client_says_that_an_upload_was_cut(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50_000_000)
    with naive_server(lambda conn: None) as address, wire_to(address) as wire, pytest.raises(ClosedEarly):
        FilesTalker(wire).put(str(tmp_path / "a"))


def test_our_client_names_what_it_cannot_send(tmp_path: Path) -> None:
    with naive_server(lambda conn: None) as address, wire_to(address) as wire:
        talker = FilesTalker(wire)
        with pytest.raises(NotFound):
            talker.put(str(tmp_path / "nothing"))
        with pytest.raises(Conflict):
            talker.put(str(tmp_path))
        with pytest.raises(UsageError):
            talker.fetch("", str(tmp_path / "x"))


def crowd(address: Any, clients: int, name: str, digest: str) -> list[bool]:
    """That many plain clients at once, each checking what it got."""
    import threading

    exact: list[bool] = []
    together = threading.Barrier(clients, timeout=240)

    def one() -> None:
        family, where = address.resolved()
        with socket.socket(family) as conn:
            conn.settimeout(240)
            conn.connect(where)
            together.wait()
            conn.send(name.encode())
            header = answer(conn)
            ours, left = hashlib.md5(), header["lenth"]
            while left and (data := conn.recv(min(1 << 18, left))):
                ours.update(data)
                left -= len(data)
            exact.append(left == 0 and ours.hexdigest() == header["md5"] == digest)

    threads = [threading.Thread(target=one, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return exact


@pytest.mark.parametrize(
    ("clients", "size"),
    [(20, 1 << 20), pytest.param(100, 10 << 20, marks=[pytest.mark.soak, pytest.mark.timeout(300)])],
)
def test_a_crowd_downloads_at_once_and_all_is_exact(root: Path, clients: int, size: int) -> None:
    data = random.Random(size).randbytes(size)
    (root / "crowd").write_bytes(data)
    with serving(files(root)) as served:
        assert crowd(served.address, clients, "crowd", md5(data)) == [True] * clients


def test_the_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Root.open(str(tmp_path / "none"))


def test_a_name_taken_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with Root.open(str(tmp_path)) as root:
        part = Part(root, "a", replace=False)
        part.write(b"ours")
        (tmp_path / "a").write_bytes(b"theirs")
        with pytest.raises(Conflict):
            part.publish()
        part.discard()
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_put_in_the_way_after_the_check_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    with Root.open(str(tmp_path / "root")) as root:
        part = Part(root, "a", replace=False)
        part.write(b"ours")
        (tmp_path / "root" / "a").symlink_to("../outside")
        with pytest.raises(Conflict):
            part.publish()
        part.discard()
    assert not (tmp_path / "outside").exists()
