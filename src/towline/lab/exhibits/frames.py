"""A Towline transfer with a cut in the middle, explained frame by frame."""

from __future__ import annotations

import asyncio
import json
import os
import random
import tempfile
from typing import Any

from msgspec.structs import replace

from towline.base.errors import PeerError
from towline.client.attempt import Credentials
from towline.client.connect import local_line
from towline.client.line import Line
from towline.client.reach import Target
from towline.client.transfer import Options
from towline.lab.exhibit import claim
from towline.lab.faults import FaultProxy
from towline.lab.faults_script import FaultScript
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording, Scene
from towline.lab.tapped import recording as drawn
from towline.lab.texts import Text
from towline.lab.wire_words import meaning
from towline.lab.wiretap import WireTap
from towline.node import Node, NodeConfig
from towline.protocol.codec import Frame, encode
from towline.protocol.explain import explain
from towline.protocol.table import PREFACE, Kind
from towline.runtime import watching
from towline.services.files.shares import Share
from towline.trust.invites import decode_code
from towline.trust.keys import Identity

TITLE: Text = {"en": "a Towline transfer with a cut, frame by frame", "zh": "一次被切断的 Towline 传输，逐帧讲解"}
QUESTION: Text = {
    "en": "The connection breaks in the middle of an upload. What is said on the new one, and what is sent again?",
    "zh": "上传到一半连接断了。新连接上说了些什么？又重发了多少？",
}
SETUP: Text = {
    "en": """A real node, a real client, TLS between them, and a relay that cuts the connection after 5 MB of a
        8 MB upload. A tap inside the client writes down every frame; payload stays out of it.""",
    "zh": """真实的节点，真实的客户端，中间是 TLS；一个中继在 8 MB 的上传走到 5 MB 时切断连接。
客户端里的分接头记下每一帧，不记正文。""",
}
LOOK: Text = {
    "en": """Every frame says how long it is before it starts. After the cut there is no session to restore: the
        client proves its key again and opens a new stream, the node says from which byte on it wants the file,
        and only the rest travels. CREDIT comes back as the node has consumed, so neither side can be flooded.""",
    "zh": """每一帧在开始之前都先说明自己有多长。断开之后没有什么会话要恢复：客户端重新证明密钥，打开新的流，
节点说出它要从哪个字节继续，于是只传剩下的。节点消费多少就归还多少 CREDIT，谁也淹不了谁。""",
}

SIZE = 8_000_000
CUT = 5_000_000  # bytes on the wire, TLS included
_PREFACE: Text = {"en": "eight bytes: Towline, version 1", "zh": "八个字节：Towline，版本 1"}


async def upload_with_a_cut(folder: str, tap: WireTap) -> dict[str, Any]:
    source, share = os.path.join(folder, "model.bin"), os.path.join(folder, "share")
    await asyncio.to_thread(_prepare, source, share)
    config = NodeConfig(data=os.path.join(folder, "node"), listen="127.0.0.1:0", name="home")
    config = NodeConfig(config.data, config.listen, shares=(Share("files", share),), name="home")
    async with Node(config) as node:
        invite = decode_code(await _invite(str(node.listening.unix)))
        async with FaultProxy(str(node.listening.address), script=FaultScript(cut_after=CUT)) as proxy:
            target = Target("home", (proxy.address,), invite.fingerprint)
            identity = Identity.load_or_create(os.path.join(folder, "keys"))
            watching.watch(tap)
            try:
                async with Line(target, Credentials(identity, invite.secret), home=folder) as line:
                    done = await line.put(source, "files/model.bin", options=Options(lanes=0))
            finally:
                watching.watch(None)
            same = await asyncio.to_thread(_same, source, os.path.join(share, "model.bin"))
            return {"cuts": done.cuts, "relay_cuts": proxy.stats.cuts, "failures": len(done.failures), "same": same}


async def _invite(unix: str) -> str:
    async with local_line(unix) as line:
        request = {"service": "admin", "op": "invite", "name": "ann", "can": "read,write", "for": 60.0}
        channel = await line.channel(request)
        message = await channel.receive()
    if message is None:
        raise PeerError("The node gave no invite.")
    return str(json.loads(message.body))


def _prepare(source: str, share: str) -> None:
    os.mkdir(share)
    with open(source, "wb") as file:
        file.write(random.Random(7).randbytes(SIZE))  # noqa: S311 - the same bytes each time


def _same(one: str, two: str) -> bool:
    with open(one, "rb") as a, open(two, "rb") as b:
        return a.read() == b.read()


def run(recorder: Recorder) -> Recording:
    events: list[dict[str, Any]] = []
    tap = WireTap(events.append)
    with tempfile.TemporaryDirectory() as folder:
        facts = asyncio.run(upload_with_a_cut(folder, tap))
    clients = {
        event["connection"] for event in events if event["event"] == "connection" and event["role"] == "client"
    }
    own = [event for event in events if event.get("connection") in clients]
    recorder.fact("transfer", facts)
    _bytes_of_one(recorder)
    _kinds(recorder, own)
    extra = recorder.recording().scenes[0]
    scenes = _explained(drawn(own, name=recorder.name).scenes)
    return Recording(recorder.name, (*scenes, _named(extra)), system=recorder.recording().system, redacted=True)


def _explained(scenes: tuple[Scene, ...]) -> list[Scene]:
    """Each kind of frame is explained where it is seen first."""
    known: set[str] = set()
    found = []
    for scene in scenes:
        events = []
        for event in scene.events:
            name = event.detail.split(" ")[0]
            if event.call == "frame" and name not in known:
                known.add(name)
                said = _PREFACE if name == "TOWLINE" else meaning(Kind[name])
                words = event.text or {"en": "", "zh": ""}
                event = replace(event, text={lang: f"{said[lang]} {words[lang]}".strip() for lang in said})  # noqa: PLW2901
            events.append(event)
        found.append(replace(scene, events=tuple(events)))
    return found


def _named(scene: Scene) -> Scene:
    return replace(scene, name="explained", title={"en": "The bytes, named", "zh": "字节与名字"})


def _bytes_of_one(recorder: Recorder) -> None:
    frame = Frame(Kind.OPEN, 0, 1, {"service": "echo"})
    columns: tuple[Text, ...] = (
        {"en": "bytes", "zh": "字节"},
        {"en": "hex", "zh": "十六进制"},
        {"en": "name", "zh": "名称"},
        {"en": "value", "zh": "值"},
    )
    data = PREFACE + encode(frame)
    rows: list[tuple[str | Text, ...]] = []
    for span in explain(data):
        raw = data[span.start : span.end]
        shown = raw.hex(" ") if len(raw) <= 8 else raw[:7].hex(" ") + " …"
        rows.append((f"{span.start}–{span.end - 1}", shown, span.name, span.value))
    recorder.table({"en": "The preface and one OPEN", "zh": "前导与一个 OPEN 帧"}, columns, rows)


def _kinds(recorder: Recorder, events: list[dict[str, Any]]) -> None:
    columns: tuple[Text, ...] = (
        {"en": "frame", "zh": "帧"},
        {"en": "seen", "zh": "次数"},
        {"en": "meaning", "zh": "含义"},
    )
    names = [event["kind"] for event in events if event["event"] == "frame"]
    rows: list[tuple[str | Text, ...]] = [
        (kind.name, str(names.count(kind.name)), meaning(kind)) for kind in Kind if kind.name in names
    ]
    recorder.table({"en": "The frames that were seen", "zh": "出现过的帧"}, columns, rows)


def verdict(recording: Recording) -> Text:
    transfer = recording.scene("explained").facts["transfer"]
    claim(transfer["relay_cuts"] == 1 and transfer["cuts"] >= 1, "the relay cut once and the client noticed")
    claim(transfer["same"] and transfer["failures"] == 0, "the file arrived whole")
    connections = [scene for scene in recording.scenes if scene.facts.get("role") == "client"]
    claim(len(connections) == 2, "there were two connections")
    for scene in connections:
        kinds = [event.detail.split(" ")[0] for event in scene.calls("frame", who="client")]
        claim(kinds[:3] == ["TOWLINE", "HELLO", "PROVE"], "each connection proved the key anew")
    first, second = (scene.facts["body_bytes"].get("client", 0) for scene in connections)
    claim(0 < second < SIZE, "the second connection carried a part only")
    claim(first + second >= SIZE, "both together carried the file")
    again = first + second - SIZE
    return {
        "en": f"""The cut came after {first} bytes of payload; the new connection carried {second} of {SIZE}. Sent
            twice: {again} bytes, those that were on their way when the cable broke.""",
        "zh": f"""切断前已发正文 {first} 字节；新连接只传了 {SIZE} 中的 {second} 字节。
重发 {again} 字节，正是断线那一刻还在路上的那些。""",
    }


CODE = (upload_with_a_cut,)
