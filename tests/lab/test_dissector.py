"""The Wireshark dissector: derived from the frame table, and tried with tshark on frames captured inside TLS."""

from __future__ import annotations

import asyncio
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from towline.cli.main import main
from towline.lab.capture import Capture
from towline.lab.dissector import lua
from towline.lab.exhibits import frames
from towline.lab.wiretap import WireTap
from towline.protocol.table import FRAMES

_TSHARK = shutil.which("tshark")


def test_every_kind_of_the_table_is_in_it() -> None:
    source = lua()
    for kind, spec in FRAMES.items():
        assert f'[{kind}] = "{spec.name}"' in source
        assert spec.meaning.replace('"', '\\"') in source
    assert "@" not in source.replace("--", "").split("local KINDS")[0]


def test_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "dissector"]) == 0
    assert capsys.readouterr().out.strip() == lua().strip()


def write_pcap(path: Path, captured: list[bytes]) -> None:
    """The classic format: a file header (link type 1, Ethernet), then each frame behind its own."""
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, 1))
        for number, frame in enumerate(captured):
            file.write(struct.pack("=IIII", number, 0, len(frame), len(frame)) + frame)


@pytest.mark.skipif(_TSHARK is None, reason="tshark is not installed; see tools/debian.sh")
def test_tshark_shows_the_frames_inside_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = Capture.open()
    if not isinstance(capture, Capture):
        pytest.skip(f"no packet socket: {capture}")
    keys = tmp_path / "keys.log"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keys))
    # The relay listens on a free port of its own choice; it is watched from the moment it is known.
    start = frames.FaultProxy.start

    async def watched(proxy: frames.FaultProxy) -> str:
        address = await start(proxy)
        capture.watch([int(address.rsplit(":", 1)[1])])
        return address

    monkeypatch.setattr(frames.FaultProxy, "start", watched)
    monkeypatch.setattr(frames, "SIZE", 50_000)
    monkeypatch.setattr(frames, "CUT", 30_000)
    work = tmp_path / "work"
    work.mkdir()
    asyncio.run(frames.upload_with_a_cut(str(work), WireTap(lambda event: None)))
    write_pcap(tmp_path / "t.pcap", [seen.frame for seen in capture.drain()])
    capture.close()
    script = tmp_path / "towline.lua"
    script.write_text(lua())
    command = [str(_TSHARK), "-r", str(tmp_path / "t.pcap"), "-o", f"tls.keylog_file:{keys}"]
    command += ["-X", f"lua_script:{script}", "-Y", "towline", "-T", "fields"]
    command += ["-e", "towline.kind", "-e", "towline.stream", "-e", "towline.magic", "-e", "towline.header"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment)
    assert done.returncode == 0, done.stderr
    assert "lua" not in done.stderr.lower() or "root" in done.stderr.lower(), done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    kinds = {number for row in rows for number in row[0].split(",") if number}
    assert {"1", "2", "3", "4", "5", "6", "8"} <= kinds, "HELLO, PROVE, WELCOME, OPEN, ACCEPT, DATA, END"
    assert sum("TOWLINE" in row[2] for row in rows) == 4, "two connections, both ends"
    assert any("files" in row[3] for row in rows)
