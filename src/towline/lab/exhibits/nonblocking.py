"""Non-blocking sockets: EAGAIN, partial sends, busy polling, and a selector for many clients in one thread."""

from __future__ import annotations

import selectors

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "EAGAIN, partial sends, and a selector", "zh": "非阻塞：EAGAIN、部分发送与 select"}
QUESTION: Text = {
    "en": "What changes with setblocking(False), and how does one thread serve many clients?",
    "zh": "setblocking(False) 改变了什么？一个线程怎样同时接待许多客户端？",
}
SETUP: Text = {
    "en": """A non-blocking socket is asked for bytes that are not there, then for more sending than the kernel
        can take. Then one thread serves three clients: once by asking all of them again and again, once with a
        selector.""",
    "zh": """先向非阻塞套接字要还没有到的字节，再让它发送内核装不下的数据。
随后用一个线程接待三个客户端：一次是挨个反复询问，一次是用 selector。""",
}
LOOK: Text = {
    "en": """EAGAIN is not a failure, it means "not now". A non-blocking send may take a part; who does not keep
        the rest loses it. Asking in a loop burns a whole processor for nothing; a selector sleeps until there is
        something to do.""",
    "zh": """EAGAIN 不是失败，意思是“现在还不行”。非阻塞 send 可能只收下一部分，不保管好其余部分就丢了。
循环询问会白白烧掉一个处理器；selector 则一直睡到有事可做。""",
}

_ASKS = 50  # a busy loop would ask for ever


def not_now(client: Tap, server: Tap) -> None:
    server.sock.setblocking(False)
    try:
        server.recv(1024)
    except BlockingIOError:
        pass  # nothing there yet
    client.send(b"now there is")
    server.recv(1024)


def fill(client: Tap) -> int:
    client.sock.setblocking(False)
    taken = 0
    try:
        while True:
            taken += client.send(b"x" * 1_000_000)
    except BlockingIOError:
        return taken  # the buffers of both kernels are full


def busy(servers: list[Tap], asks: int) -> int:
    empty = 0
    for turn in range(asks):
        try:
            servers[turn % len(servers)].sock.recv(1024)
        except BlockingIOError:
            empty += 1
    return empty


def with_selector(servers: list[Tap], answers: int) -> int:
    turns = 0
    with selectors.DefaultSelector() as selector:
        for server in servers:
            selector.register(server.sock, selectors.EVENT_READ, server)
        while answers:
            for key, _ in selector.select(timeout=5):  # sleeps until a client has said something
                key.data.send(key.data.recv(1024).upper())
                answers -= 1
            turns += 1
    return turns


def run(recorder: Recorder) -> Recording:
    recorder.scene("eagain", {"en": "recv with nothing there", "zh": "没有数据时 recv"}, segments=False)
    not_now(*recorder.pair())
    recorder.scene("partial", {"en": "more than the kernel can take", "zh": "超过内核能收下的"}, segments=False)
    client, server = recorder.pair()
    client.option("SO_SNDBUF", 65536)
    server.option("SO_RCVBUF", 65536)
    recorder.fact("taken", fill(client))
    names = ("client 1", "client 2", "client 3")
    recorder.scene(
        "many", {"en": "three clients, one thread", "zh": """三个客户端，一个线程"""}, left=names, segments=False
    )
    pairs = [recorder.pair(name) for name in names]
    for _, server in pairs:
        server.sock.setblocking(False)
    empty = busy([server for _, server in pairs], _ASKS)
    recorder.fact("empty_asks", empty)
    recorder.remark(
        "server",
        {"en": f"asked {_ASKS} times in a loop: {empty} × EAGAIN", "zh": f"循环问了 {_ASKS} 次：{empty} 次 EAGAIN"},
    )
    for client, _ in pairs:
        client.send(client.who.encode())
    recorder.fact("turns", with_selector([server for _, server in pairs], len(pairs)))
    for client, _ in pairs:
        client.recv(1024)
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    first, second = recording.scene("eagain").calls("recv")
    claim(first.error == "EAGAIN" and second.returned == 12, "EAGAIN first, the bytes later")
    sends = recording.scene("partial").calls("send")
    claim(sends[-1].error == "EAGAIN", "a full buffer says EAGAIN")
    partial = [event for event in sends if event.returned is not None and event.returned < (event.asked or 0)]
    claim(len(partial) >= 1, "a send took only a part")
    many = recording.scene("many")
    claim(many.facts["empty_asks"] == _ASKS, "every ask of the busy loop was in vain")
    claim(many.facts["turns"] <= 3, "the selector needed at most one turn a client")
    answers = [event.data for event in many.calls("recv") if event.who != "server"]
    claim(answers == [b"CLIENT 1", b"CLIENT 2", b"CLIENT 3"], "each client got its own answer")
    taken = recording.scene("partial").facts["taken"]
    return {
        "en": f"""The kernel took {taken} bytes, the last time {partial[-1].returned} of {partial[-1].asked}; the
            busy loop asked {_ASKS} times in vain, the selector served three clients in {many.facts["turns"]}
            turn(s).""",
        "zh": f"""内核共收下 {taken} 字节，最后一次只收了 {partial[-1].asked} 中的 {partial[-1].returned}；
循环白问了 {_ASKS} 次，selector 只用 {many.facts["turns"]} 轮就接待了三个客户端。""",
    }


CODE = (not_now, fill, busy, with_selector)
