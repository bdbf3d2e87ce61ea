"""`tow classic` as a process: the events, the exit statuses, signals, pipes, and every dialect once end to end."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pty
import resource
import select
import signal
import socket
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from tests.kit import dead_port

from towline.base.errors import ClosedEarly
from towline.base.limits import Limit
from towline.classic import limits
from towline.classic.dialects import DIALECTS
from towline.cli.main import main

from .kit import DEADLINE, TOW, ended, int32, naive_server, received, tow, tow_serve


def events(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_alone_it_lists_the_dialects_with_their_wires() -> None:
    plain = tow()
    assert plain.returncode == 0
    for name, row in DIALECTS.items():
        assert f"{name} " in plain.stdout.decode()
        assert all(line in plain.stdout.decode() for line in row.wire.splitlines())
    assert all(len(line) <= 80 for line in plain.stdout.decode().splitlines()), "a terminal's 80 columns"
    listed = events(tow("--json").stdout)
    assert [one["name"] for one in listed] == list(DIALECTS)
    assert all(one["v"] == 1 and one["event"] == "dialect" and one["wire"] for one in listed)


def test_localhost_is_the_tutorials_localhost() -> None:
    with tow_serve("upper", "--tcp", "localhost:0") as server:
        assert server.address.startswith("127.0.0.1:")
        assert tow("talk", "upper", server.address.replace("127.0.0.1", "localhost"), stdin=b"x\n").stdout == b"X\n"


@pytest.mark.parametrize("ends_with", [signal.SIGINT, signal.SIGTERM])
def test_the_first_line_is_the_address_and_a_signal_ends_it(ends_with: signal.Signals) -> None:
    with tow_serve("upper", "--tcp", "127.0.0.1:0", ends_with=ends_with) as server:
        port = server.address.rpartition(":")[2]
        assert server.first == {"v": 1, "event": "listening", "address": f"127.0.0.1:{port}"}
        assert "NO ENCRYPTION" in server.event()["message"]
        with server.connect() as client:
            assert server.event()["event"] == "joined"
            client.send(b"hello")
            assert client.recv(100) == b"HELLO"
            assert server.event() == {"v": 1, "event": "request", "client": 1, "bytes": 5, "text": "hello"}


def test_it_says_loudly_that_nothing_is_encrypted() -> None:
    process = subprocess.Popen(
        [*TOW, "serve", "upper", "--tcp", ":0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"listening on 127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0
    assert out == b"stopped\n"
    assert b"NO ENCRYPTION" in errors


def test_a_server_comes_back_at_once_to_the_same_port() -> None:
    with tow_serve("upper", "--tcp", ":0") as server:
        address = server.address
        client = server.connect()
        server.wait_for("joined")
    client.close()  # the server closed first: its side waits in TIME_WAIT
    with tow_serve("upper", "--tcp", address) as server:
        assert server.address == address
        taken = tow("serve", "upper", "--tcp", address)
        assert taken.returncode == 5
        assert b"in use" in taken.stderr


def test_ipv6_and_unix_and_a_stale_socket_file(tmp_path: Path) -> None:
    if socket.has_ipv6:
        with tow_serve("upper", "--tcp", "[::1]:0") as server:
            assert server.address.startswith("[::1]:")
            assert tow("talk", "upper", server.address, stdin=b"six\n").stdout == b"SIX\n"
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with tow_serve("int32", "--unix", path) as server:
        assert server.first == {"v": 1, "event": "listening", "address": path}
        assert os.stat(path).st_mode & 0o077 == 0
        assert tow("talk", "int32", path, "--unix", stdin=b"a\n\nb\n").stdout == b"A\n\nB\n"
        assert tow("serve", "int32", "--unix", path).returncode == 5
    assert not os.path.exists(path)
    Path(path).write_bytes(b"precious")
    assert tow("serve", "int32", "--unix", path).returncode == 5
    assert Path(path).read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("arguments", "answers"),
    [
        (["upper"], "HELLO\n你好\n"),
        (["reply"], "我已收到您的请求[hello],感谢您的关注!\n我已收到您的请求[你好],感谢您的关注!\n"),
        (["reply", "--template", "gun"], "gun\ngun\n"),
        (["int32"], "HELLO\n你好\n"),
        (["int32", "--endian", "big"], "HELLO\n你好\n"),
        (["ask", "--ack", "yes?"], "HELLO\n你好\n"),
    ],
)
def test_served_and_talked(arguments: list[str], answers: str) -> None:
    options = [one for one in arguments[1:] if arguments[0] != "reply"]
    with tow_serve(*arguments, "--tcp", ":0") as server:
        said = tow("talk", arguments[0], server.address, *options, stdin="hello\n你好".encode())
        assert said.returncode == 0, said.stderr
        assert said.stdout.decode() == answers


@pytest.mark.parametrize("dialect", ["shell", "shell-int32", "shell-json"])
def test_shells_served_and_talked(dialect: str) -> None:
    with tow_serve(dialect, "--tcp", ":0", "--allow-run", "--allow", "echo,uname", "--timeout", "5s") as server:
        said = tow("talk", dialect, server.address, stdin=b"echo a b\nrm -r x\n")
        assert said.returncode == 0
        assert said.stdout.startswith(b"a b\n[refused: 'rm' is not allowed here")
        server.wait_for("refused")


def test_gbk_is_shown_as_text() -> None:
    with tow_serve("shell-int32", "--tcp", ":0", "--allow-run", "--encoding", "gbk") as server:
        said = tow(
            "talk", "shell-int32", server.address, "--encoding", "gbk", stdin="printf '\\326\\320 中'\n".encode()
        )
        assert said.stdout.decode().startswith("中 ")


def test_udp_served_and_talked() -> None:
    with tow_serve("upper", "--udp", ":0") as server:
        said = tow("talk", "upper", server.address, "--udp", "--json", stdin=b"a\n\nb\n")
        assert said.returncode == 0
        answers = [one["text"] for one in events(said.stdout) if one["event"] == "answer"]
        assert answers == ["A", "", "B"]


def test_an_acknowledgement_is_the_bytes_that_were_typed() -> None:
    typed = os.fsdecode(b"\xba\xc3")  # a word in GBK
    with tow_serve("ask", "--tcp", ":0", "--ack", typed) as server:
        with server.connect() as client:
            client.sendall(b"5")
            assert client.recv(100) == b"\xba\xc3"
        assert tow("talk", "ask", server.address, "--ack", typed, stdin=b"hello\n").stdout == b"HELLO\n"


def test_a_sink_prints_or_keeps(tmp_path: Path) -> None:
    with tow_serve("int32", "--tcp", ":0", "--sink") as server:
        assert tow("talk", "int32", server.address, "--no-answer", stdin=b"one\ntwo\n").returncode == 0
        assert [server.wait_for("message")["text"] for _ in range(2)] == ["one", "two"]
    kept = tmp_path / "kept"
    with tow_serve("ask", "--tcp", ":0", "--sink", str(kept)) as server:
        assert tow("talk", "ask", server.address, "--no-answer", stdin=b"one\ntwo\n").returncode == 0
        server.wait_for("left")
    assert kept.read_bytes() == b"one\ntwo\n"


def test_chat_served_to_the_tutorials_client_and_to_our_talk() -> None:
    with tow_serve("chat", "--tcp", ":0") as server:
        with server.connect() as client:
            client.send(b"hello")
            assert server.wait_for("message")["text"] == "hello"
            server.operator("hello back")
            assert client.recv(1024) == b"hello back"
            server.operator("q")
            assert received(client, 1) == b"q"
            assert ended(client)
        said = tow("talk", "chat", server.address, "--timeout", "50ms", stdin="还在吗\nq\n".encode())
        assert said.returncode == 0
        assert server.wait_for("message")["text"] == "还在吗"


def test_files_served_and_talked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    data = os.urandom(300_000)
    (root / "a").write_bytes(data)
    (tmp_path / "up").write_bytes(data[:1000])
    with tow_serve("files-json", "--tcp", ":0", "--root", str(root)) as server:
        target = tmp_path / "copy"
        got = tow("talk", "files-json", server.address, "--get", "a", "-o", str(target), "--json")
        assert got.returncode == 0
        event = events(got.stdout)[-1]
        assert event["event"] == "file"
        assert event["md5"] == hashlib.md5(data).hexdigest()
        assert target.read_bytes() == data
        assert tow("talk", "files-json", server.address, "--get", "none").returncode == 4
        assert tow("talk", "files-json", server.address, "--get", "a", "-o", str(target)).returncode == 5
        assert tow("talk", "files-json", server.address, "--put", str(tmp_path / "up")).returncode == 0
        assert tow("talk", "files-json", server.address, "--put", str(tmp_path / "up")).returncode == 3
        lines = f"get a {tmp_path}/two\nwhat\nput {tmp_path}/up up2\nget a {tmp_path}/three\n"
        mixed = tow("talk", "files-json", server.address, stdin=lines.encode())
        assert mixed.returncode == 2
        assert mixed.stdout.count(b"md5") == 3
    assert (root / "up").read_bytes() == (root / "up2").read_bytes() == data[:1000]
    assert (tmp_path / "three").read_bytes() == data


def test_a_name_that_no_file_can_have_is_a_sentence_and_the_next_is_served(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with tow_serve("files-json", "--root", str(tmp_path), "--tcp", ":0") as server:
        lines = f"get a\0b\nput x\0y\nget a {tmp_path}/got\n".encode()
        talked = tow("talk", "files-json", server.address, stdin=lines)
    assert talked.stderr.count(b"NUL") == talked.stderr.count(b"\n") == 2
    assert (tmp_path / "got").read_bytes() == b"abc"


def test_a_wrong_md5_is_status_7_and_leaves_nothing(tmp_path: Path) -> None:
    def liar(conn: socket.socket) -> None:
        conn.recv(1024)
        header = json.dumps({"lenth": 3, "md5": "0" * 32, "size(MB)": 0.0}).encode()
        conn.sendall(struct.pack("i", len(header)) + header + b"abc")

    with naive_server(liar) as address:
        got = tow("talk", "files-json", str(address), "--get", "a", "-o", str(tmp_path / "a"))
    assert got.returncode == 7
    assert b"md5" in got.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("answer", "status"), [(b"", 11), (int32(10) + b"x", 11), (int32(-7), 9), (b"HTTP", 10)])
def test_a_sloppy_server_gets_a_sentence_and_a_status(answer: bytes, status: int) -> None:
    def sloppy(conn: socket.socket) -> None:
        received(conn, 7)
        conn.sendall(answer)

    with naive_server(sloppy) as address:
        said = tow("talk", "int32", str(address), "--json", stdin=b"abc\n")
    assert said.returncode == status
    assert said.stderr == b""
    assert events(said.stdout)[-1]["event"] == "error"
    assert ClosedEarly.exit_status == 11


def test_nobody_there_is_status_6_after_each_retry_was_said() -> None:
    with dead_port() as port:
        once = tow("talk", "upper", f"127.0.0.1:{port}")
        tried = tow("talk", "upper", f"127.0.0.1:{port}", "--retry", "1", "--json")
    assert once.returncode == 6
    assert b"cannot be reached" in once.stderr
    assert tried.returncode == 6
    assert [one["event"] for one in events(tried.stdout)] == ["retry", "error"]


def test_the_secret_is_checked_both_ways(tmp_path: Path) -> None:
    secret, other = tmp_path / "secret", tmp_path / "other"
    for path, text in ((secret, b"one"), (other, b"two")):
        path.write_bytes(text)
        path.chmod(0o600)
    with tow_serve("upper", "--tcp", ":0", "--secret-file", str(secret), "--hmac", "md5") as server:
        right = tow("talk", "upper", server.address, "--secret-file", str(secret), "--hmac", "md5", stdin=b"in\n")
        assert right.stdout == b"IN\n"
        wrong = tow("talk", "upper", server.address, "--secret-file", str(other), "--hmac", "md5", stdin=b"in\n")
        assert wrong.returncode == 3
        assert b"legitimacy" in wrong.stderr
        assert server.wait_for("refused")["name"] == "not-legitimate"
    secret.chmod(0o644)
    with tow_serve("upper", "--tcp", ":0", "--secret-file", str(secret)) as server:
        server.wait_for("warning")
        assert "chmod 600" in server.wait_for("warning")["message"]
        lax = tow("talk", "upper", server.address, "--secret-file", str(secret), stdin=b"in\n")
        assert lax.stdout == b"IN\n"
        assert b"chmod 600" in lax.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "upper"],
        ["serve", "upper", "--tcp", ":0", "--udp", ":0"],
        ["serve", "nonsense", "--tcp", ":0"],
        ["serve", "upper", "--tcp", "9000"],
        ["serve", "upper", "--tcp", ":99999"],
        ["serve", "upper", "--tcp", ":" + "9" * 5000],
        ["serve", "upper", "--tcp", "::1:5"],
        ["serve", "upper", "--tcp", "203.0.113.1:1"],
        ["serve", "upper", "--tcp", ":0", "--sink"],
        ["serve", "upper", "--tcp", ":0", "--encoding", "klingon"],
        ["serve", "upper", "--tcp", ":0", "--encoding", "hex"],
        ["serve", "upper", "--tcp", ":0", "--encoding", "undefined"],
        ["serve", "upper", "--tcp", ":0", "--encoding", "idna"],
        ["serve", "upper", "--unix", "/tmp/" + "x" * 200],
        ["serve", "int32", "--udp", ":0"],
        ["serve", "shell", "--tcp", ":0"],
        ["serve", "shell", "--tcp", ":0", "--allow-run", "--allow", " , "],
        ["serve", "shell", "--tcp", ":0", "--allow-run", "--timeout", "soon"],
        ["serve", "shell", "--tcp", ":0", "--allow-run", "--timeout", "0"],
        ["serve", "files-json", "--tcp", ":0"],
        ["serve", "ask", "--tcp", ":0", "--ack", ""],
        ["serve", "upper", "--udp", ":0", "--secret-file", "/dev/null"],
        ["talk", "upper"],
        ["talk", "upper", ":1", "--get", "x"],
        ["talk", "upper", ":1", "--retry", "-1"],
        ["talk", "files-json", ":1", "-o", "x"],
        ["talk", "files-json", ":1", "--udp"],
    ],
)
def test_bad_usage_is_status_2_or_3_and_a_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classic", *arguments]) in {2, 3}
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.strip()


def test_a_person_at_a_terminal_talks_and_ends_with_ctrl_d(tmp_path: Path) -> None:
    with tow_serve("upper", "--tcp", ":0") as server:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*TOW, "talk", "upper", server.address], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.close(theirs)
        try:
            os.write(ours, b"hello\n")
            assert process.stdout is not None
            while b"HELLO" not in (line := process.stdout.readline()):
                assert line
            os.write(ours, b"\x04")
            _, errors = process.communicate(timeout=DEADLINE)
        finally:
            os.close(ours)
        assert process.returncode == 0
        assert b"no encryption" in errors


def test_a_progress_bar_only_on_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 2_000_000)
    with tow_serve("files-json", "--tcp", ":0", "--root", str(tmp_path)) as server:
        command = [*TOW, "talk", "files-json", server.address, "--get", "a", "-o", str(tmp_path / "b")]
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while select.select([ours], [], [], DEADLINE)[0]:
                try:
                    shown += os.read(ours, 4096)
                except OSError:  # the other side is closed: a terminal's end of file
                    break
        finally:
            os.close(ours)
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
        assert "━".encode() in shown
        quiet = tow("talk", "files-json", server.address, "--get", "a", "-o", str(tmp_path / "c"))
        assert quiet.stderr == b""


def test_output_is_cleaned_for_people_and_exact_for_programs() -> None:
    def evil(conn: socket.socket) -> None:
        conn.recv(1024)
        conn.sendall(b"\x1b[2Jgone\tok")

    with naive_server(evil, clients=2) as address:
        assert tow("talk", "reply", str(address), stdin=b"x\n").stdout == b"\\x1b[2Jgone\tok\n"
        answer = next(
            one
            for one in events(tow("talk", "reply", str(address), "--json", stdin=b"x\n").stdout)
            if one["event"] == "answer"
        )
        assert answer["text"] == "\x1b[2Jgone\tok"


def test_a_reader_of_the_servers_output_may_leave() -> None:
    with tow_serve("upper", "--tcp", ":0") as server:
        server.event()  # the warning
        assert server.process.stdout is not None
        server.process.stdout.close()
        for _ in range(2):
            with server.connect() as client:
                client.send(b"x")
                assert client.recv(10) == b"X"
        server.process.stdout = None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_server_whose_output_nobody_reads(number: signal.Signals) -> None:
    def waiting(pipe: int) -> int:
        return int(struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)))[0])

    with tow_serve("upper", "--tcp", ":0") as server, server.connect() as client:
        server.wait_for("joined")
        assert server.process.stdout is not None
        pipe = server.process.stdout.fileno()
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
        client.sendall(b"x" * 20_000)  # an event that is longer than the pipe
        deadline = time.monotonic() + DEADLINE
        while waiting(pipe) < 4096:
            assert time.monotonic() < deadline
            os.sched_yield()
        server.process.send_signal(number)
        assert server.process.wait(DEADLINE) == 0


def test_a_disk_that_is_full_of_the_servers_output_stops_no_client(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*TOW, "serve", "upper", "--unix", str(tmp_path / "s")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.PIPE,
        )
    try:
        assert process.stderr is not None
        assert b"NO ENCRYPTION" in process.stderr.readline()  # it listens
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (100, 100))
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(DEADLINE)
                client.connect(str(tmp_path / "s"))
                client.sendall(b"hello " * 10)
                assert client.recv(100) == b"HELLO " * 10
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.wait(DEADLINE)
    assert errors == b"tow classic: The output cannot be written: File too large. It goes on without it.\n"


def test_a_sink_that_takes_only_a_part_of_a_message_has_not_kept_it(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with tow_serve("int32", "--tcp", ":0", "--sink", str(kept)) as server, server.connect() as client:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (10, 10))
        client.sendall(int32(5) + b"first" + int32(6) + b"second")
        assert server.wait_for("collected")["bytes"] == 5
        assert server.event()["message"].startswith("A message was not kept: ")
        assert ended(client)
    assert kept.read_bytes() == b"first\nseco"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_left_costs_no_descriptor_with_each_event(stream: str) -> None:
    code = """
import os, sys
from towline.cli.classic_serve import Reporter
from towline.cli.output import Output

report = Reporter(Output(json=False))
report("error", message="x")
report("stopped")
before = len(os.listdir("/proc/self/fd"))
for _ in range(20):
    report("error", message="x")
    report("stopped")
sys.exit(len(os.listdir("/proc/self/fd")) - before)
"""
    reading, writing = os.pipe()
    os.close(reading)
    to: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writing}
    done = subprocess.run([TOW[0], "-c", code], check=False, timeout=DEADLINE, **to)
    os.close(writing)
    other = done.stderr if stream == "stdout" else done.stdout
    assert (done.returncode, other.count(b"\n")) == (0, 21)


def test_the_reference_page_has_every_dialect_and_every_limit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "classic.md").read_text()
    for name in DIALECTS:
        assert f"\n## {name}\n" in page
    for limit in vars(limits).values():
        if isinstance(limit, Limit):
            assert f"| `{limit.name}` | " in page
            assert f"| {limit.reason} |" in page
