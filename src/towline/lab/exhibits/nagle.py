"""Nagle's algorithm meets delayed acknowledgements: the 40 ms of write, write, read."""

from __future__ import annotations

import socket

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording, Scene
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "TCP_NODELAY off and on, with times", "zh": "TCP_NODELAY 关与开，各用多少时间"}
QUESTION: Text = {
    "en": "Why does every request take 40 ms, on a line that needs 0.1?",
    "zh": "线路只要 0.1 毫秒，为什么每个请求都要 40 毫秒？",
}
SETUP: Text = {
    "en": """The client sends a request in two small writes, header and body; the server answers when it has both.
        Three rounds with Nagle's algorithm as it is by default, three with TCP_NODELAY. The server delays its
        acknowledgements, as any does in the middle of a talk.""",
    "zh": """客户端分两次小写入发送一个请求：头部和正文；服务器收齐才回答。先按默认（Nagle 算法开启）做三轮，
再用 TCP_NODELAY 做三轮。服务器会延迟确认，对话中的连接都如此。""",
}
LOOK: Text = {
    "en": """With Nagle the body is not even sent: the kernel holds it back until the header is acknowledged, and
        the server's kernel delays that by 40 ms, hoping for an answer to travel with. Each waits for the other.
        Better than TCP_NODELAY: send header and body with one call.""",
    "zh": """Nagle 开启时，正文根本没有发出：内核要等头部被确认才发；而服务器的内核把确认推迟 40 毫秒，好与回答同行。
双方互相等待。比 TCP_NODELAY 更好的办法：头部和正文用一次调用发出。""",
}

ROUNDS = 3


def one_round(recorder: Recorder, client: Tap, server: Tap) -> float:
    server.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)  # acknowledge late
    began = recorder.clock()
    client.send(b"header", of="H")
    client.send(b"body", of="B")  # waits in the client's kernel, or not
    got = 0
    while got < 10:
        got += len(server.recv(1024))
    server.send(b"ok", of="ok")
    client.recv(1024)
    return (recorder.clock() - began) * 1000


def run(recorder: Recorder) -> Recording:
    titles: dict[str, Text] = {
        "nagle": {"en": "Nagle's algorithm (the default)", "zh": "Nagle 算法（默认）"},
        "nodelay": {"en": "TCP_NODELAY", "zh": "TCP_NODELAY"},
    }
    for name, title in titles.items():
        recorder.scene(name, title)
        client, server = recorder.pair(nodelay=name == "nodelay")
        recorder.fact("milliseconds", [round(one_round(recorder, client, server), 2) for _ in range(ROUNDS)])
    return recorder.recording()


def held_back(scene: Scene) -> list[int]:
    """Bytes of each body that the client's kernel held back right after the send."""
    bodies = [event for event in scene.calls("send", who="client") if event.of == "B"]
    return [event.kernel.held or 0 for event in bodies if event.kernel]


def verdict(recording: Recording) -> Text:
    nagle, nodelay = recording.scene("nagle"), recording.scene("nodelay")
    claim(any(held == 4 for held in held_back(nagle)), "with Nagle the kernel held a body back")
    claim(not any(held_back(nodelay)), "with TCP_NODELAY it held back none")
    slow, fast = nagle.facts["milliseconds"], nodelay.facts["milliseconds"]
    claim(sum(slow) > sum(fast), "the rounds with Nagle took longer")
    return {
        "en": f"""With Nagle {_list(slow)} ms a round, with TCP_NODELAY {_list(fast)} ms; the held-back bytes were
            counted in the client's kernel.""",
        "zh": f"Nagle：每轮 {_list(slow)} 毫秒；TCP_NODELAY：{_list(fast)} 毫秒。客户端内核里数得到被扣住的字节。",
    }


def _list(numbers: list[float]) -> str:
    return ", ".join(f"{number:.1f}" for number in numbers)


CODE = (one_round,)
