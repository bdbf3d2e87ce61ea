"""Datagrams never stick; what a short recvfrom leaves is gone."""

from __future__ import annotations

import socket

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "datagrams never stick, but a short read cuts them", "zh": "UDP 不粘包，但读短了会被截断"}
QUESTION: Text = {
    "en": "UDP has no sticky packets. What does it do instead?",
    "zh": "都说 UDP 不会粘包，那它会怎样？",
}
SETUP: Text = {
    "en": """Three datagrams wait in one queue and are read with a large size; then with recvfrom(4). Last, an
        empty datagram.""",
    "zh": "三个数据报在同一个队列里等着，先用足够大的长度读，再用 recvfrom(4) 读。最后发一个空数据报。",
}
LOOK: Text = {
    "en": """One sendto, one recvfrom, always. But where a stream keeps what you did not take, a datagram's rest
        is thrown away, and recvfrom does not even say so. And b"" is not the end: a UDP socket has none.""",
    "zh": """一次 sendto 对一次 recvfrom，从不例外。但是字节流会留着你没取走的部分，数据报的剩余部分却被直接丢弃，
recvfrom 连说都不说一声。还有，b"" 不是结束：UDP 没有结束。""",
}


def three_letters(client: Tap, server: Tap) -> None:
    for text in (b"first", b"the second", b"3"):
        client.sendto(text, server.local)


def read_three(server: Tap, size: int) -> list[bytes]:
    return [server.recvfrom(size)[0] for _ in range(3)]


def ends(recorder: Recorder) -> tuple[Tap, Tap]:
    server = recorder.new("server", kind=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    client = recorder.new("client", kind=socket.SOCK_DGRAM)
    client.join(server)
    return client, server


def run(recorder: Recorder) -> Recording:
    recorder.scene("apart", {"en": "three sends, three reads", "zh": "发三次，读三次"})
    client, server = ends(recorder)
    three_letters(client, server)
    recorder.fact("read", [data.decode() for data in read_three(server, 1024)])
    recorder.scene("cut", {"en": "the same, with recvfrom(4)", "zh": "同样三个，用 recvfrom(4) 读"})
    client, server = ends(recorder)
    three_letters(client, server)
    recorder.fact("read", [data.decode() for data in read_three(server, 4)])
    recorder.scene("empty", {"en": "an empty datagram is a message too", "zh": "空数据报也是一条消息"})
    client, server = ends(recorder)
    client.sendto(b"", server.local)
    client.sendto(b"not the end", server.local)
    recorder.fact("read", [server.recvfrom(1024)[0].decode() for _ in range(2)])
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    claim(recording.scene("apart").facts["read"] == ["first", "the second", "3"], "each datagram came by itself")
    cut = recording.scene("cut")
    claim(cut.facts["read"] == ["firs", "the ", "3"], "a short read cut each datagram, and the rest did not follow")
    claim([event.waiting for event in cut.calls("recvfrom")] == [5, 10, 1], "the whole datagrams had been there")
    claim(recording.scene("empty").facts["read"] == ["", "not the end"], "an empty datagram is not the end")
    return {
        "en": "3 datagrams, 3 reads, never joined; recvfrom(4) threw 1 and 6 bytes away without an error.",
        "zh": "3 个数据报读了 3 次，从不粘连；recvfrom(4) 先后丢掉了 1 个和 6 个字节，没有任何报错。",
    }


CODE = (three_letters, read_three, ends)
