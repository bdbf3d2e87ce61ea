"""The three steps of a TCP handshake, each held still long enough to be seen."""

from __future__ import annotations

from towline.lab import filters
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "three steps to a connection, and the states on both ends", "zh": "三次握手与两端的状态"}
QUESTION: Text = {
    "en": "What happens between connect and accept, and who knows what at which moment?",
    "zh": "从 connect 到 accept 之间发生了什么？哪一刻、哪一端知道了什么？",
}
SETUP: Text = {
    "en": """Loopback is too fast to watch. So a socket filter makes one end deaf: first the client, so that the
        answer to its SYN is lost, then the listener to everything but SYN, so that the third step is lost. TCP
        repeats itself; meanwhile we look at the states.""",
    "zh": """本机回环快得来不及看。于是用套接字过滤器让一端暂时“听不见”：
先是客户端，它收不到对 SYN 的回答；再是监听端，除 SYN 外什么都听不见，第三步便丢了。
TCP 会自己重发，我们趁这段时间查看状态。""",
}
LOOK: Text = {
    "en": """The client believes in the connection one step earlier than the server: after the second step it is
        ESTABLISHED while the server is still in SYN_RECV. The third step may travel with the first data. accept
        has no part in the handshake; the kernel completes it, accept only fetches the result.""",
    "zh": """客户端比服务器早一步“认为”连接已建立：第二步之后它已是 ESTABLISHED，服务器还在 SYN_RECV。
第三步可以和第一批数据同行。accept 并不参与握手：握手由内核完成，accept 只是取走结果。""",
}


def slow_handshake(recorder: Recorder, client: Tap, listener: Tap) -> None:
    client.sock.setblocking(False)
    with filters.deaf(client.sock):  # the answer to our SYN will not be heard
        try:
            client.connect(listener.local)
        except BlockingIOError:
            pass  # under way
        watch(recorder, client, "SYN_SENT", "SYN_RECV")
        filters.attach(listener.sock, filters.KEEP_SYN)  # and now the third step will not be heard
    watch(recorder, client, "ESTABLISHED", "SYN_RECV")
    filters.detach(listener.sock)
    client.sock.settimeout(5)


def watch(recorder: Recorder, client: Tap, here: str, there: str) -> None:
    recorder.wait(lambda: client.states() == (here, there), f"{here} here, {there} there")
    recorder.look(client)


def run(recorder: Recorder) -> Recording:
    recorder.scene("steps", {"en": "SYN, SYN ACK, ACK", "zh": "SYN、SYN ACK、ACK"})
    listener = recorder.listen()
    client = recorder.new("client")
    client.bind(("127.0.0.1", 0))
    client.peer = listener.local
    recorder.look(client)
    if filters.can_deafen():
        slow_handshake(recorder, client, listener)
    else:
        client.connect(listener.local)
        recorder.footnote(
            {
                "en": "SYN_SENT and SYN_RECV are not shown: this system lets only an administrator filter a socket.",
                "zh": "没有显示 SYN_SENT 和 SYN_RECV：本系统只允许管理员给套接字加过滤器。",
            }
        )
    client.send(b"hello")
    server = listener.accept()
    recorder.look(client)
    server.recv(1024)
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    scene = recording.scene("steps")
    states = scene.states()
    claim(states[0] == ("CLOSED", "LISTEN"), "at first only the server is there, in LISTEN")
    claim(states[-1] == ("ESTABLISHED", "ESTABLISHED"), "at last both ends are ESTABLISHED")
    claim(scene.calls("recv")[0].data == b"hello", "the first bytes arrived")
    if scene.note is None:
        claim(states[1] == ("SYN_SENT", "SYN_RECV"), "after the first step SYN_SENT and SYN_RECV")
        claim(states[2] == ("ESTABLISHED", "SYN_RECV"), "after the second step the client alone is ESTABLISHED")
    if recording.segments_shown:
        flags = [event.detail for event in scene.calls("segment")]
        claim(flags[:2] == ["SYN", "SYN ACK"], "SYN, then SYN ACK")
        claim("ACK" in flags[2:] or "PSH ACK" in flags[2:], "then ACK")
    path = " → ".join(f"{here}/{there}" for here, there in states)
    return {"en": f"Client and server went through {path}.", "zh": f"客户端/服务器依次经历 {path}。"}


CODE = (slow_handshake, watch)
