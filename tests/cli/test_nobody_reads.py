"""Standard streams that are full, closed, or read by nobody: the exit status is right, and the process ends."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests import kit
from tests.kit import TOW, NodeProcess, environment, run, until

from towline.cli.nodelog import NodeLog
from towline.client.connect import local_line

node = kit.node
_FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not _FULL.exists(), reason="needs the devices of Linux")
_PAGE = 4096


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe of one page that nobody reads, and that has no room."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PAGE)
    os.write(writer, bytes(_PAGE))
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def waits_in_a_write(process: subprocess.Popen[Any]) -> bool:
    """Whether it sleeps in write(2) to a standard stream (proc_pid_syscall(5): the call's number, its arguments)."""
    assert process.poll() is None, f"it ended: {process.returncode}"
    call = Path(f"/proc/{process.pid}/syscall").read_text().split()
    return len(call) > 2 and call[0] == _WRITE and int(call[1], 16) in (1, 2)


_WRITE = {"x86_64": "1", "aarch64": "64"}.get(os.uname().machine, "")


def ended(process: subprocess.Popen[Any]) -> int:
    """The exit status of a process that has to end, and does not outlive this in any case."""
    try:
        return process.wait(kit.DEADLINE)
    finally:
        process.kill()
        process.wait(kit.DEADLINE)


@pytest.mark.skipif(not _WRITE, reason="the number of write(2) on this machine is not known here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "words",
    [
        ("ls", "home:files"),
        ("put", "{here}", "home:files/"),
        ("put", "--json", "{here}", "home:files/"),
        ("ping", "home"),
    ],
)
def test_a_signal_ends_a_command_whose_output_nobody_reads(
    node: NodeProcess, tmp_path: Path, words: tuple[str, ...], number: signal.Signals
) -> None:
    home = tmp_path / "ann"
    node.join(home)
    (tmp_path / "here").write_bytes(b"something")
    (node.data / "files" / "there").write_bytes(b"")
    arguments = [word.format(here=tmp_path / "here") for word in words]
    with full_pipe() as (_, writer):
        process = subprocess.Popen(
            [*TOW, *arguments], stdout=writer, stderr=subprocess.PIPE, env=environment(home), text=True
        )
        run(until(lambda: waits_in_a_write(process)))
        process.send_signal(number)
        assert ended(process) == 130
        assert process.stderr is not None
        said = process.stderr.read()
        process.stderr.close()
        assert not kit.complaints(said), said


@pytest.mark.skipif(not _WRITE, reason="the number of write(2) on this machine is not known here")
def test_a_second_one_ends_it_where_nobody_reads_its_last_words_either(node: NodeProcess, tmp_path: Path) -> None:
    node.join(tmp_path / "ann")
    with full_pipe() as (_, writer):
        process = subprocess.Popen(
            [*TOW, "ls", "home:"], stdout=writer, stderr=writer, env=environment(tmp_path / "ann")
        )
        run(until(lambda: waits_in_a_write(process)))
        process.send_signal(signal.SIGINT)
        run(until(lambda: _fd_of_write(process) == 2))
        process.send_signal(signal.SIGINT)
        assert ended(process) == -signal.SIGINT  # by the kernel, as any that does not look; a shell says 130


def _fd_of_write(process: subprocess.Popen[Any]) -> int:
    call = Path(f"/proc/{process.pid}/syscall").read_text().split()
    return int(call[1], 16) if len(call) > 2 and call[0] == _WRITE else -1


@pytest.mark.parametrize(
    ("words", "status"),
    [(("ls", "nowhere:files"), 4), (("nothing",), 2), (("put",), 2), (("stat", "nowhere:"), 2), (("nodes",), 0)],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_error_that_cannot_be_said_is_still_a_status(
    tmp_path: Path, words: tuple[str, ...], status: int, unbuffered: str
) -> None:
    env = environment(tmp_path, PYTHONUNBUFFERED=unbuffered)
    with _FULL.open("w") as full:
        done = subprocess.run([*TOW, *words], stdout=subprocess.DEVNULL, stderr=full, env=env, timeout=kit.DEADLINE)
    assert done.returncode == status


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("put", "--help"), ("nodes", "--json", "--help")])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_cannot_be_written_is_one_sentence(tmp_path: Path, words: tuple[str, ...], unbuffered: str) -> None:
    env = environment(tmp_path, PYTHONUNBUFFERED=unbuffered)
    with _FULL.open("w") as full:
        done = subprocess.run(
            [*TOW, *words], stdout=full, stderr=subprocess.PIPE, env=env, text=True, timeout=kit.DEADLINE
        )
    if unbuffered and words[-1] == "--help" and len(words) > 1:
        assert done.returncode in (0, 1)  # argparse swallows what write(2) says
    else:
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert not kit.complaints(done.stderr)


def test_help_whose_reader_left(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*TOW, "--help"], stdout=writer, stderr=subprocess.PIPE, env=environment(tmp_path), timeout=kit.DEADLINE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_remarks_that_cannot_be_written_do_not_end_a_transfer(node: NodeProcess, tmp_path: Path) -> None:
    node.join(tmp_path / "ann")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("file")
    (tmp_path / "tree" / "file").write_bytes(b"1")
    (tmp_path / "back" / "tree").mkdir(parents=True)
    (tmp_path / "back" / "tree" / "file").write_bytes(b"other")
    with _FULL.open("w") as full:
        for words, status in (
            (("put", tmp_path / "tree", "home:files/tree"), 0),
            (("get", "home:files/tree", tmp_path / "back"), 5),
        ):
            done = subprocess.run(
                [*TOW, *map(str, words)],
                stdout=subprocess.DEVNULL,
                stderr=full,
                env=environment(tmp_path / "ann"),
                timeout=kit.DEADLINE,
            )
            assert done.returncode == status
    assert (node.data / "files" / "tree" / "file").read_bytes() == b"1"


def test_a_log_that_nobody_reads_holds_nobody_up() -> None:
    with full_pipe() as (reader, writer):
        log = NodeLog(writer)
        for number in range(3000):
            log.emit(logging.makeLogRecord({"msg": f"line {number}"}))
        text = os.read(reader, _PAGE)
        while b"line 900\n" not in text:
            text += os.read(reader, _PAGE)
        log.emit(logging.makeLogRecord({"msg": "the last"}))
        while b"the last\n" not in text:
            text += os.read(reader, _PAGE)
        log.close()
    lines = [line.partition(b" ")[2] for line in text.strip(b"\0").splitlines() if b"lines were left out" not in line]
    assert lines[:900] == [b"line %d" % number for number in range(900)]
    left_out = [int(number) for number in re.findall(rb"\((\d+) lines were left out: nobody read them\.\)", text)]
    assert sum(left_out) == 3001 - len(lines) > 1900


def test_a_node_whose_log_nobody_reads_goes_on(tmp_path: Path) -> None:
    """It says who comes and goes, on a pipe that takes the first words and no more."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PAGE)
    process = subprocess.Popen(
        [*TOW, "serve", "--data", str(tmp_path / "data"), "--listen", "none"],
        stdout=writer,
        stderr=writer,
        env=environment(tmp_path),
    )
    path = tmp_path / "data" / "run" / "tow.sock"

    async def come_and_go() -> None:
        await until(path.exists)
        for _ in range(100):  # each is two lines of more than 30 bytes
            async with local_line(str(path)):
                pass

    try:
        run(come_and_go())
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 0
    finally:
        process.kill()
        process.wait(kit.DEADLINE)
        os.close(reader)
        os.close(writer)
