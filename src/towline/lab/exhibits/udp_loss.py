"""A seeded lossy line: lost, doubled and overtaken datagrams, and TCP under the same dice."""

from __future__ import annotations

import random
import socket

from towline.lab import filters, kernel
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
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
        same): it loses, doubles or delays some. Then the same twenty messages go over TCP, and where the dice
        said "lost", the receiver is deaf while the segment is sent.""",
    "zh": """二十个编号的数据报经过一个掷骰子的中继（种子固定，所以每次结果都一样）：有的丢掉，有的重复，有的耽搁。
然后同样的二十条消息走 TCP：骰子说“丢”的，就在发送那一刻让接收方听不见。""",
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


def over_udp(recorder: Recorder, fates: list[str]) -> None:
    receiver = recorder.new("receiver", kind=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender = recorder.new("sender", kind=socket.SOCK_DGRAM)
    sender.join(receiver)
    # The line may lose and double, so a position is told by the datagram itself, not by counting.
    sender.locate = receiver.locate = lambda data: int(data[4:6]) * SIZE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.settimeout(5)
        for number in range(COUNT):
            sender.sendto(packet(number), relay.getsockname())
        came = [int(relay.recv(SIZE)[4:6]) for _ in range(COUNT)]
        for number in relayed(fates, came):
            relay.sendto(packet(number), receiver.local)
            receiver.recvfrom(SIZE)


def over_tcp(recorder: Recorder, fates: list[str]) -> None:
    sender, receiver = recorder.pair("sender", "receiver", nodelay=True)
    for number in range(COUNT):
        if fates[number] == "lose" and filters.can_deafen():
            with filters.deaf(receiver.sock):
                sender.send(packet(number))
        else:
            sender.send(packet(number))
    whole = COUNT * SIZE
    recorder.wait(lambda: receiver.unread() == whole, "all bytes have arrived")
    receiver.recv(whole)
    recorder.fact("repeated", kernel.tcp_info(sender.sock).get("total_retrans", 0))


def run(recorder: Recorder) -> Recording:
    fates = dice(SEED, COUNT)
    sides = {"left": ("sender",), "right": ("receiver",), "segments": False}
    recorder.scene("udp", {"en": "UDP through a lossy relay", "zh": """UDP 经过会丢包的中继"""}, **sides)  # type: ignore[arg-type]
    recorder.fact("fates", fates)
    over_udp(recorder, fates)
    recorder.scene("tcp", {"en": "TCP under the same dice", "zh": """同样的骰子，换成 TCP"""}, **sides)  # type: ignore[arg-type]
    over_tcp(recorder, fates)
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


CODE = (dice, relayed, over_udp, over_tcp)
