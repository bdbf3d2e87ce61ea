"""Two sends, one recv: TCP carries bytes, not messages."""

from __future__ import annotations

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "two sends arrive in one recv", "zh": "发送两次，一次 recv 全收到（粘包）"}
QUESTION: Text = {
    "en": "I call send twice. Why does the other side get both at once?",
    "zh": "我调用了两次 send，为什么对方一次就全收到了？",
}
SETUP: Text = {
    "en": """The client sends two small messages. The server waits until both lie in its receive queue, then calls
        recv once. First with TCP_NODELAY, so that each send leaves in a segment of its own; then with TCP_CORK,
        so that the sender's kernel puts both into one.""",
    "zh": """客户端发送两条短消息。服务器等两条都进了接收队列，再调用一次 recv。
第一次设 TCP_NODELAY：每次 send 各成一个报文段；第二次设 TCP_CORK：发送方内核把两条装进同一个报文段。""",
}
LOOK: Text = {
    "en": """The recv line is the same both times; the evidence under it is not. Without waiting on the sender's
        side the messages still met, in the receiver's queue. So TCP_NODELAY is no cure: a stream has no
        boundaries to keep. The message itself must say where it ends (see `boundary`).""",
    "zh": """两次的 recv 一模一样，下面的证据却不同：发送方没有合并，两条消息照样在接收队列里碰到了一起。
所以 TCP_NODELAY 治不了粘包：字节流本来就没有边界。消息要自己说明在哪里结束（见 `boundary`）。""",
}


def two_sends(client: Tap) -> None:
    client.send("你好, ".encode(), of="A")
    client.send(b"world", of="B")


def one_recv(recorder: Recorder, server: Tap) -> bytes:
    recorder.wait(lambda: server.unread() == 13, "both messages lie in the queue")
    return server.recv(1024)


def run(recorder: Recorder) -> Recording:
    recorder.scene(
        "queue", {"en": "TCP_NODELAY: joined in the receive queue", "zh": "TCP_NODELAY：在接收队列里碰到一起"}
    )
    client, server = recorder.pair()
    client.option("TCP_NODELAY", 1)
    two_sends(client)
    one_recv(recorder, server)
    recorder.scene("wire", {"en": "TCP_CORK: joined by the sender's kernel", "zh": "TCP_CORK：由发送方内核合并"})
    client, server = recorder.pair()
    client.option("TCP_CORK", 1)
    two_sends(client)
    client.option("TCP_CORK", 0)
    one_recv(recorder, server)
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    segments = {}
    for scene in recording.scenes:
        received = scene.calls("recv")
        claim(len(scene.calls("send")) == 2 and len(received) == 1, "two sends and one recv")
        claim(received[0].returned == 13, "the one recv returned the bytes of both sends")
        info = received[0].kernel.info if received[0].kernel else {}
        segments[scene.name] = info.get("data_segs_in", 0)
    claim(segments == {"queue": 2, "wire": 1}, f"2 segments, then 1 (the kernel counted {segments})")
    return {
        "en": """2 sends, 1 recv, both times; the kernel counted 2 segments the first time and 1 the second.
            Joined here or joined there, the reader cannot tell.""",
        "zh": """两次都是 2 次 send、1 次 recv；内核数到的报文段先是 2 个，后是 1 个。在哪里合并的，
读的一方看不出来。""",
    }


CODE = (two_sends, one_recv)
