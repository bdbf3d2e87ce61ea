"""The verbs of rooms as processes against a real node; the bot; the blocking façade."""

from __future__ import annotations

import asyncio
import json
import os
import runpy
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.kit import (
    DEADLINE,
    TOW,
    NodeProcess,
    environment,
    events,
    finished,
    joined,
    run,
    running_node,
    serving,
    tow,
)
from tests.rooms.kit import listening

import towline
from towline.base.errors import DiskError
from towline.services.rooms.limits import ROOM_TEXT


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A client's home, joined to a running node; each test has a room of its own."""
    folder = tmp_path_factory.mktemp("node")
    with running_node(folder) as node:
        yield _client(node, folder / "ann")


def _client(node: NodeProcess, folder: Path) -> Path:
    node.join(folder, "ann", "home", "--can", "admin")
    return folder


def test_say_prints_the_seq_and_log_prints_what_was_said(home: Path) -> None:
    tow("rooms", "home", "talk", "--make", home=home)
    assert tow("say", "home", "talk", "hello wörld", home=home).stdout == "1\n"
    assert tow("say", "home", "talk", "-", home=home, stdin="from\nstdin\n").stdout == "2\n"
    assert tow("say", "home", "talk", "again", "--id", "a", home=home).stdout == "3\n"
    assert tow("say", "home", "talk", "again", "--id", "a", home=home).stdout == "3\n"
    assert tow("say", "home", "talk", "other", "--id", "a", home=home, expect=5).stdout == ""
    log = events(tow("log", "home", "talk", "--json", home=home).stdout)
    assert [each["text"] for each in log] == ["hello wörld", "from\nstdin", "again"]
    assert {"epoch", "seq", "id", "from", "time", "text"} <= set(log[0])
    assert [each["seq"] for each in log] == [1, 2, 3]
    plain = tow("log", "home", "talk", "--since", "2", home=home).stdout.splitlines()
    assert [line.split(" ", 2)[2] for line in plain] == [r"2 ann: from\nstdin", "3 ann: again"]
    assert tow("log", "home", "talk", "--since", "1h", "--search", "HELLO", home=home).stdout.count("\n") == 1
    assert tow("log", "home", "talk", "--last", "1", home=home).stdout.endswith("3 ann: again\n")


def test_refusals_have_their_exit_status(home: Path) -> None:
    tow("log", "home", "lobby", "--since", "99", home=home, expect=5)
    assert "no-such" in tow("log", "home", "no-such", home=home, expect=4).stderr
    tow("log", "home", "lobby", "--since", "yesterday", home=home, expect=2)
    assert "room_text" in tow("say", "home", "lobby", "-", home=home, stdin="x" * 70_000, expect=10).stderr
    tow("say", "home", "no/room", "x", home=home, expect=2)
    tow("rooms", "home", "--make", home=home, expect=2)
    said = events(tow("say", "home", "no-such", "x", "--json", home=home, expect=4).stdout)
    assert [each["name"] for each in said] == ["unknown-room"]


def test_chat_says_each_line_and_ends_when_all_are_acknowledged(home: Path) -> None:
    lines = [f"line {number} 你好" for number in range(300)]
    done = tow("chat", "home", "lines", home=home, stdin="\n".join(lines), timeout=30)
    assert [line.split(": ", 1)[1] for line in done.stdout.splitlines()] == lines
    log = events(tow("log", "home", "lines", "--json", home=home).stdout)
    assert [each["text"] for each in log] == lines


@pytest.mark.parametrize("word", ["q", "Q"])
def test_q_alone_leaves(home: Path, word: str) -> None:
    done = tow("chat", "home", f"leave-{word}", home=home, stdin=f"q is a letter\n{word}\nnever\n")
    assert done.stdout.endswith("1 ann: q is a letter\n")


def test_when_the_reader_leaves_it_is_said_once_what_stays_in_the_outbox(home: Path) -> None:
    lines = b"".join(b"%d\n" % number for number in range(500))
    with subprocess.Popen(
        [*TOW, "chat", "home", "left"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(home),
    ) as chat:  # fmt: skip
        assert chat.stdin is not None
        assert chat.stdout is not None
        assert chat.stderr is not None
        chat.stdout.close()
        chat.stdin.write(lines)
        chat.stdin.close()
        assert chat.stderr.read().count(b"outbox") <= 1
        assert chat.wait(DEADLINE) != 0


def test_no_screen_is_painted_into_a_file(home: Path) -> None:
    ours, theirs = os.openpty()
    try:
        os.write(ours, b"q\n")
        command = [*TOW, "chat", "home", "lobby"]
        done = subprocess.run(
            command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment(home), timeout=DEADLINE
        )
        assert (done.returncode, done.stderr) == (0, b"")
    finally:
        os.close(ours)
        os.close(theirs)


def test_lines_that_cannot_be_said_are_refused_and_the_others_are_said(home: Path) -> None:
    data = b"good\n\xff\xfe\n" + b"x" * (ROOM_TEXT.value + 1) + b"\n" + b"y" * ROOM_TEXT.value + b"\nlast"
    done = subprocess.run(
        [*TOW, "chat", "home", "bad-lines", "--json"],
        input=data, capture_output=True, timeout=DEADLINE, env=environment(home),
    )  # fmt: skip
    found = events(done.stdout.decode())
    assert [each["name"] for each in found if each["event"] == "error"] == ["bad-message", "limit"]
    assert [each["text"][:4] for each in found if each["event"] == "message"] == ["good", "yyyy", "last"]
    assert sum(each["event"] == "accepted" for each in found) == 3
    assert done.returncode == 9


def test_a_standard_input_that_cannot_be_read_ends_the_chat(home: Path, tmp_path: Path) -> None:
    unreadable = os.open(tmp_path / "input", os.O_WRONLY | os.O_CREAT)
    done = subprocess.run(
        [*TOW, "chat", "home", "no-input"],
        stdin=unreadable,
        capture_output=True,
        timeout=DEADLINE,
        env=environment(home),
    )
    os.close(unreadable)
    assert done.stderr == b"tow chat: Standard input cannot be read: Bad file descriptor.\n"
    assert done.returncode == DiskError.exit_status


def test_log_follows_and_chat_goes_both_ways(home: Path) -> None:
    tow("rooms", "home", "both", "--make", home=home)
    follower = subprocess.Popen(
        [*TOW, "log", "home", "both", "--follow", "--json"],
        stdout=subprocess.PIPE, env=environment(home),
    )  # fmt: skip
    chat = subprocess.Popen(
        [*TOW, "chat", "home", "both", "--json", "--since", "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(home),
    )  # fmt: skip
    killer = threading.Timer(DEADLINE, lambda: [each.kill() for each in (follower, chat)])
    killer.start()
    try:
        assert follower.stdout
        assert chat.stdin
        assert chat.stdout
        tow("say", "home", "both", "ping", home=home)
        assert json.loads(chat.stdout.readline())["text"] == "ping"
        chat.stdin.write(b"pong\n")
        chat.stdin.flush()
        assert [json.loads(follower.stdout.readline())["text"] for _ in range(2)] == ["ping", "pong"]
        assert '"name": "ann"' in tow("who", "home", "both", "--json", home=home).stdout
        assert tow("who", "home", home=home).stdout.startswith("ann  here")
        chat.stdin.close()
        assert {json.loads(line)["event"] for line in chat.stdout} == {"accepted", "message"}
        assert chat.wait(DEADLINE) == 0
        follower.send_signal(signal.SIGINT)
        assert follower.wait(DEADLINE) == 130
    finally:
        killer.cancel()
        for process in (follower, chat):
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def test_rooms_are_made_described_and_moderated(home: Path) -> None:
    tow("rooms", "home", "ops", "--make", "--private", "--topic", "production", home=home)
    row = next(e for e in events(tow("rooms", "home", "--json", home=home).stdout) if e["room"] == "ops")
    assert (row["topic"], row["private"], row["last"], row["unread"]) == ("production", True, 1, 1)
    tow("say", "home", "ops", "oops", home=home)
    tow("rooms", "home", "ops", "--remove", "2", "--keep-for", "30d", "--public", home=home)
    assert "oops" not in tow("log", "home", "ops", home=home).stdout
    assert "ops  0 here" in tow("rooms", "home", home=home).stdout
    for limit, kept in (
        (("--keep-bytes", "1GB"), {"seconds": 30 * 86400.0, "bytes": 10**9, "records": None}),
        (("--keep-for", "0", "--keep-records", "7"), {"seconds": None, "bytes": 10**9, "records": 7}),
        (("--keep-records", "0"), {"seconds": None, "bytes": 10**9, "records": None}),
    ):
        (row,) = events(tow("rooms", "home", "ops", *limit, "--json", home=home).stdout)
        assert row["keep"] == kept, "what is not named stays as it is; 0 is the default"


def test_the_bot_in_ten_lines(tmp_path: Path) -> None:
    bot = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "bot.py"))["bot"]

    async def work() -> None:
        async with serving(tmp_path / "data") as node:
            await joined(node, tmp_path / "bot", "bot")
            home = await joined(node, tmp_path / "ann")
            async with towline.connect("home", home=home) as line, listening(line.room("lobby")) as seen:
                robot = asyncio.create_task(bot("home", "lobby", str(tmp_path / "bot")))
                await seen.until(lambda: any(s.fields.get("who") == "bot" for s in seen.signals))
                await seen.room.say("hello bot")
                await seen.until(lambda: seen.texts == ["hello bot", "Hello, ann!"])
                await seen.room.say("bot, go home")
                await finished(robot)

    run(work())


def test_blocking(tmp_path: Path) -> None:
    with running_node(tmp_path) as node:
        node.join(tmp_path / "ann")
        with towline.sync.connect("home", home=str(tmp_path / "ann")) as line:
            room = line.room("lobby")
            assert [room.say(text) for text in ("one", "two")] == [1, 2]
            texts = []
            for message in room.follow(since=0):
                texts.append(message.text)
                if len(texts) == 2:
                    break
            assert texts == ["one", "two"]
            assert [message.text for message in room.history(last=1)] == ["two"]
            assert room.who() == []
