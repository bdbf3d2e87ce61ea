"""`tow shell` on a real terminal, with a full-screen program, and what `tow run` does in a shell's hands."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.jobs.kit import Made, Place
from tests.jobs.terminals import Make, Terminal, job_of, needs
from tests.kit import DEADLINE, TOW, environment, events, tow

from towline.cli.shell import Keyboard, keys
from towline.lab.faults import FaultScript
from towline.trust.pins import KnownNodes

needs_tmux = needs("tmux")


def quit_less(terminal: Terminal) -> None:
    """less(1) drops a key that arrives together with SIGWINCH (it jumps out of its read), so it may need a second."""
    deadline = time.monotonic() + DEADLINE
    while "26\n" in terminal.screen:
        assert time.monotonic() < deadline
        terminal.type("q")
        for _ in range(100):
            if "26\n" not in terminal.screen:
                break
    terminal.type("\x15")  # what came too often is not for the shell


SHELL = ("shell", "home", "--env", "PS1=here$ ", "--", "sh")


@needs_tmux
def test_a_shell_types_resizes_and_ends_with_its_status(place: Place, terminals: Make) -> None:
    terminal = terminals(*SHELL)
    terminal.shows("here$")
    terminal.type("stty size; tty; echo $TERM\n")
    terminal.shows("24 80\n/dev/pts/")
    terminal.resize(100, 30)
    terminal.type("stty size\n")
    terminal.shows("30 100")
    terminal.type("sh -c 'echo as''leep; exec sleep 60'\n")
    terminal.shows("asleep")
    terminal.type("\x03")  # Ctrl-C is the remote command's
    terminal.type("echo status $?\n")
    terminal.shows("status 130")
    terminal.type("yes 0123456789 | head -300000; echo all of it\n")  # more than a terminal takes at once
    terminal.shows("all of it\nhere$")
    terminal.type("exit 5\n")
    assert "NDELAY" not in terminal.shows("left with 5\n")  # what a shell says about a terminal that does not block


@needs_tmux
def test_the_events_of_a_shell(place: Place, terminals: Make) -> None:
    terminal = terminals("shell", "home", "--json", "--", "sh", "-c", "printf 'raw\\n'; exit 5")
    said = terminal.shows("left with 5").replace("\n", "")  # the lines are longer than the terminal is wide
    found = [json.loads(each) for each in re.findall(r"\{.*?\}", said)]
    assert [(each["event"], each.get("status"), each.get("signal")) for each in found] == [
        ("started", None, None),
        ("exit", 5, None),
    ]
    assert {"job", "timed_out", "left_open"} <= set(found[1])


@needs_tmux
def test_a_full_screen_program_survives_a_cut(place: Place, terminals: Make) -> None:
    with place.faulty(FaultScript(seed=1)) as proxy:
        terminal = terminals(*SHELL)
        terminal.shows("here$")
        terminal.type("seq 200 | less\n")
        terminal.shows("1\n2\n3\n")
        proxy.cut()
        terminal.type(" ")  # typed while there is no connection
        terminal.shows("24\n25\n26\n")
        proxy.cut()
        terminal.type("q")
        terminal.type("echo typed on\n")
        terminal.shows("typed on\n", not_="26\n")  # the alternate screen is left, the shell's is back
        terminal.type("exit\n")
        terminal.shows("left with 0")


@needs_tmux
def test_another_terminal_attaches_to_a_full_screen_program(place: Place, terminals: Make) -> None:
    first = terminals(*SHELL)
    first.shows("here$")
    first.type("echo before\n")
    first.shows("before\nhere$")
    first.type("seq 200 | less\n")
    first.shows("1\n2\n3\n")
    job = job_of(place)
    viewer = terminals("shell", "home", "--attach", job, "--read-only")
    viewer.shows("1\n2\n3\n")
    viewer.type(" ")  # goes nowhere
    second = terminals("shell", "home", "--attach", job)
    second.shows("1\n2\n3\n")
    second.type(" ")
    for each in (first, second, viewer):
        each.shows("24\n25\n26\n")
    quit_less(second)
    second.type("echo $((6*7))\n")
    for each in (first, second, viewer):
        each.shows("42\n", not_="26\n")
    assert "before" in second.screen  # what the normal screen had
    second.type("\n~.")
    second.shows("Left running")
    first.type("exit 3\n")
    first.shows("left with 3")
    viewer.shows("left with 3")


def test_escapes_are_found_and_the_rest_goes_on() -> None:
    keyboard = Keyboard()
    assert keyboard.feed(b"a~.b") == (b"a~.b", False)
    assert keyboard.feed(b"\r~") == (b"\r", False)
    assert keyboard.feed(b"~x\r~?") == (b"~x\r", False)
    assert keyboard.wants_help
    assert keyboard.feed(b"\r~.rest") == (b"\r", True)
    keyboard = Keyboard(keys("ctrl-p,ctrl-q"))
    assert keyboard.feed(b"ab\x10") == (b"ab", False)
    assert keyboard.feed(b"c\x10\x10\x11d") == (b"\x10c\x10", True)


# --- tow run as a process ---


def test_run_passes_streams_input_and_status(place: Place) -> None:
    arguments = ("run", "home", "--", "sh", "-c", "cat; echo err >&2; exit 9")
    done = tow(*arguments, home=place.home, stdin="in put\n", expect=9)
    assert (done.stdout, done.stderr) == ("in put\n", "err\n")
    assert tow("run", "home", "--", "nosuch", home=place.home, expect=127).stderr.count("\n") == 1
    assert tow("run", "home", "--", "/etc/passwd", home=place.home, expect=126).stderr.count("\n") == 1


def test_standard_streams_that_are_closed_or_full(place: Place) -> None:
    line = f"{shlex.join([*TOW, 'run', 'home', '--', 'sh', '-c', 'cat; echo got'])}"

    def said(redirected: str) -> tuple[int, str]:
        words = ["sh", "-c", f"{line} {redirected}"]
        done = subprocess.run(words, capture_output=True, text=True, env=environment(place.home), timeout=DEADLINE)
        return done.returncode, done.stdout + done.stderr

    assert said("<&-") == (0, "got\n")
    assert said("<&- >&-") == (0, "")
    status, words = said("</dev/null >/dev/full")
    assert status == 1
    assert "The output cannot be written: No space left on device. The job" in words
    assert words.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "goes_on"),
    [
        (("run", "home"), False),
        (("run", "home", "--json"), False),
        (("run", "home", "--on-disconnect", "kill"), False),
        (("run", "home", "--on-disconnect", "keep"), True),
        (("run", "home", "--on-disconnect", "kill-after=1h", "--json"), True),
        (("run", "first,second"), False),
    ],
)
def test_when_the_reader_leaves_the_command_ends_unless_it_was_told_to_go_on(
    place: Place, tmp_path: Path, words: tuple[str, ...], goes_on: bool
) -> None:
    known = KnownNodes(str(place.home))
    for alias in ("first", "second"):
        known.add(replace(known.find("home"), alias=alias), replace=True)
    script = f": {tmp_path}; while :; do echo line; sleep 0.02; done"
    client = _left_by_its_reader([*words, "--", "sh", "-c", script], place.home)
    mine = [row for row in _rows(place) if row["argv"][-1] == script]
    assert len(mine) == (2 if "," in words[1] else 1)
    for row in mine:
        assert (row["job"] in client) == goes_on, client
        if goes_on:
            assert f"tow kill home {row['job']}" in client
            assert client.count("\n") == 1
            assert f"the job {row['job']} goes on" in _left_by_its_reader(["attach", "home", row["job"]], place.home)
            assert next(each for each in _rows(place) if each["job"] == row["job"])["state"] == "running"
            tow("kill", "home", row["job"], home=place.home)
        tow("attach", "home", row["job"], home=place.home, expect=128 + signal.SIGTERM)


def _left_by_its_reader(words: list[str], home: Path) -> str:
    """Run `tow` into a pipe whose reader leaves after the first line (of each node); its standard error."""
    client = subprocess.Popen(
        [*TOW, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
    )
    assert client.stdout is not None
    assert client.stderr is not None
    seen = set[bytes]()
    while len(seen) < len(words[1].split(",")):  # of several nodes each line begins with its name
        seen.add(client.stdout.readline().split()[0])
    client.stdout.close()
    with client.stderr as stream:
        said = stream.read().decode()
    assert client.wait(DEADLINE) == 128 + signal.SIGPIPE, said
    return said


def _rows(place: Place) -> list[dict[str, Any]]:
    return events(tow("jobs", "home", "--json", home=place.home).stdout)


def test_an_old_encoding_survives_chunk_boundaries(place: Place) -> None:
    text = "统一码"
    raw = text.encode("gbk")
    script = "; ".join(f"printf '\\{byte:03o}'; sleep 0.05" for byte in raw)
    done = tow("run", "home", "--encoding", "gbk", "--shell", script, home=place.home)
    assert done.stdout == text
    said = events(tow("run", "home", "--encoding", "gbk", "--json", "--shell", script, home=place.home).stdout)
    assert "".join(each["data"] for each in said if each["event"] == "output") == text
    assert len([each for each in said if each["event"] == "output"]) > 1


@pytest.mark.parametrize("name", ["hex", "rot13", "zlib", "idna", "punycode", "undefined", "nosuch"])
def test_what_makes_no_text_of_any_bytes_is_no_encoding(place: Place, name: str) -> None:
    done = tow("run", "home", "--encoding", name, "--", "true", home=place.home, expect=2)
    assert f"{name!r} is no text encoding" in done.stderr


def test_utf_16_with_and_without_a_mark_and_a_character_that_is_never_finished(place: Place, tmp_path: Path) -> None:
    words = ("run", "home", "--encoding", "utf-16", "--cwd", str(tmp_path), "--")
    for name in ("utf-16", "utf-16-le"):
        (tmp_path / name).write_bytes("统一码\n".encode(name))
        assert tow(*words, "cat", name, home=place.home).stdout == "统一码\n"
    known = KnownNodes(str(place.home))
    known.add(replace(known.find("home"), alias="other"), replace=True)
    for targets in ("home", "home,other"):
        words = ("run", targets, "--encoding", "gbk", "--json", "--", "printf", "ab\\304")
        shown = [each for each in events(tow(*words, home=place.home).stdout) if each["event"] == "output"]
        for node in {each.get("node") for each in shown}:
            assert "".join(each["data"] for each in shown if each.get("node") == node) == "ab�"
    done = tow("run", "home,other", "--encoding", "gbk", "--", "printf", "ab\\304", home=place.home)
    assert sorted(line for line in done.stdout.splitlines() if "|" in line) == ["home  | ab�", "other | ab�"]


def test_equal_outputs_are_one_however_long_they_are(place: Place) -> None:
    known = KnownNodes(str(place.home))
    known.add(replace(known.find("home"), alias="other"), replace=True)
    for script, heads in (
        ("seq 300000", ["--- home, other"]),
        ("seq 300000; echo $TOWLINE_JOB", ["--- home", "--- other"]),
    ):
        done = tow("run", "home,other", "--gather", "--", "sh", "-c", script, home=place.home)
        assert [line for line in done.stdout.splitlines() if line.startswith("---")] == heads
        assert done.stdout.count("[more was printed; see tow logs]") == len(heads)


def test_a_group_of_nobody_is_said_so(place: Place) -> None:
    (place.home / "config.toml").write_text("[groups]\nnone = []\n")
    (place.home / "config.toml").chmod(0o600)
    assert "no node in @none" in tow("run", "@none", "--", "true", home=place.home, expect=2).stderr


def test_ctrl_c_is_the_remote_commands(place: Place) -> None:
    script = "trap 'echo caught; exit 33' INT; echo ready; while :; do sleep 1; done"
    client = subprocess.Popen(
        [*TOW, "run", "home", "--json", "--", "sh", "-c", script],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(place.home),
    )  # fmt: skip
    assert client.stdout is not None
    for line in client.stdout:
        if json.loads(line).get("data") == "ready\n":
            break
    client.send_signal(signal.SIGINT)
    said = events(client.stdout.read().decode())
    assert client.wait(DEADLINE) == 33
    assert [each["event"] for each in said] == ["interrupt", "output", "exit"]
    client.stdout.close()


def test_a_second_ctrl_c_leaves_it_running(place: Place) -> None:
    script = "trap : INT; echo ready; while :; do sleep 1; done"
    client = subprocess.Popen(
        [*TOW, "run", "home", "--json", "--on-disconnect", "kill", "--", "sh", "-c", script],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(place.home),
    )  # fmt: skip
    assert client.stdout is not None
    job = ""
    for line in client.stdout:
        said = json.loads(line)
        job = said.get("job", job)
        if said.get("data") == "ready\n":
            client.send_signal(signal.SIGINT)
        if said["event"] == "interrupt":
            client.send_signal(signal.SIGINT)
    assert client.wait(DEADLINE) == 130
    client.stdout.close()
    rows = {row["job"]: row for row in events(tow("jobs", "home", "--json", home=place.home).stdout)}
    assert rows[job]["state"] == "running"  # whoever says goodbye has not lost the connection
    tow("kill", "home", job, "--signal", "KILL", home=place.home)
    tow("attach", "home", job, home=place.home, expect=137)


def test_several_nodes_one_of_them_away(place: Place) -> None:
    known = KnownNodes(str(place.home))
    home = known.find("home")
    for alias, address in (("web1", home.address), ("web2", home.address), ("away", "127.0.0.1:1")):
        known.add(replace(home, alias=alias, address=address, addresses=(address,)), replace=True)
    (place.home / "config.toml").write_text('[groups]\nweb = ["web1", "web2"]\n')
    (place.home / "config.toml").chmod(0o600)
    done = tow("run", "@web,away", "--", "echo", "hi", home=place.home, expect=6)
    assert sorted(line for line in done.stdout.splitlines() if "|" in line) == ["web1 | hi", "web2 | hi"]
    assert "away" in done.stdout
    done = tow("run", "@web", "--gather", "--", "sh", "-c", "echo same; exit 3", home=place.home, expect=3)
    assert done.stdout.count("same") == 1
    assert "--- web1, web2" in done.stdout
    said = events(tow("run", "@web", "--json", "--", "true", home=place.home).stdout)
    assert sorted(each["node"] for each in said if each["event"] == "host") == ["web1", "web2"]
    raw = "".join(f"\\{byte:03o}" for byte in "统一码".encode("gbk"))
    done = tow("run", "@web", "--encoding", "gbk", "--shell", f"printf '{raw}'", home=place.home)
    assert sorted(line for line in done.stdout.splitlines() if "|" in line) == ["web1 | 统一码", "web2 | 统一码"]


def test_ctrl_c_is_all_commands_of_several_nodes(place: Place) -> None:
    """… and who had not begun does not; a second one leaves them running."""
    known = KnownNodes(str(place.home))
    home = known.find("home")
    for alias in ("one", "two", "three"):
        known.add(replace(home, alias=alias), replace=True)

    def start(script: str, *options: str) -> subprocess.Popen[bytes]:
        words = [*TOW, "run", "one,two,three", *options, "--json", "--", "sh", "-c", script]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment(place.home))

    script = "trap 'exit 33' INT; echo ready; while :; do sleep 1; done"
    client = start(script, "--parallel", "2")
    assert client.stdout is not None
    ready = 0
    while ready < 2:
        ready += json.loads(client.stdout.readline()).get("data") == "ready\n"
    client.send_signal(signal.SIGINT)
    said = {each["node"]: each for each in events(client.stdout.read().decode()) if each["event"] == "host"}
    assert client.wait(DEADLINE) == 130
    assert sorted(str(each["status"]) for each in said.values()) == ["33", "33", "None"]
    client.stdout.close()
    client = start(script.replace("exit 33", ":"))
    assert client.stdout is not None
    jobs, ready, pressed = set(), 0, 0
    for line in client.stdout:
        each = json.loads(line)
        jobs |= {each["job"]} if each["event"] == "started" else set()
        ready += each.get("data") == "ready\n"
        if (ready == 3 and not pressed) or (each["event"] == "interrupt" and pressed == 1):
            pressed += 1
            client.send_signal(signal.SIGINT)
    assert client.wait(DEADLINE) == 130
    client.stdout.close()
    rows = {row["job"]: row for row in events(tow("jobs", "home", "--json", home=place.home).stdout)}
    assert {rows[job]["state"] for job in jobs} == {"running"}
    for job in jobs:
        tow("kill", "home", job, "--signal", "KILL", home=place.home)


def test_the_spool_sizes_are_checked(make_place: Made) -> None:
    assert "not a size" in tow("serve", "--spool", "much", home="/nonexistent", expect=2).stderr
