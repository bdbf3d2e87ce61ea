"""Transfers by `tow` as a process: kills, interrupts, full disks, events, exit statuses."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import kit
from tests.kit import DEADLINE, TOW, NodeProcess, environment, events, running_node, tow
from tests.transfers.kit import KIB, MIB, partials, rubbish, seen, write

from towline.base.limits import STREAMS
from towline.cli.main import main
from towline.lab import faults

address = kit.address

DONE = {"files", "bytes", "sent_bytes", "resent_bytes", "seconds", "cuts"}


class Place:
    """A node process with a share outside its data folder, and one joined client."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.share = folder / "share"
        self.share.mkdir(exist_ok=True)
        self.home = folder / "home"
        self.arguments = ("--share", f"files={self.share}", *arguments)

    @contextmanager
    def node(self, listen: str = "127.0.0.1:0") -> Iterator[NodeProcess]:
        with running_node(self.folder, *self.arguments, listen=listen) as node:
            if not self.home.exists():
                node.join(self.home)
            yield node

    def aim(self, address: str) -> None:
        tow("nodes", "set", "home", "--address", address, home=self.home)

    def tow(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return tow(*arguments, home=self.home, **options)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """A client in the background; without Python's warnings, since uvloop lets the garbage collector close a
        socket whose connect was reset, and that is what some of these tests are about."""
        return subprocess.Popen(
            [*TOW, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.home, PYTHONDEVMODE="", PYTHONWARNINGS="ignore"),
            **options,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """Read events until one fits."""
    assert process.stdout is not None
    found: list[dict[str, Any]] = []
    for line in process.stdout:
        found.append(json.loads(line))
        if condition(found[-1]):
            return found
    raise AssertionError(f"never happened: {found}, {process.stderr and process.stderr.read()!r}")


def moved(least: int) -> Callable[[dict[str, Any]], bool]:
    return lambda event: event["event"] == "progress" and event["bytes"] >= least


def finish(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    out, err = process.communicate(timeout=DEADLINE)
    assert b"Traceback" not in err, err.decode()
    return out.decode(), err.decode()


def test_events_of_a_put_and_a_get_as_documented(place: Place) -> None:
    write(place.folder / "tree" / "a", b"aaa")
    write(place.folder / "tree" / "b", rubbish(300 * KIB))
    (place.folder / "tree" / "link").symlink_to("a")
    with place.node() as node:
        for arguments in (
            ("put", "--json", str(place.folder / "tree"), "home:files/t"),
            ("get", "--json", "home:files/t", str(place.folder / "back")),
        ):
            told = events(place.tow(*arguments).stdout)
            by_name = {event["event"]: event for event in told}
            assert told[0] == {"v": 1, "event": "started", "files": 2, "bytes": 300 * KIB + 3}
            assert {event["path"]: event["bytes"] for event in told if event["event"] == "file"} == {
                "a": 3,
                "b": 300 * KIB,
            }
            assert all(len(event["digest"]) == 64 for event in told if event["event"] == "file")
            done = told[-1]
            assert done["event"] == "done"
            assert set(done) >= DONE
            assert (done["files"], done["bytes"], done["sent_bytes"]) == (2, 300 * KIB + 3, 300 * KIB + 3)
            assert (done["resent_bytes"], done["cuts"]) == (0, 0)
            if arguments[0] == "put":
                assert by_name["warning"]["path"] == "link"
        with faults.running(
            to=node.address, script=faults.FaultScript(cut_after=4 * MIB, refuse=0.2, throttle=20_000_000)
        ) as proxy:
            write(place.folder / "big", rubbish(8 * MIB))
            place.aim(proxy.address)
            told = events(place.tow("put", "--json", str(place.folder / "big"), "home:files/big").stdout)
        names = [event["event"] for event in told]
        assert names[0] == "started"
        assert names[-1] == "done"
        assert names.index("reconnecting") < names.index("resumed") < names.index("file")
        again = next(event for event in told if event["event"] == "reconnecting")
        assert again["attempt"] >= 1
        assert again["wait"] >= 0
        resumed = next(event for event in told if event["event"] == "resumed")
        assert 2 * MIB < resumed["position"] <= 4 * MIB
        progress = [event for event in told if event["event"] == "progress"]
        assert progress
        assert all(event["bytes"] <= event["total_bytes"] == 8 * MIB for event in progress)
        under_way = [event for event in progress if event["path"]]
        assert all(0 <= event["path_bytes"] <= event["path_total"] == 8 * MIB for event in under_way)
        assert {event["path"] for event in under_way} == {"big"}
        assert told[-1]["cuts"] == 1


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_terminal_shows_the_whole_and_the_large_file_that_is_under_way(place: Place, verb: str) -> None:
    for folder in (place.folder / "tree", place.share / "tree"):
        write(folder / "[large] one", rubbish(600 * KIB))
        write(folder / "small", b"1")
    ends = {"put": (str(place.folder / "tree"), "home:files/up"), "get": ("home:files/tree", f"{place.folder}/down")}
    with place.node():
        ours, theirs = pty.openpty()
        client = subprocess.Popen(
            [*TOW, verb, "--bwlimit", "600k", *ends[verb]],
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            env=environment(place.home, TERM="xterm", COLUMNS="120"),
        )
        os.close(theirs)
        shown = all_of(ours).decode()
        os.close(ours)
        assert client.wait(DEADLINE) == 0, shown
    assert "of 2 files" in shown
    assert re.search(r"\n\[large\] one +\x1b.*/600\.0 KiB", shown), shown


def all_of(terminal: int) -> bytes:
    """What is written to a terminal until nobody has it open any more (then read gives EIO)."""
    found = b""
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 65536):
            found += chunk
    return found


def in_here(place: Place, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """`tow` in this process: status, standard output, standard error."""
    capsys.readouterr()
    status = main(list(arguments))
    return status, *capsys.readouterr()


def test_exit_statuses_and_sentences(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_HOME", str(place.home))
    write(place.folder / "mine", b"mine")
    write(place.share / "there", b"other")
    write(place.folder / "odd" / "a:b", b"x")
    write(place.folder / "odd" / "good", b"x")
    mine = str(place.folder / "mine")
    with place.node():
        for expected, arguments, word in (
            (2, ("put", mine), "required"),
            (2, ("put", mine, "nowhere"), "ALIAS:SHARE/PATH"),
            (2, ("get", "home:files/there", "--lanes", "99"), "lanes"),
            (4, ("put", mine, "stranger:files/x"), "stranger"),
            (4, ("put", mine, "home:nowhere/x"), "nowhere"),
            (4, ("get", "home:files/nothing", str(place.folder / "got")), "nothing"),
            (4, ("put", mine + "x", "home:files/x"), "minex"),
            (5, ("put", mine, "home:files/there"), "other content"),
            (3, ("put", mine, "home:files/../x"), "leave"),
            (3, ("put", str(place.folder / "odd"), "home:files/odd"), "a:b"),
            (4, ("ls", "home:files/nothing"), "nothing"),
            (5, ("rm", "home:files/odd"), "recursive"),
        ):
            status, _, err = in_here(place, capsys, *arguments)
            assert (status, word in err) == (expected, True), (arguments, status, err)
            if expected != 2:
                status, out, err = in_here(place, capsys, *arguments, "--json")
                told = events(out)
                errors = [event for event in told if event["event"] == "error"]
                assert errors, (arguments, told)
                assert status == expected
                assert {"code", "message", "retryable"} <= set(errors[0])
        assert seen(place.share / "odd").keys() == {b".", b"good"}
        assert (place.share / "there").read_bytes() == b"other"
    status, _, err = in_here(place, capsys, "ls", "home:files", "--give-up", "0.2s")
    assert status == 6
    assert "home" in err


def test_dry_runs_do_nothing(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWLINE_HOME", str(place.home))
    write(place.folder / "tree" / "a", b"aaa")
    write(place.folder / "tree" / "sub" / "b", b"bb")
    write(place.folder / "odd" / "a:b", b"bb")
    write(place.share / "t" / "sub" / "c", b"c")
    before = seen(place.share)
    got = str(place.folder / "got")
    with place.node():
        _, out, _ = in_here(place, capsys, "put", "--dry-run", "--json", str(place.folder / "tree"), "home:files/x")
        told = events(out)
        assert sorted(event["path"] for event in told if event["event"] == "file") == ["a", "sub/b"]
        assert (told[-1]["files"], told[-1]["bytes"]) == (2, 5)
        status, out, err = in_here(place, capsys, "put", "--dry-run", str(place.folder / "odd"), "home:files/x")
        assert (status, "a:b" in err) == (3, True)
        _, out, _ = in_here(place, capsys, "get", "--dry-run", "--json", "home:files/t", got)
        assert (events(out)[-1]["files"], events(out)[-1]["bytes"]) == (1, 1)
        assert "1 file" in in_here(place, capsys, "get", "--dry-run", "home:files/t", got)[1]
        assert in_here(place, capsys, "put", "--dry-run", "-", "home:files/x")[0] == 2
    assert seen(place.share) == before
    assert not (place.folder / "got").exists()


@pytest.mark.parametrize("links", ["skip", "keep"])
def test_a_dry_run_says_what_a_real_one_does(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, links: str
) -> None:
    """The same files, the same left out, the same exit status."""
    monkeypatch.setenv("TOWLINE_HOME", str(place.home))
    for number in range(STREAMS.value + 10):  # each folder is a listing
        write(place.share / "t" / f"{number}" / "file", b"1")
    write(place.share / "t" / "a:b" / "hidden", b"1")
    (place.share / "t" / "link").symlink_to("a")
    os.mkfifo(place.share / "t" / "fifo")
    with place.node():
        said: list[tuple[int, set[str], set[str]]] = []
        for more in (("--dry-run",), ()):
            status, out, _ = in_here(
                place, capsys, "get", "--json", "--links", links, *more, "home:files/t", str(place.folder / "got")
            )
            told = events(out)
            came = {event["path"].removeprefix("files/t/") for event in told if event["event"] == "file"}
            left = {
                event["path"].removeprefix("files/t/") for event in told if event["event"] in ("warning", "error")
            }
            assert told[-1]["files"] == len(came) == STREAMS.value + 10 + (links == "keep")
            said.append((status, came, left))
        assert said[0] == said[1]
        assert said[0][0] == 3
        for name in ("fifo", "link"):
            path = f"home:files/t/{name}"
            real, dry = (in_here(place, capsys, "get", *more, path, os.devnull)[0] for more in ((), ("--dry-run",)))
            assert dry == real == 3


@pytest.mark.parametrize(
    ("verb", "number"),
    [("put", signal.SIGKILL), ("get", signal.SIGKILL), ("put", signal.SIGINT), ("get", signal.SIGTERM)],
)
def test_a_client_that_ends_under_way_goes_on_when_run_again(place: Place, verb: str, number: signal.Signals) -> None:
    content = rubbish(10 * MIB)
    write(place.folder / "big" if verb == "put" else place.share / "big", content)
    arguments = {
        "put": ("put", "--json", str(place.folder / "big"), "home:files/big"),
        "get": ("get", "--json", "home:files/big", str(place.folder / "big")),
    }[verb]
    with place.node() as node:
        with faults.running(to=node.address, script=faults.FaultScript(throttle=4 * MIB)) as proxy:
            place.aim(proxy.address)
            client = place.start(*arguments)
            wait_for(client, moved(6 * MIB))
            client.send_signal(number)
            out, err = finish(client)
            if number is not signal.SIGKILL:
                assert client.returncode == 130
                told = events(out)
                assert told[-1]["event"] == "error"
                assert "again" in told[-1]["message"]
                assert err == ""
        place.aim(node.address)
        done = events(place.tow(*arguments).stdout)
        assert done[-1]["event"] == "done"
        resumed = [event for event in done if event["event"] == "resumed"]
        assert resumed
        assert 0 < done[-1]["sent_bytes"] < len(content)  # what a put says has moved may still be in buffers
        assert (place.share / "big").read_bytes() == (place.folder / "big").read_bytes() == content
        assert not partials(place.share)
        assert not [name for name in partials(place.folder) if "home" not in name]


def test_a_node_that_is_killed_under_way(place: Place, address: str) -> None:
    content = rubbish(14 * MIB)
    write(place.folder / "big", content)
    # Two seconds until it is killed, so that a checkpoint has been made, and more than one to the end.
    with place.node(address) as node, faults.running(address, script=faults.FaultScript(throttle=4 * MIB)) as proxy:
        place.aim(proxy.address)
        client = place.start("put", "--json", str(place.folder / "big"), "home:files/big")
        wait_for(client, moved(8 * MIB))
        node.process.kill()
        node.wait()
        with place.node(address):
            out, err = finish(client)
    assert client.returncode == 0, (out, err)
    assert (place.share / "big").read_bytes() == content
    told = events(out)
    assert told[-1]["sent_bytes"] < 22 * MIB
    assert any(event["event"] == "resumed" for event in told)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_an_interrupt_while_a_pipe_is_idle_ends_at_once(place: Place, verb: str) -> None:
    write(place.share / "big", rubbish(4 * MIB))
    with place.node():
        read, write_ = os.pipe()
        if verb == "put":
            os.write(write_, b"x" * 1000)
            client = place.start("put", "-", "home:files/stream", "--json", stdin=read)
            wait_for(client, lambda event: event["event"] in ("started", "progress"))
        else:  # nobody reads: the pipe is full
            client = subprocess.Popen(
                [*TOW, "get", "home:files/big", "-"],
                stdout=write_,
                stderr=subprocess.PIPE,
                env=environment(place.home),
            )
            os.read(read, 1)
        client.send_signal(signal.SIGINT)
        try:
            _, err = client.communicate(timeout=10)
        finally:
            client.kill()
            os.close(read)
            os.close(write_)
        assert client.returncode == 130
        assert b"Traceback" not in err


def test_a_reader_that_leaves(place: Place) -> None:
    write(place.share / "big", rubbish(4 * MIB))
    with place.node():
        client = place.start("get", "home:files/big", "-")
        assert client.stdout is not None
        client.stdout.read(1000)
        client.stdout.close()
        client.wait(10)
        assert client.stderr is not None
        err = client.stderr.read()
        client.stderr.close()
        assert b"Traceback" not in err
        assert client.returncode in (141, 1), err


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(path)], capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.mark.parametrize("verb", ["put", "get"])
def test_a_full_disk_keeps_the_partial_and_goes_on_when_there_is_room(place: Place, verb: str) -> None:
    content = rubbish(5 * MIB)
    where = place.share if verb == "put" else place.folder / "disk"
    with small_disk(where, "6m"):
        write(place.folder / "big" if verb == "put" else place.share / "big", content)
        arguments = {
            "put": ("put", "--json", str(place.folder / "big"), "home:files/big"),
            "get": ("get", "--json", "home:files/big", str(place.folder / "disk") + "/big"),
        }[verb]
        with place.node() as node:
            with faults.running(to=node.address, script=faults.FaultScript(throttle=8 * MIB)) as proxy:
                place.aim(proxy.address)
                client = place.start(*arguments)
                wait_for(client, moved(512 * KIB))
                filler = os.statvfs(where)
                # The room that was there when it began goes to somebody else.
                write(where / "filler", b"x" * max(filler.f_bavail * filler.f_frsize - 2 * MIB, 0))
                out, _ = finish(client)
            assert client.returncode == 8, out
            told = events(out)
            assert told[-1]["event"] == "error"
            assert told[-1]["retryable"] is False
            assert "big" in told[-1]["message"]
            assert not (where / "big").exists()
            assert any(name.endswith(".part") for name in partials(where))
            place.aim(node.address)
            place.tow(*arguments, expect=8)  # it cannot fit, and that is said at once
            os.unlink(where / "filler")
            told = events(place.tow(*arguments).stdout)
            assert any(event["event"] == "resumed" and event["position"] > 256 * KIB for event in told)
            assert told[-1]["sent_bytes"] < len(content)
            assert (where / "big").read_bytes() == content
            assert not partials(where)


def test_a_full_disk_and_many_small_files(place: Place) -> None:
    for number in range(300):
        write(place.folder / "many" / str(number), rubbish(20 * KIB, number))
    with small_disk(place.share, "3m"), place.node():
        place.tow("put", str(place.folder / "many"), "home:files/many", expect=8)
        whole = [path for path in (place.share / "many").iterdir() if not path.name.startswith(".towline")]
        assert whole
        assert all(path.read_bytes() == (place.folder / "many" / path.name).read_bytes() for path in whole)
        subprocess.run(["mount", "-o", "remount,size=20m", str(place.share)], check=True)
        place.tow("put", str(place.folder / "many"), "home:files/many")
        assert seen(place.share / "many") == seen(place.folder / "many")
        assert not partials(place.share)


def test_bytes_that_rot_in_a_partial_are_never_published(place: Place) -> None:
    content = rubbish(6 * MIB)
    for verb in ("put", "get"):
        write(place.folder / "big" if verb == "put" else place.share / "big", content)
        arguments = {
            "put": ("put", "--json", str(place.folder / "big"), "home:files/big"),
            "get": ("get", "--json", "home:files/big", str(place.folder / "got")),
        }[verb]
        where = place.share if verb == "put" else place.folder
        with place.node() as node:
            with faults.running(to=node.address, script=faults.FaultScript(throttle=8 * MIB)) as proxy:
                place.aim(proxy.address)
                client = place.start(*arguments)
                wait_for(client, moved(4 * MIB))
                client.kill()
                finish(client)
            (part,) = [name for name in partials(where) if name.endswith(".part")]
            with open(part, "r+b") as file:
                file.seek(100_000)
                file.write(b"rotten bytes")
            place.aim(node.address)
            done = events(place.tow(*arguments).stdout)[-1]
            assert done["event"] == "done"
            target = place.share / "big" if verb == "put" else place.folder / "got"
            assert target.read_bytes() == content
            assert not [name for name in partials(where) if name.endswith(".part")]


def test_a_source_that_changed_between_two_runs_is_named_and_begun_anew(place: Place) -> None:
    write(place.folder / "big", rubbish(6 * MIB))
    arguments = ("put", "--json", str(place.folder / "big"), "home:files/big")
    with place.node() as node:
        with faults.running(to=node.address, script=faults.FaultScript(throttle=8 * MIB)) as proxy:
            place.aim(proxy.address)
            client = place.start(*arguments)
            wait_for(client, moved(3 * MIB))
            client.kill()
            finish(client)
        place.aim(node.address)
        write(place.folder / "big", rubbish(6 * MIB, 2), mtime=1_800_000_000_000_000_000)
        told = events(place.tow(*arguments).stdout)
        (warning,) = [event for event in told if event["event"] == "warning"]
        assert warning["path"] == "big"
        assert "changed" in warning["reason"]
        assert told[-1]["sent_bytes"] == 6 * MIB
        assert (place.share / "big").read_bytes() == rubbish(6 * MIB, 2)


def test_standard_streams_by_pipe(place: Place) -> None:
    content = rubbish(3 * MIB)
    with place.node():
        put = subprocess.run(
            [*TOW, "put", "-", "home:files/deep/stream"],
            input=content,
            capture_output=True,
            env=environment(place.home),
            timeout=DEADLINE,
        )
        assert put.returncode == 0, put.stderr
        place.tow("put", "-", "home:files/", expect=2)
        assert "Only a file" in place.tow("get", "home:files", "-", expect=5).stderr
        got = subprocess.run(
            [*TOW, "get", "home:files/deep/stream", "-", "--json"],
            capture_output=True,
            env=environment(place.home),
            timeout=DEADLINE,
        )
        assert got.returncode == 0, got.stderr
        assert got.stdout == content
        assert events(got.stderr.decode())[-1]["event"] == "done"
        got = subprocess.run(
            [*TOW, "get", "home:files/nothing", "-", "--json"],
            capture_output=True,
            env=environment(place.home),
            timeout=DEADLINE,
        )
        assert (got.returncode, got.stdout) == (4, b"")
        assert events(got.stderr.decode())[-1]["event"] == "error"


@pytest.mark.parametrize("hard", [128, 4096], ids=["as the system permits", "as set for now"])
def test_a_client_that_may_have_few_files_open_moves_many(place: Place, hard: int) -> None:
    """It raises what it may; where it may not, neither it nor the node has more open than that."""

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))

    for number in range(300):
        write(place.folder / "tree" / f"{number:03}", b"%070000d" % number)
    with place.node():
        for arguments in (
            ("put", str(place.folder / "tree"), "home:files/t"),
            ("get", "home:files/t", str(place.folder / "back")),
        ):
            client = place.start(*arguments, preexec_fn=few_files)
            _, err = finish(client)
            assert (client.returncode, err) == (0, "")
    assert seen(place.folder / "back") == seen(place.folder / "tree")
