"""A recv smaller than the message: the rest turns up in the next one."""

from __future__ import annotations

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "a recv too small leaves the rest for the next", "zh": "recv 太小，剩下的混进下一次（粘包）"}
QUESTION: Text = {
    "en": "I ask a second question. Why do I get the end of the first answer?",
    "zh": "我明明问了第二个问题，为什么收到的却是第一个回答的尾巴？",
}
SETUP: Text = {
    "en": """A client asks twice. The first answer is 27 bytes long, but the client calls recv(12) once and goes
        on with its next question, as many remote-shell lessons do.""",
    "zh": """客户端提问两次。第一个回答有 27 字节，客户端却只调用一次 recv(12) 就去问下一个问题；
许多“远程执行命令”的教程正是这样写的。""",
}
LOOK: Text = {
    "en": """What recv does not take stays in the kernel's queue; nothing is lost, but question and answer no
        longer belong together, and stay so for ever. A larger number only moves the day on which it breaks. The
        cure is to know the length and to read to it.""",
    "zh": """recv 没有取走的字节留在内核队列里：一个也没丢，但问与答从此错位，再也对不上。
把 1024 改成更大的数，只是推迟出错的日子。正确的办法是：先知道长度，再读够长度。""",
}


def answer(server: Tap, text: bytes, label: str) -> None:
    server.recv(1024)
    server.sendall(text, of=label)


def ask(client: Tap, question: bytes, label: str) -> None:
    client.sendall(question, of=label)


def careless_read(recorder: Recorder, client: Tap) -> bytes:
    recorder.wait(lambda: client.unread() > 0, "the answer lies in the queue")
    return client.recv(12)  # "the answer will be short"


def run(recorder: Recorder) -> Recording:
    recorder.scene("small", {"en": "two questions, recv(12)", "zh": "两问两答，recv(12)"})
    client, server = recorder.pair(nodelay=True)
    ask(client, b"ls", "Q1")
    answer(server, b"alpha.txt\nbeta.txt\ngamma.md", "A")
    recorder.fact("first", careless_read(recorder, client).decode())
    ask(client, b"date", "Q2")
    answer(server, b"Monday", "B")
    recorder.wait(lambda: client.unread() == 21, "both answers' bytes lie in the queue")
    recorder.fact("second", careless_read(recorder, client).decode())
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    scene = recording.scene("small")
    first, second = scene.calls("recv", who="client")
    flow = b"".join(event.data for event in scene.calls("sendall", who="server"))
    claim(first.returned == first.asked == 12, "the first recv was filled to the brim")
    claim(bool(first.kernel and first.kernel.unread == 15), "15 bytes of the first answer stayed in the queue")
    claim(second.start == 12 and second.data == flow[12:24], "the second recv went on where the first had stopped")
    claim(b"Monday" not in second.data, "the second answer was not in the second recv")
    return {
        "en": """The second recv returned bytes 12 to 23 of the *first* answer; the answer to the second question
            was still queued behind them.""",
        "zh": "第二次 recv 返回的是*第一个*回答的第 12 至 23 字节；第二个问题的回答还排在后面。",
    }


CODE = (ask, answer, careless_read)
