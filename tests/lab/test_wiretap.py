"""The tap on Towline's own frames: it reads along in any pieces, tells no secret and no payload, and is bounded."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import ConnectionLost, DiskError, Exit, UsageError
from towline.cli.main import main
from towline.lab import tapped, wiretap
from towline.lab.wire_words import meaning
from towline.lab.wiretap import FrameReader, Seen, TapFile, WireTap, redacted
from towline.node import Node, NodeConfig
from towline.protocol.codec import Frame, encode
from towline.protocol.table import FRAMES, PREFACE, Kind
from towline.runtime import watching

_FRAMES = [
    Frame(Kind.HELLO, header={"agent": "a", "nonce": "00" * 32, "limits": {}}),
    Frame(Kind.OPEN, stream=1, header={"service": "files", "path": "secret plans.txt"}),
    Frame(Kind.DATA, stream=1, body=b"payload that nobody should read"),
    Frame(Kind.CREDIT, stream=1, body=(77).to_bytes(8)),
    Frame(Kind.END, stream=1),
]
_WIRE = PREFACE + b"".join(encode(frame) for frame in _FRAMES)


def read(pieces: list[bytes], keep: int = 0) -> list[Seen | bytes]:
    reader = FrameReader(keep)
    return [seen for piece in pieces for seen in reader.feed(piece)]


@given(cuts=st.lists(st.integers(0, len(_WIRE)), max_size=20))
def test_any_split_of_the_bytes_gives_the_same_frames(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(_WIRE)]
    pieces = [_WIRE[start:end] for start, end in pairwise(edges)]
    assert read(pieces, keep=8) == read([_WIRE], keep=8)


def test_frames_are_placed_and_measured() -> None:
    preface, *frames = read([_WIRE], keep=7)
    assert preface == PREFACE
    at = len(PREFACE)
    for frame, seen in zip(_FRAMES, frames, strict=True):
        assert isinstance(seen, Seen)
        assert (seen.start, seen.kind, seen.stream, seen.size) == (at, frame.kind, frame.stream, len(frame.body))
        assert seen.body == bytes(frame.body)[:7]
        at += seen.wire_size
    assert at == len(_WIRE)


@given(noise=st.binary(max_size=200))
def test_noise_ends_the_reading_and_nothing_else(noise: bytes) -> None:
    read([noise])
    read([PREFACE + noise])
    read([_WIRE[:100] + noise])


class _Connection:
    """What the tap looks at of a connection."""

    def __init__(self) -> None:
        from towline.protocol.table import Role
        from towline.transports import Peer

        self.peer = Peer("tcp", "192.0.2.1:7440")
        self.session = type("Session", (), {"role": Role.CLIENT})()


def tap_of(*, payload: bool) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    tap = WireTap(events.append, payload=payload)
    connection = _Connection()
    tap.on_bytes(connection, True, [_WIRE[:50], memoryview(_WIRE)[50:]])  # type: ignore[arg-type]
    tap.on_over(connection, ConnectionLost("The cable \x1b[31mbroke."))  # type: ignore[arg-type]
    return events


def test_payload_and_names_are_left_out_by_default() -> None:
    events = tap_of(payload=False)
    assert [event["event"] for event in events] == ["connection", "preface", *["frame"] * 5, "over"]
    assert [event["kind"] for event in events if event["event"] == "frame"] == [
        Kind(frame.kind).name for frame in _FRAMES
    ]
    text = json.dumps(events)
    assert "payload" not in text
    assert "secret plans" not in text
    assert "16 characters" in text, "its length is told"
    assert "\\u001b" not in text, "a peer's words pass the text gate"


def test_payload_is_kept_when_asked_for() -> None:
    events = tap_of(payload=True)
    data = next(event for event in events if event.get("kind") == "DATA")
    assert base64.b64decode(data["body"]) == b"payload that nobody should read"
    assert "secret plans" in json.dumps(events)


@pytest.mark.parametrize("kind", list(Kind))
def test_secrets_are_never_told(kind: Kind) -> None:
    secrets = {field.name: "hush-hush" for field in FRAMES[kind].fields if field.secret}
    header = json.dumps(secrets | {"agent": "x"}).encode()
    events: list[dict[str, Any]] = []
    for payload in (False, True):
        tap = WireTap(events.append, payload=payload)
        wire = PREFACE + bytes([kind, 0]) + len(header).to_bytes(2) + bytes(8) + header
        tap.on_bytes(_Connection(), True, [wire])  # type: ignore[arg-type]
    assert "hush" not in json.dumps(events)
    assert json.dumps(events).count("9 characters") == 2 * len(secrets)


def test_what_an_error_quotes_is_left_out() -> None:
    header = redacted(Kind.RESET, {"code": 301, "message": '"my diary.txt": there is nothing with that name.'})
    assert header["message"] == '"…": there is nothing with that name.'


def test_a_recording_stops_growing_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiretap, "TAP_FILE", type(wiretap.TAP_FILE)("tap_file", 2000, "bytes", "small, for the test"))
    path = tmp_path / "t.tap"
    file = TapFile(str(path), payload=False)
    for number in range(1000):
        file({"v": 1, "event": "connection", "at": 0.0, "connection": number, "role": "client", "peer": ""})
    file.close()
    assert path.stat().st_size < 2200
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tapped.load(str(path)).scenes[-1].name == "left-out"


def test_a_recording_of_the_whole_house(tmp_path: Path) -> None:
    """A node and a client in this process: the tap sees each frame at both ends, and the same ones."""
    events: list[dict[str, Any]] = []

    async def talk() -> None:
        from towline.client.connect import local_line

        async with Node(NodeConfig(data=str(tmp_path / "n"), listen=None)) as node:
            watching.watch(WireTap(events.append))
            try:
                async with local_line(str(node.listening.unix)) as line:
                    channel = await line.channel({"service": "echo"})
                    await channel.send(b"hello")
                    assert (await channel.receive()).body == b"hello"  # type: ignore[union-attr]
                    channel.end()
            finally:
                watching.watch(None)

    asyncio.run(talk())
    roles = {event["connection"]: event["role"] for event in events if event["event"] == "connection"}
    assert sorted(roles.values()) == ["client", "node"]
    told = {role: [] for role in roles.values()}  # type: ignore[var-annotated]
    for event in events:
        if event["event"] == "frame" and event["kind"] not in {"GOAWAY", "END"}:
            told[roles[event["connection"]]].append((event["sender"], event["kind"], event["start"]))
    assert sorted(told["client"]) == sorted(told["node"])
    assert {"HELLO", "PROVE", "WELCOME", "OPEN", "DATA"} <= {kind for _, kind, _ in told["client"]}
    scenes = tapped.recording(events, name="x").scenes
    assert len(scenes) == 2
    assert [event.detail for event in scenes[0].calls("frame")][:2] == ["TOWLINE", "HELLO"]


def test_runs_of_bulk_are_one_line() -> None:
    events: list[dict[str, Any]] = []
    wire = PREFACE + b"".join(encode(Frame(Kind.DATA, stream=1, body=b"x" * 100)) for _ in range(50))
    WireTap(events.append).on_bytes(_Connection(), True, [wire])  # type: ignore[arg-type]
    (scene,) = tapped.recording(events, name="x").scenes
    assert [event.detail for event in scene.events] == ["TOWLINE", "DATA stream 1 × 50"]
    assert scene.events[1].text == {"en": "5000 bytes", "zh": "5000 bytes"}


def test_every_kind_is_explained_in_both_languages() -> None:
    for kind in Kind:
        assert any("\u4e00" <= char <= "\u9fff" for char in meaning(kind)["zh"])
        assert meaning(kind)["en"] == FRAMES[int(kind)].meaning


# --- the command line ---


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"{}",
        b"[1]",
        b'{"event":"tap"}\n7',
        b"\xff\xfe",
        b'{"event":"tap"}\n{}',
        b'{"event":"tap"}\n' + b"[" * 100_000,
        b'{"event":"tap"}\n{"event":"left-out","events":1e999}',
        (
            b'{"event":"tap"}\n{"event":"connection","connection":1,"role":"","peer":""}\n'
            b'{"event":"over","connection":1,"at":NaN}'
        ),
    ],
)
def test_what_is_no_recording_is_refused_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no recording"):
        tapped.load(str(path))


def test_a_recording_of_somebody_else_says_nothing_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.tap"
    bad = "\x1b[2J"
    frame = {"event": "frame", "at": 0.1, "connection": 1, "sender": bad, "kind": bad, "stream": 0, "flags": [bad]}
    events: list[dict[str, Any]] = [
        {"event": "tap", "payload": True},
        {"event": "connection", "at": 0, "connection": 1, "role": bad, "peer": bad},
        frame | {"start": 0, "size": 1, "body_size": 1, "text": bad},
        {"event": "over", "at": 0.2, "connection": 1, "name": bad, "reason": bad},
    ]
    path.write_text("\n".join(map(json.dumps, events)))
    assert main(["lab", "show", str(path), "--svg", str(tmp_path / "x.svg")]) == Exit.OK
    assert "\x1b" not in capsys.readouterr().out
    assert "\x1b" not in (tmp_path / "x.svg").read_text()


def test_a_missing_recording_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DiskError):
        tapped.load(str(tmp_path / "none"))
    assert main(["lab", "show", str(tmp_path / "none")]) != Exit.OK
    assert capsys.readouterr().err.count("\n") == 1


def test_a_recording_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, picture = tmp_path / "x.tap", tmp_path / "x.svg"
    path.write_text("\n".join(map(json.dumps, [{"v": 1, "event": "tap", "payload": False}, *tap_of(payload=False)])))
    assert main(["lab", "show", str(path), "--svg", str(picture), "--lang", "en"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "OPEN stream 1 ─▶" in shown
    assert "broke." in shown
    assert picture.read_text().startswith("<svg")
    assert main(["lab", "show", str(path), "--json"]) == Exit.OK
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["event"] for event in events[:2]] == ["scene", "call"]


def test_a_recording_that_ends_in_the_middle_of_a_line_is_shown_up_to_there(tmp_path: Path) -> None:
    """A node's may be looked at while it grows, and one of a command that was killed has all that was written."""
    path = tmp_path / "x.tap"
    lines = [json.dumps(each) + "\n" for each in ({"v": 1, "event": "tap", "payload": False}, *tap_of(payload=False))]
    path.write_text("".join(lines[:-1]))
    whole = tapped.load(str(path))
    path.write_text("".join(lines[:-1]) + lines[-1][:20])
    assert tapped.load(str(path)) == whole


def test_a_command_without_connections_records_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.tap"
    status = main(["lab", "record", "--out", str(out), "--", sys.executable, "-c", "raise SystemExit(7)"])
    assert status == 7, "the command's own status"
    assert "Nothing was recorded" in capsys.readouterr().err
    assert main(["lab", "record", "--out", str(out), "--", "/no/such/command"]) == Exit.NOT_FOUND
    assert main(["lab", "record"]) == Exit.USAGE


def test_a_command_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real node in this process, a real `tow` beside it, recorded."""
    home, out = tmp_path / "home", tmp_path / "x.tap"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("TOWLINE_HOME", str(home))

    async def record() -> tuple[int, int]:
        from towline.client.connect import local_line
        from towline.client.joining import join

        async with Node(NodeConfig(data=str(tmp_path / "n"), listen="127.0.0.1:0", name="home")) as node:
            async with local_line(str(node.listening.unix)) as line:
                request = {"service": "admin", "op": "invite", "name": "ann", "can": "read", "for": 60.0}
                answer = await (await line.channel(request)).receive()
            assert answer is not None
            await join(str(json.loads(answer.body)), "home", home=str(home))
            command = ["lab", "record", "--out", str(out), "--", "ping", "home", "--count", "1"]
            first = await asyncio.create_subprocess_exec(sys.executable, "-m", "towline.cli.main", *command)
            return await first.wait(), os.stat(out).st_mode & 0o777

    assert asyncio.run(record()) == (0, 0o600)
    (scene,) = tapped.load(str(out)).scenes
    kinds = [event.detail.split()[0] for event in scene.calls("frame")]
    assert kinds[:4].count("HELLO") == 2
    assert "WELCOME" in kinds


def test_a_node_records_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tow serve --tap`: a client comes and goes, the node ends, the recording is whole."""
    monkeypatch.setenv("TOWLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    out = tmp_path / "node.tap"
    command = [sys.executable, "-m", "towline.cli.main", "serve", "--json", "--listen", "none", "--tap", str(out)]
    node = subprocess.Popen([*command, "--data", str(tmp_path / "n")], stdout=subprocess.PIPE)
    assert node.stdout is not None
    try:
        first = json.loads(node.stdout.readline())
        assert first["event"] == "listening"

        async def talk() -> None:
            from towline.client.connect import local_line

            async with local_line(first["unix"]) as line:
                channel = await line.channel({"service": "echo"})
                await channel.send(b"between us")
                await channel.receive()

        asyncio.run(talk())
    finally:
        node.send_signal(signal.SIGTERM)
        node.communicate(timeout=20)
    assert node.returncode == 0
    (scene,) = tapped.load(str(out)).scenes
    assert scene.facts["role"] == "node"
    assert [event.detail for event in scene.calls("frame", who="client")][:3] == ["TOWLINE", "HELLO", "PROVE"]
    assert "between us" not in out.read_text()
    assert base64.b64encode(b"between us").decode() not in out.read_text()
