"""The public names, and the blocking façade."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import kit

import towline
from towline.base.errors import ConnectionLost, NoGrant, NotFound, UnknownAlias
from towline.base.version import __version__
from towline.client import jobs, rooms

_UPPER = Path(__file__).parents[2] / "examples" / "upper.py"
# What is for the inside of the client, or is a context manager's business.
_ATTRIBUTES = {"target", "address", "welcome", "cuts", "trailer", "name", "id", "state", "ended"}
_INSIDE = {"connection", "tls_context", "check_certificate", "close_rooms"}


def test_importing_towline_costs_next_to_nothing() -> None:
    code = (
        "import sys, towline\n"
        "print(*sorted({'asyncio', 'ssl', 'socket', 'sqlite3', 'cryptography', 'blake3'} & set(sys.modules)))\n"
        "print(*[name for name in towline.__all__ if getattr(towline, name, None) is None])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["", ""]


def test_the_names() -> None:
    assert set(towline.__all__) <= set(dir(towline))
    assert towline.__version__ == __version__
    assert inspect.iscoroutinefunction(towline.join)
    assert towline.sync.connect is not towline.connect
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = towline.nonsense  # type: ignore[attr-defined]


def _asynchronous(cls: type) -> set[str]:
    members = inspect.getmembers(
        cls, lambda each: inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
    )
    return {name for name, _ in members if not name.startswith("_")}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (towline.sync.Line, towline.Line),
        (towline.sync.Channel, towline.Channel),
        (towline.sync.Room, rooms.Room),
        (towline.sync.Job, jobs.Job),
    ],
)
def test_the_facade_has_every_verb_with_its_signature(ours: type, theirs: type) -> None:
    wanted = _asynchronous(theirs) - _INSIDE
    missing = [name for name in sorted(wanted) if not hasattr(ours, name)]
    assert not missing, f"add a line for each to {ours.__qualname__} in towline/sync.py: {missing}"
    for name in wanted:
        twin, original = getattr(ours, name), getattr(theirs, name)
        assert not inspect.iscoroutinefunction(twin)
        assert not inspect.isasyncgenfunction(twin)
        assert list(inspect.signature(twin).parameters) == list(inspect.signature(original).parameters), name
        assert twin.__doc__, name
    public = {name for name in vars(ours) if not name.startswith("_")}
    assert public <= set(dir(theirs)) | _ATTRIBUTES, "no verb of its own"


@pytest.mark.parametrize("function", ["connect", "join"])
def test_the_functions_take_the_same(function: str) -> None:
    ours, theirs = (inspect.signature(getattr(module, function)) for module in (towline.sync, towline))
    assert list(ours.parameters.values()) == list(theirs.parameters.values())


@pytest.fixture
def home(node: kit.NodeProcess, tmp_path: Path) -> Iterator[str]:
    home = str(tmp_path / "client")
    towline.sync.join(node.invite("ann"), "home", home=home)
    yield home
    assert not [thread for thread in threading.enumerate() if thread.name == "towline-sync"], "it tidies up"


node = kit.node


def test_the_blocking_client(home: str, tmp_path: Path) -> None:
    source = tmp_path / "letter.txt"
    source.write_text("hello")
    with towline.sync.connect("home", home=home) as line:
        assert line.welcome is not None
        assert line.welcome.person == "ann"
        assert line.target.alias == "home"
        assert line.address.startswith("127.0.0.1:")
        assert line.cuts == 0
        assert line.shares() == [("files", False)]
        assert line.put(str(source), "files/letter.txt").files == 1
        line.mkdir("files/folder")
        line.move("files/letter.txt", "files/folder/letter")
        assert [(entry.name, entry.kind) for entry in line.list("files")] == [("folder", "dir")]
        assert line.stat("files/folder/letter").size == 5
        assert line.get("files/folder/letter", str(tmp_path / "back")).bytes == 5
        assert (tmp_path / "back").read_text() == "hello"
        with pytest.raises(NotFound):
            line.stat("files/nothing")
        line.remove("files/folder", recursive=True)
        assert next(iter(line.list("files")), None) is None
        assert "blocking" in repr(line)
    with pytest.raises(ConnectionLost):
        line.shares()
    line.close()


def test_a_stream_of_ones_own(home: str) -> None:
    with towline.sync.connect("home", home=home) as line:
        channel = line.channel({"service": "echo"}, towline.Class.INTERACTIVE)
        channel.accepted()
        for number in range(5):
            channel.send(b"%d" % number)
        channel.send_nowait(b"last")
        channel.end()
        assert channel.receive() == towline.Message(b"0", None)
        assert list(channel) == [b"1", b"2", b"3", b"4", b"last"]
        assert channel.receive() is None
        assert channel.ended
        other = line.channel({"service": "echo"})
        other.send(b"x")
        for message in other.messages():
            assert message.body == b"x"
            break
        other.reset()
        assert other.closed


def test_a_command_and_a_room(home: str) -> None:
    with towline.sync.connect("home", home=home) as line:
        room = line.room("lobby")
        room.join()
        seq = room.say("hello")
        assert [getattr(item, "seq", None) for item in room.history()][-1] == seq
        assert room.name == "lobby"
        with pytest.raises(NoGrant):
            line.run(["true"])
    with pytest.raises(ConnectionLost):
        room.who()


def test_several_threads_and_lines_share_one_loop(home: str) -> None:
    answers: list[bytes] = []

    def talk(number: int) -> None:
        with towline.sync.connect("home", home=home) as line:
            channel = line.channel({"service": "echo"})
            channel.send(b"%d" % number)
            message = channel.receive()
            assert message is not None
            answers.append(message.body)
            channel.end()

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(kit.DEADLINE)
    assert sorted(answers) == [b"0", b"1", b"2", b"3", b"4"]


def test_a_callback_cannot_wait_for_its_own_loop(home: str) -> None:
    caught: list[BaseException] = []

    def on_event(event: towline.LineEvent) -> None:
        try:
            line.shares()
        except RuntimeError as error:
            caught.append(error)

    line = towline.sync.connect("home", home=home, on_event=on_event)
    with line:
        assert caught


def test_an_interrupt_ends_the_wait_and_cancels_the_work(home: str) -> None:
    cancelled, heard = threading.Event(), threading.Event()
    main = threading.main_thread().ident or 0

    def interrupted(number: int, frame: object) -> None:
        if not heard.is_set():
            heard.set()
            raise KeyboardInterrupt

    def pressed() -> bool:
        # CPython overlooks a signal that comes right before the main thread falls asleep in the lock: until the next.
        signal.pthread_kill(main, signal.SIGINT)
        return heard.is_set()

    async def work() -> None:
        try:
            await kit.until(pressed, "the main thread hears it")
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    before = signal.signal(signal.SIGINT, interrupted)
    try:
        with towline.sync.connect("home", home=home) as line:
            with pytest.raises(KeyboardInterrupt):
                line._run(work())
            assert cancelled.wait(kit.DEADLINE)
            assert line.shares(), "the line is none the worse"
    finally:
        signal.signal(signal.SIGINT, before)


def test_work_that_was_cancelled_says_so(home: str) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    with towline.sync.connect("home", home=home) as line, pytest.raises(concurrent.futures.CancelledError):
        line._run(work())


def test_a_failed_connect_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UnknownAlias):
        towline.sync.connect("nowhere", home=str(tmp_path / "c"))
    assert not [thread for thread in threading.enumerate() if thread.name == "towline-sync"]


def test_the_example() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(_UPPER)], capture_output=True, text=True, timeout=kit.DEADLINE
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.split("\n")[1:6] == ["EVERY", "MESSAGE", "HAS", "A", "BOUNDARY"]
