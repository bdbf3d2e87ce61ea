"""Ctrl-C and SIGTERM: whatever hangs, they end `tow`, and what goes on at the node is said."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.jobs.kit import Place
from tests.kit import DEADLINE, TOW, environment, events, tow

from towline.base.errors import Exit
from towline.store import Store
from towline.trust.pins import KnownNodes

# More than a pipe holds, behind whatever else is said first.
STAYS = "trap : INT; head -c 200000 /dev/zero; while :; do sleep 1; done"


class Client:
    """`tow`, with an own pipe as its standard output that nobody reads."""

    def __init__(self, home: Path, *words: str, both: bool = False) -> None:
        self._ends = _, out = os.pipe()
        self.process = subprocess.Popen(
            [*TOW, *words], stdin=subprocess.DEVNULL, stdout=out, stderr=out if both else subprocess.PIPE,
            env=environment(home),
        )  # fmt: skip

    def wait_full(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while select.select([], [self._ends[1]], [], 0)[1]:
            assert time.monotonic() < deadline, "the pipe is never full"
            assert self.process.poll() is None, "it has ended"

    def hears(self, text: str) -> str:
        """A line of standard error with that."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line.decode():
                return line.decode()
        raise AssertionError(f"{text!r} was never said")

    def press(self, number: int) -> None:
        self.process.send_signal(number)

    def press_until_it_ends(self, number: int) -> None:
        """Somebody hammers on the key, for as long as a test may take."""
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it never ends"
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.05)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)
        for each in self._ends:
            os.close(each)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def client(home: Path, *words: str, both: bool = False) -> Iterator[Client]:
    it = Client(home, *words, both=both)
    try:
        yield it
    finally:
        it.close()


def _rows(place: Place) -> list[dict[str, object]]:
    return [each for each in events(tow("jobs", "home", "--json", home=place.home).stdout) if each["event"] == "job"]


def _kill_all(place: Place) -> None:
    for row in _rows(place):
        if row["state"] == "running":
            tow("kill", "home", str(row["job"]), "--signal", "KILL", home=place.home)


def test_a_second_ctrl_c_leaves_also_when_nobody_reads_what_is_shown(own: Place) -> None:
    with client(own.home, "run", "home", "--", "sh", "-c", STAYS) as it:
        it.wait_full()
        it.press(signal.SIGINT)
        it.hears("Interrupting")
        it.press(signal.SIGINT)
        assert "tow attach home" in it.hears("Left running")
        assert it.process.wait(DEADLINE) == 130
    with client(own.home, "logs", "home", str(_rows(own)[0]["job"]), "--follow") as it:
        it.wait_full()
        it.press(signal.SIGTERM)
        it.hears("Interrupted")
        assert it.process.wait(DEADLINE) == 130
    _kill_all(own)


@pytest.mark.parametrize(("options", "both"), [(["--json"], False), ([], True)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_process_whose_loop_is_just_writing(
    own: Place, options: list[str], both: bool, number: signal.Signals
) -> None:
    with client(own.home, "run", "home", *options, "--", "sh", "-c", STAYS, both=both) as it:
        it.wait_full()
        it.press_until_it_ends(number)
        # By the first SIGTERM in order, where that could break off the write; else by the kernel.
        assert it.process.returncode in {-number, Exit.INTERRUPTED}
    _kill_all(own)


def test_sigterm_says_which_job_goes_on(own: Place) -> None:
    with client(own.home, "run", "home", "--", "sh", "-c", "echo ready >&2; exec sleep 60") as it:
        it.hears("ready")
        it.press(signal.SIGTERM)
        (row,) = _rows(own)
        assert f"The job {row['job']} goes on" in it.hears("Interrupted")
        assert it.process.wait(DEADLINE) == 130
        assert row["state"] == "running"
    _kill_all(own)


@pytest.mark.parametrize("targets", ["home", "home,again"])
def test_a_command_that_is_to_end_without_a_client_ends_with_one_that_is_told_to(own: Place, targets: str) -> None:
    known = KnownNodes(str(own.home))
    known.add(replace(known.find("home"), alias="again"))
    script = "echo ready >&2; exec sleep 60"
    with client(own.home, "run", targets, "--on-disconnect", "kill", "--", "sh", "-c", script) as it:
        for _ in targets.split(","):
            it.hears("ready")
        it.press(signal.SIGTERM)
        assert it.process.wait(DEADLINE) == 130
    for row in _rows(own):
        tow("attach", "home", str(row["job"]), home=own.home, expect=128 + signal.SIGTERM)


@pytest.fixture
def away() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        yield f"{host}:{port}"


def test_after_ctrl_c_nothing_begins_on_a_node_that_is_still_to_be_reached(own: Place, away: str) -> None:
    known = KnownNodes(str(own.home))
    known.add(replace(known.find("home"), alias="away", address=away, addresses=(away,)))
    words = ("run", "home,away", "--give-up", "10m", "--json", "--", "sh", "-c", "echo ready; exec sleep 60")
    process = subprocess.Popen(
        [*TOW, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment(own.home)
    )
    assert process.stdout is not None
    said: list[str] = []
    while "ready" not in "".join(said):
        said.append(process.stdout.readline().decode())
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=DEADLINE)
    hosts = {each["node"]: each for each in events(rest.decode()) if each["event"] == "host"}
    assert (hosts["home"]["signal"], hosts["away"]["error"]) == ("INT", "interrupted")
    assert process.returncode == 130
    assert {each["node"] for each in events("".join(said) + rest.decode()) if each["event"] == "reconnecting"} <= {
        "away"
    }


@contextlib.contextmanager
def starting(own: Place, targets: str) -> Iterator[Client]:
    """A client whose command, `sleep 61`, is written down on each target and not started: the keeper stands still."""
    tow("run", "home", "--detach", "--", "sleep", "60", home=own.home)
    (keeper,) = own.keepers()
    os.kill(keeper, signal.SIGSTOP)
    try:
        with client(own.home, "run", targets, "--", "sleep", "61") as it:
            deadline = time.monotonic() + DEADLINE
            with Store.open(str(own.node.data)) as store:
                while [row.argv[-1] for row in store.jobs.live()].count("61") <= targets.count(","):
                    assert time.monotonic() < deadline
            yield it
            os.kill(keeper, signal.SIGCONT)
            assert it.process.wait(DEADLINE) == 130
    finally:
        os.kill(keeper, signal.SIGCONT)


def test_ctrl_c_while_a_start_is_not_answered_says_that_it_may_run(own: Place) -> None:
    with starting(own, "home") as it:
        it.press(signal.SIGINT)
        assert "may have been started: tow jobs home" in it.hears("Interrupted")
    _kill_all(own)


def test_ctrl_c_reaches_a_command_that_is_just_being_started(own: Place) -> None:
    known = KnownNodes(str(own.home))
    known.add(replace(known.find("home"), alias="again"))
    with starting(own, "home,again") as it:
        it.press(signal.SIGINT)
        it.hears("Interrupting")
    assert {row["signal"] for row in _rows(own) if row["argv"] == ["sleep", "61"]} == {"INT"}
    _kill_all(own)
