"""`tow lab` as a person and a script meet it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from towline.base.errors import DiskError, ExhibitFailed, Exit, NotFound
from towline.cli.main import main
from towline.lab.exhibits import NAMES


@pytest.fixture(autouse=True)
def plain_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)


def test_the_list_names_every_exhibit_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab"]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    for name in NAMES:
        assert len([line for line in lines if line.strip().startswith(f"{name} ")]) == 1
    assert max(map(len, lines)) <= 80


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "--json"]) == Exit.OK
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["name"] for event in events] == list(NAMES)
    assert {(event["v"], event["event"]) for event in events} == {(1, "exhibit")}


@pytest.mark.parametrize(
    ("environment", "chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_TW.UTF-8", "LC_ALL": "C"}, False),
        ({"LC_MESSAGES": "zh_CN", "LANG": "en_US.UTF-8"}, True),
        ({"LANG": "de_DE.UTF-8"}, False),
    ],
)
def test_the_locale_chooses_the_language(
    environment: dict[str, str],
    chinese: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    main(["lab"])
    assert ("展品" in capsys.readouterr().out) is chinese


def test_lang_overrides_the_locale(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert main(["lab", "udp-boundary", "--lang", "en"]) == Exit.OK
    assert "Question" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--code", "udp-boundary"], ["udp-boundary", "--code"]])
def test_code_is_printed_before_or_after_the_name(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", *arguments]) == Exit.OK
    assert "def read_three(" in capsys.readouterr().out


def test_json_is_one_object_a_line_and_ends_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "sticky-recv", "--json"]) == Exit.OK
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["v"] for event in events} == {1}
    assert events[0]["event"] == "exhibit"
    assert events[-1] == {**events[-1], "event": "verdict", "exhibit": "sticky-recv", "holds": True}
    calls = [event for event in events if event["event"] == "call"]
    assert any(event["call"] == "recv" and event["asked"] == 12 and event["returned"] == 12 for event in calls)


def test_a_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "ladder.svg"
    assert main(["lab", "udp-boundary", "--svg", str(target)]) == Exit.OK
    assert ET.parse(target).getroot().tag.endswith("svg")
    assert str(target) in capsys.readouterr().err


def test_a_picture_that_cannot_be_written_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "udp-boundary", "--svg", str(tmp_path / "no" / "such.svg")]) != Exit.OK
    error = capsys.readouterr().err
    assert "could not be written" in error
    assert error.count("\n") == 1


def test_a_folder_for_pictures_that_cannot_be_made_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["lab", "all", "--svg", str(tmp_path / "file" / "in")]) == DiskError.exit_status
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "could not be made" in said.err


def test_a_recorded_command_ends_in_its_own_way_when_interrupted(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    os.mkfifo(go_on)
    command = f"trap 'echo got it; read line < \"{go_on}\"; exit 7' INT; echo ready; while :; do read line; done"
    # Whoever runs us may ignore SIGINT, as a shell makes its background jobs do, and nobody can trap what is ignored.
    tow_record = ("env", "--default-signal=INT", sys.executable, "-m", "towline.cli.main", "lab", "record")
    process = subprocess.Popen(
        [*tow_record, "--out", str(tmp_path / "x.tap"), "--", "sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdin is not None
        process.stdin.write("\n")  # dash looks at its traps between two commands
        process.stdin.flush()
        assert process.stdout.readline() == "got it\n"
        go_on.write_text("\n")
        _, said = process.communicate(timeout=20)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # the command, too: without input it would turn for ever
        process.communicate()
        raise
    assert process.returncode == 7
    assert "Nothing was recorded" in said


def test_a_command_that_is_none_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise").write_bytes(b"\x00\x01")
    (tmp_path / "noise").chmod(0o755)
    for command in (str(tmp_path / "noise"), "x" * 5000):
        assert main(["lab", "record", "--out", str(tmp_path / "x.tap"), "--", command]) == NotFound.exit_status
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "cannot be executed" in said


def test_an_unknown_exhibit_is_a_sentence_and_status_4(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "nagel"]) == Exit.NOT_FOUND
    error = capsys.readouterr().err
    assert "nagle" in error
    assert error.count("\n") == 1


def test_a_word_too_many_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "nagle", "handshake"]) == Exit.USAGE
    assert "handshake" in capsys.readouterr().err


def test_the_fault_proxy_is_reached_through_the_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "faults", "--help"]) == Exit.OK
    assert "--cut-every" in capsys.readouterr().out
    assert main(["lab", "faults"]) == Exit.USAGE


def test_a_terminal_without_utf8_gets_an_answer_all_the_same() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LANG": "zh_CN.GBK"}
    command = [sys.executable, "-m", "towline.cli.main", "lab"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=30)
    assert done.returncode == 0
    assert b"sticky-send" in done.stdout
    assert done.stderr == b""


@pytest.mark.parametrize("arguments", [["sticky-send", "--code"], ["all"]])
def test_output_that_cannot_be_written_is_no_bug(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "towline.cli.main", "lab", *arguments]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == DiskError.exit_status
    assert set(done.stderr.partition(b": ")[2].splitlines()[:1]) == {
        b"The output cannot be written: No space left on device."
    }


def test_a_reader_who_leaves_is_told_from_a_failure() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", "towline.cli.main", "lab", "sticky-send"]
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_machine_that_does_not_let_an_exhibit_run_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(recorder: object) -> None:
        raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))

    monkeypatch.setattr("towline.lab.exhibits.sticky_send.run", no_network)
    assert main(["lab", "sticky-send"]) == ExhibitFailed.exit_status
    assert capsys.readouterr().err == "tow lab: This machine does not let it run: Network is unreachable.\n"
