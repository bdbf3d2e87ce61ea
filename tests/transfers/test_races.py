"""Somebody else, or a lane's end, at an awkward moment of a transfer."""

from __future__ import annotations

import os
import queue
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from tests.transfers.kit import KIB, Town, partials, rubbish, write

from towline.base.errors import Conflict, ConnectionLost
from towline.base.limits import FRAME_BODY
from towline.client.line import Line
from towline.protocol.codec import Buffer, Header
from towline.protocol.table import Class, Kind
from towline.runtime.channel import Channel
from towline.runtime.lanes import LaneFrame
from towline.services.files import sources
from towline.services.files.digests import DigestCache
from towline.services.files.messages import Outcome, encode_rows
from towline.services.files.pace import Pace
from towline.services.files.plan import Entry, encode_batch
from towline.services.files.sender import Sender
from towline.services.files.sources import TreeSource
from towline.services.files.tree import Root

CHUNK = FRAME_BODY.value
MOST_BEGUN = 96


class Frail:
    """A lane that carries so many frames and is lost then; what came out at its other end."""

    def __init__(self, frames: int = 1 << 30) -> None:
        self.left = frames
        self.frames: list[tuple[Kind, Header]] = []
        self.body = b""

    def send(self, kind: Kind, header: Header | None = None, body: Buffer = b"") -> None:
        if not self.left:
            raise ConnectionLost
        self.left -= 1
        self.frames.append((kind, header or {}))
        self.body += bytes(body)

    def receive(self) -> LaneFrame | None:
        return None

    def read_body(self, target: memoryview) -> int:
        return 0

    def shutdown(self) -> None:
        self.left = 0

    def close(self) -> None:
        """Nothing is held."""


class Sending:
    """A sender of one folder, and what it says."""

    def __init__(self, folder: Path, places: int = MOST_BEGUN) -> None:
        self.said: queue.Queue[Header] = queue.Queue()
        source = TreeSource(Root.open(str(folder)), "", links="skip", digests=DigestCache())
        self.sender = Sender(
            source, lambda header, _: self.said.put(header), after=None, lanes=1, pace=Pace(0), places=MOST_BEGUN
        )
        self.source = source
        batch = self.sender.next_batch(lambda _: False)
        assert batch is not None
        self.planned = batch[1]

    def want(self, *indexes: int) -> None:
        self.sender.on_want(encode_rows([[index, 1] for index in indexes]))

    def close(self) -> None:
        self.sender.close()
        self.source.close()


@pytest.mark.parametrize("frames", range(5))
def test_a_large_file_ends_whichever_frame_of_it_its_lane_is_lost_at(tmp_path: Path, frames: int) -> None:
    content = rubbish(2 * CHUNK + 7)
    write(tmp_path / "file", content)
    sending = Sending(tmp_path)
    sending.want(0)
    first, second = Frail(frames), Frail()
    sending.sender.drive(first, 1)
    assert sending.said.get(timeout=20) == {"t": "lane-over", "lane": 1}
    missing = [[0, len(first.body), len(content)]] if first.frames else []
    sending.sender.on_lane_over({"lane": 1, "next": len(missing), "missing": missing})
    driving = threading.Thread(target=sending.sender.drive, args=(second, 2))
    driving.start()
    assert sending.said.get(timeout=20) == {
        "t": "sent",
        "file": 0,
        "digest": blake3(content).hexdigest(),
        "size": len(content),
    }
    sending.close()
    driving.join(20)
    assert first.body + second.body == content


def test_not_all_wanted_files_are_open_at_once(tmp_path: Path) -> None:
    """Others begin as the first ones get their outcomes; one that did not verify need not wait for that."""
    for number in range(MOST_BEGUN + 10):
        write(tmp_path / f"{number:04}", b"%070000d" % number)
    sending = Sending(tmp_path)
    sending.want(*range(MOST_BEGUN + 10))
    lane = Frail()
    driving = threading.Thread(target=sending.sender.drive, args=(lane, 1))
    before = len(os.listdir("/proc/self/fd"))
    driving.start()
    sent = [sending.said.get(timeout=20) for _ in range(MOST_BEGUN)]
    assert [header["file"] for header in sent] == list(range(MOST_BEGUN))
    assert len(os.listdir("/proc/self/fd")) <= before + MOST_BEGUN + 2
    sending.sender.on_resume({"t": "resume", "file": 7, "start": 0, "covered": 0}, encode_rows([[0, 70000]]))
    assert sending.said.get(timeout=20)["file"] == 7
    assert len(lane.frames) == 3 * (MOST_BEGUN + 1)
    for index in range(MOST_BEGUN):
        sending.sender.resolve([Outcome(index, 70000, "")])
    assert sorted(sending.said.get(timeout=20)["file"] for _ in range(10)) == list(range(MOST_BEGUN, MOST_BEGUN + 10))
    sending.close()
    driving.join(20)
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize("places", [1, 2, 5])
def test_however_few_files_a_receiver_takes_at_once_all_are_sent(tmp_path: Path, places: int) -> None:
    for number in range(12):
        write(tmp_path / f"{number:02}", b"%070000d" % number)
    sending = Sending(tmp_path, places)
    sending.want(*range(12))
    driving = threading.Thread(target=sending.sender.drive, args=(Frail(), 1))
    driving.start()
    for number in range(12):
        assert sending.said.get(timeout=20)["file"] == number
        sending.sender.resolve([Outcome(number, 70000, "")])
    sending.close()
    driving.join(20)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("small", [[1], [-1], [True], [1 << 70]]),
        ("small", [[0, 0, 10]]),
        ("small", [[]]),
        ("small", {"0": 1}),
        ("small", [0]),
        ("large", [[1]]),
        ("large", [[0, 0, 100 * KIB]]),
        ("large", [[1, -5, 100 * KIB]]),
        ("large", [[1, 1 << 70, 100 * KIB]]),
        ("large", [[1, 0, -1]]),
        ("large", [[1, 0, 1 << 70]]),
        ("large", [[1, 0, 100 * KIB]] * 2),
        ("large", [[1, [], 100 * KIB]]),
    ],
    ids=range(13),
)
def test_a_receiver_that_misses_what_never_went_out(tmp_path: Path, name: str, missing: Any) -> None:
    """A report asks for no more than the lane brought; what cannot be of it is not sent."""
    write(tmp_path / "a-small", b"0123456789")
    write(tmp_path / "b-large", b"x" * 100 * KIB)
    write(tmp_path / "c-other", b"other")
    sending = Sending(tmp_path)
    assert [entry.path for entry in sending.planned] == ["a-small", "b-large", "c-other"]
    sending.want(["small", "large"].index(name))
    sending.sender.drive(Frail(2), 1)  # all but the END
    sending.sender.on_lane_over({"lane": 1, "next": 1, "missing": missing})
    sending.want(2)
    after = Frail(2)
    sending.sender.drive(after, 2)
    sending.close()
    assert after.body[44:] == b"other"


def test_small_files_that_a_receiver_misses_go_again_once(tmp_path: Path) -> None:
    write(tmp_path / "a", b"aaa")
    write(tmp_path / "b", b"bbb")
    sending = Sending(tmp_path)
    sending.want(0, 1)
    sending.sender.drive(Frail(2), 1)
    sending.sender.on_lane_over({"lane": 1, "next": 1, "missing": [[1]] * 1000})
    after = Frail(2)
    sending.sender.drive(after, 2)
    sending.close()
    assert [kind for kind, _ in after.frames] == [Kind.OPEN, Kind.DATA]
    assert after.body[44:] == b"bbb"


def test_a_tree_is_counted_whatever_stands_where_the_counting_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_AHEAD", 2)
    for name in (".towline-of somebody", ".towline-two", "a", "b"):
        write(tmp_path / name, b"12345")
    with Root.open(str(tmp_path)) as root:
        source = TreeSource(root, "", links="skip", digests=DigestCache())
        assert source.totals() == (2, 10)
        assert [one.path for one in source.entries(None) if isinstance(one, Entry)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["small", "large", "link"])
@pytest.mark.parametrize(
    ("overwrite", "age", "ends"),
    [
        ("always", 5, "done"),
        ("never", 5, "fail"),
        ("older", 1, "done"),
        ("older", 5, "kept"),
        ("never", 1, "same"),
        ("older", 1, "same"),
    ],
)
def test_somebody_writes_the_same_file_into_a_folder_that_was_just_made(
    town: Town, kind: str, overwrite: str, age: int, ends: str
) -> None:
    """Theirs has the time `age`, ours 3: the flag holds for what came meanwhile, too."""
    ours = b"o" * (100 * KIB if kind == "large" else 4)
    theirs = town.share / "t" / "new" / "file"

    def come() -> None:
        if ends == "same" and kind == "link":
            theirs.symlink_to("ours")
        else:
            write(theirs, ours if ends == "same" else b"theirs", mtime=age)

    async def bring(lane: Channel) -> None:
        if kind == "large":
            await lane.send(b"", {"kind": int(Kind.OPEN), "range": {"n": 0, "file": 1, "from": 0, "to": len(ours)}})
            await lane.send(ours)
        else:
            await lane.send(b"", {"kind": int(Kind.OPEN), "range": {"n": 0, "pack": 1}})
            await lane.send(struct.pack(">QI32s", 1, 4, blake3(ours).digest()) + ours)
        await lane.send(b"", {"kind": int(Kind.END), "range": {}})

    async def work(line: Line) -> tuple[Header, bytes]:
        connection = await line.connection()
        request = {"service": "files", "op": "put", "transfer": "t1", "share": "files", "path": "t", "kind": "dir"}
        channel = connection.open({**request, "lanes": 1, "overwrite": overwrite}, Class.CHAT)
        await channel.accepted()
        lane = connection.open({"service": "files", "op": "lane", "transfer": "t1", "lane": 1}, Class.BULK)
        await lane.accepted()
        await channel.send(encode_batch([Entry("new", "dir", 0, 1, 0o755)]), {"t": "plan", "first": 0})
        await channel.receive()
        entry = Entry("new/file", "file", len(ours), 3, 0o644)
        if kind == "link":
            entry = Entry("new/file", "link", 0, 3, 0o777, "ours")
            come()
        await channel.send(encode_batch([entry]), {"t": "plan", "first": 1})
        async for message in channel.messages():
            header = message.header or {}
            if header.get("t") == "want":
                come()
                await bring(lane)
                if kind == "large":
                    sent = {"t": "sent", "file": 1, "digest": blake3(ours).hexdigest(), "size": len(ours)}
                    await channel.send(b"", sent)
            elif header.get("t") in ("done", "fail"):
                return header, message.body
        raise AssertionError("no outcome")

    outcome, rows = town.with_line(work)
    assert outcome["t"] == ("fail" if ends == "fail" else "done")
    assert outcome.get("code", Conflict.code) == Conflict.code
    assert [note for note in ("kept", "same") if note.encode() in rows] == [ends] * (ends in ("kept", "same"))
    now = os.readlink(theirs).encode() if theirs.is_symlink() else theirs.read_bytes()
    assert now == ((b"ours" if kind == "link" else ours) if ends in ("done", "same") else b"theirs")
    assert ends == "fail" or not partials(town.share), "what is of no use is gone"
