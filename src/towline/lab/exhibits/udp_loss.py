"""A seeded lossy line: lost, doubled and overtaken datagrams, and TCP through the same relay under the same dice."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack, nullcontext

from towline.lab import filters, kernel
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {
    "en": "lost, doubled and overtaken datagrams, TCP beside",
    "zh": """丢失、重复、乱序的数据报，
旁边是 TCP""",
}
QUESTION: Text = {
    "en": "What does a bad line do to UDP, and what does TCP make of the same line?",
    "zh": "线路不好时 UDP 会怎样？同样的线路，TCP 又会怎样？",
}
SETUP: Text = {
    "en": """Twenty numbered datagrams go through a relay that rolls dice (a fixed seed, so every run is the
        same): it loses, doubles or delays some. Then the same twenty messages go through the same relay over TCP. A
        relay sees streams, only the kernel sees segments; so where the dice said "lost", the receiver is deaf
        while the kernel sends the relay's segment.""",
    "zh": """二十个编号的数据报经过一个掷骰子的中继（种子固定，所以每次结果都一样）：有的丢掉，有的重复，有的耽搁。
然后同样的二十条消息用 TCP 走同一个中继。报文段在内核手里，中继只看得见字节流；
所以骰子说“丢”的，就在内核发送中继那一段的时刻让接收方听不见。""",
}
LOOK: Text = {
    "en": """UDP hands over what came, as it came; nobody tells the sender. Over TCP the same losses are repeated
        by the kernel until they arrive, in order, once. The price is time: what comes after a loss waits for it.""",
    "zh": """UDP 来什么交什么，来成什么样就是什么样，也没人告诉发送方。TCP 遇到同样的丢失，由内核重发，
直到按序、不重不漏地到达。代价是时间：丢失之后的数据都要等它。""",
}

SEED = 3
COUNT = 20
SIZE = 8


def dice(seed: int, count: int) -> list[str]:
    rng = random.Random(seed)  # noqa: S311 - repeatable on purpose
    return rng.choices(["pass", "lose", "double", "delay"], weights=[60, 16, 12, 12], k=count)


def relayed(fates: list[str], numbers: list[int]) -> list[int]:
    """What leaves the relay, in order; a delayed one leaves after its follower."""
    out: list[int] = []
    late: list[int] = []
    for number in numbers:
        fate = fates[number]
        if fate == "delay":
            late.append(number)
            continue
        out += [number] * {"lose": 0, "double": 2}.get(fate, 1) + late
        late = []
    return out + late


def packet(number: int) -> bytes:
    return f"no. {number:02d} .".encode()


class Relay:
    """One host between sender and receiver, under one row of dice, with a datagram and a stream socket."""

    def __init__(self, fates: list[str]) -> None:
        self.fates = fates
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.datagrams.settimeout(5)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(5)

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.datagrams.close()
        self.listener.close()

    def pass_datagrams(self, receiver: Tap) -> None:
        """The relay does what the dice say; nobody repairs it."""
        came = [int(self.datagrams.recv(SIZE)[4:6]) for _ in range(COUNT)]
        for number in relayed(self.fates, came):
            self.datagrams.sendto(packet(number), receiver.local)
            receiver.recvfrom(SIZE)

    def pass_stream(self, near: socket.socket, onward: socket.socket, receiver: Tap) -> int:
        """The bytes go on in their order; what the dice lose, the kernel sends again. How often it did."""
        for fate in self.fates:
            data = near.recv(SIZE, socket.MSG_WAITALL)
            lost = fate == "lose" and filters.can_deafen()
            with filters.deaf(receiver.sock) if lost else nullcontext():
                onward.sendall(data)
        receiver.recorder.wait(lambda: receiver.unread() == COUNT * SIZE, "all bytes have arrived")
        return int(kernel.tcp_info(onward).get("total_retrans", 0))


def over_udp(recorder: Recorder, relay: Relay) -> None:
    receiver = recorder.new("receiver", kind=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = recorder.new("sender", kind=socket.SOCK_DGRAM)
    sender.join(receiver)
    # The line may lose and double, so a position is told by the datagram itself, not by counting.
    sender.locate = receiver.locate = lambda data: int(data[4:6]) * SIZE
    for number in range(COUNT):
        sender.sendto(packet(number), relay.datagrams.getsockname())
    relay.pass_datagrams(receiver)


def over_tcp(recorder: Recorder, relay: Relay) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sending = socket.create_connection(relay.listener.getsockname(), 5)
        near = stack.enter_context(relay.listener.accept()[0])
        onward = stack.enter_context(socket.create_connection(listener.getsockname(), 5))
        receiving, _ = listener.accept()
        near.settimeout(5)
        receiving.settimeout(5)
        for sock in (sending, onward):  # a message, a segment
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sender, receiver = recorder.tap(sending, "sender"), recorder.tap(receiving, "receiver")
        sender.join(receiver)
        for number in range(COUNT):
            sender.send(packet(number))
        repeated = relay.pass_stream(near, onward, receiver)
        receiver.recv(COUNT * SIZE)
        recorder.fact("repeated", repeated)


def run(recorder: Recorder) -> Recording:
    fates = dice(SEED, COUNT)
    sides = {"left": ("sender",), "right": ("receiver",), "segments": False}
    recorder.scene("udp", {"en": "UDP through a lossy relay", "zh": """UDP 经过会丢包的中继"""}, **sides)  # type: ignore[arg-type]
    recorder.fact("fates", fates)
    with Relay(fates) as relay:
        over_udp(recorder, relay)
        recorder.scene("tcp", {"en": "TCP through the same relay", "zh": """TCP 经过同一个中继"""}, **sides)  # type: ignore[arg-type]
        over_tcp(recorder, relay)
    if not filters.can_deafen():
        recorder.footnote(
            {
                "en": "TCP lost nothing here: this system lets only an administrator filter a socket.",
                "zh": "这里的 TCP 没有丢包：本系统只允许管理员给套接字加过滤器。",
            }
        )
    return recorder.recording()


def counted(recording: Recording) -> dict[str, int]:
    """Lost, doubled and overtaken, counted from what the receiver got."""
    got = [event.start // SIZE for event in recording.scene("udp").calls("recvfrom") if event.start is not None]
    first = list(dict.fromkeys(got))
    return {
        "sent": COUNT,
        "lost": COUNT - len(first),
        "doubled": len(got) - len(first),
        "overtaken": sum(number < max(first[:at], default=-1) for at, number in enumerate(first)),
    }


def verdict(recording: Recording) -> Text:
    udp, tcp = recording.scene("udp"), recording.scene("tcp")
    fates = udp.facts["fates"]
    found = counted(recording)
    claim(found["lost"] == fates.count("lose") > 0, "as many were lost as the dice said")
    claim(found["doubled"] == fates.count("double") > 0, "as many were doubled as the dice said")
    claim(found["overtaken"] > 0, "some were overtaken")
    received = tcp.calls("recv")[0]
    claim(received.data == b"".join(packet(number) for number in range(COUNT)), "TCP delivered all, in order, once")
    repeated = tcp.facts["repeated"]
    claim(repeated > 0 or tcp.note is not None, "TCP repeated what was lost")
    return {
        "en": f"""UDP: {found["sent"]} sent, {found["lost"]} lost, {found["doubled"]} doubled,
            {found["overtaken"]} overtaken. TCP: {COUNT} of {COUNT}, in order; the kernel repeated {repeated}
            segments.""",
        "zh": f"""UDP：发出 {found["sent"]} 个，丢失 {found["lost"]} 个，重复 {found["doubled"]} 个，
被超过 {found["overtaken"]} 个。TCP：{COUNT} 条全到，次序不变；内核重发了 {repeated} 个报文段。""",
    }


CODE = (dice, relayed, Relay, over_udp, over_tcp)
