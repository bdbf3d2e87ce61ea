"""Clients beyond the queue: what listen(1) means."""

from __future__ import annotations

from towline.lab import kernel
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "clients beyond the listen queue", "zh": "listen 队列满了以后的客户端"}
QUESTION: Text = {
    "en": "What does the number in listen(n) do, and what does a client see that finds the queue full?",
    "zh": "listen(n) 里的数字管什么？队列满时，客户端看到的是什么？",
}
SETUP: Text = {
    "en": """A server calls listen(1) and never accepts, until the end. Three clients connect, one after the
        other, without blocking.""",
    "zh": """服务器调用 listen(1)，直到最后才 accept。三个客户端依次以非阻塞方式连接。""",
}
LOOK: Text = {
    "en": """The number limits finished connections that wait for accept, not clients; Linux keeps one more than
        asked. The first ones are ESTABLISHED and may even send, though no program has seen them. The next one
        hangs in SYN_SENT: the kernel ignores its SYN, and it is repeated after 1, 2, 4 … seconds. One accept
        makes room, and the next repetition gets in. Nothing was refused, it was only slow.""",
    "zh": """这个数字限制的不是客户端总数，而是已完成握手、等待 accept 的连接数；Linux 会多留一个。
先来的已是 ESTABLISHED，甚至可以发送，尽管还没有程序理会它们。后来的停在 SYN_SENT：
内核不理它的 SYN，于是过 1、2、4……秒重发。一次 accept 腾出位置，下一次重发就进来了。没有谁被拒绝，只是慢。""",
}


def knock(recorder: Recorder, listener: Tap, who: str, expected: int) -> Tap:
    client = recorder.new(who)
    client.sock.setblocking(False)
    try:
        client.connect(listener.local)
    except BlockingIOError:
        pass  # under way
    recorder.wait(lambda: queued(listener) == expected, f"{expected} in the queue")
    recorder.look(client, listener)
    return client


def queued(listener: Tap) -> int:
    return kernel.tcp_info(listener.sock).get("unacked", -1)  # for a listener: connections that wait for accept


def run(recorder: Recorder) -> Recording:
    names = ("client 1", "client 2", "client 3")
    title: Text = {"en": "listen(1) and three clients", "zh": "listen(1) 与三个客户端"}
    recorder.scene("full", title, left=names, segments=False)
    listener = recorder.listen(backlog=1)
    clients = [knock(recorder, listener, name, min(at, 2)) for at, name in enumerate(names, 1)]
    recorder.fact("queued", queued(listener))
    recorder.fact("before", [client.states()[0] for client in clients])
    clients[0].send(b"anybody there?")
    server = listener.accept()
    server.recv(1024)
    recorder.wait(lambda: clients[2].states()[0] == "ESTABLISHED", "the waiting client gets in")
    for client in clients:
        recorder.look(client, listener)
    recorder.fact("after", [client.states()[0] for client in clients])
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    scene = recording.scene("full")
    before, after = scene.facts["before"], scene.facts["after"]
    claim(before == ["ESTABLISHED", "ESTABLISHED", "SYN_SENT"], "two got in, the third hangs in SYN_SENT")
    claim(scene.facts["queued"] == 2, "the kernel counted 2 connections that wait for accept")
    claim(after == ["ESTABLISHED"] * 3, "after one accept the third got in")
    early = scene.calls("recv")[0]
    claim(early.data == b"anybody there?", "what was sent before accept was kept")
    return {
        "en": """listen(1) kept 2 connections; the third client hung in SYN_SENT without any error, until one
            accept made room.""",
        "zh": "listen(1) 留住了 2 个连接；第三个客户端停在 SYN_SENT，没有任何报错，直到一次 accept 腾出位置。",
    }


CODE = (knock, queued)
