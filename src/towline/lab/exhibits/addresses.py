"""This machine's addresses, and whether two addresses are in one network."""

from __future__ import annotations

import ipaddress

from msgspec.structs import asdict

from towline.lab.exhibit import claim
from towline.lab.interfaces import Comparison, compare, gateway, interfaces, lookup
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.texts import Text

TITLE: Text = {"en": "this machine's addresses; are two in one network?", "zh": "本机的地址；两个地址在同一网段吗？"}
QUESTION: Text = {
    "en": "Which addresses does my machine have, and when does a packet need the gateway?",
    "zh": "我的机器有哪些地址？一个包什么时候要经过网关？",
}
SETUP: Text = {
    "en": """The kernel is asked for its interfaces, the default gateway and the addresses of two names. Then some
        pairs of addresses are laid under a mask, bit by bit.""",
    "zh": "向内核询问网卡、默认网关和两个名字的地址。然后把几对地址放到掩码下面，逐位来看。",
}
LOOK: Text = {
    "en": """Where the mask has a 1, the bits must be equal; where it has a 0, they may differ. Equal: same
        network, the frame goes straight to the other's MAC. Different: it goes to the gateway's MAC, while the IP
        address stays the final one. The mask is half of the answer: the same two addresses may be neighbours
        under /23 and strangers under /24.""",
    "zh": """掩码为 1 的位必须相同，为 0 的位可以不同。全相同：同一网段，帧直接发往对方的 MAC。
不同：帧发往网关的 MAC，而 IP 地址仍写最终目的地。掩码决定一半的答案：同样两个地址，
在 /23 下是邻居，在 /24 下就是外人。""",
}

_PAIRS = (
    ("192.168.1.10", "192.168.1.200", 24),
    ("192.168.1.10", "192.168.2.10", 24),
    ("10.0.2.9", "10.0.3.7", 23),
    ("10.0.2.9", "10.0.3.7", 24),
    ("172.16.5.130", "172.16.5.120", 25),
)


def same_network(one: str, two: str, prefix: int) -> bool:
    mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
    return int(ipaddress.IPv4Address(one)) & mask == int(ipaddress.IPv4Address(two)) & mask


def run(recorder: Recorder) -> Recording:
    recorder.scene("machine", {"en": "This machine", "zh": "本机"})
    found = interfaces()
    recorder.fact("interfaces", [asdict(interface) for interface in found])
    columns: tuple[Text, ...] = (
        {"en": "interface", "zh": "网卡"},
        {"en": "address", "zh": "地址"},
        {"en": "netmask", "zh": "掩码"},
        {"en": "MAC", "zh": "MAC"},
        {"en": "IPv6", "zh": "IPv6"},
    )
    rows: list[tuple[str | Text, ...]] = [
        (at.name, at.address or "–", at.netmask or "–", at.mac or "–", at.ipv6[0] if at.ipv6 else "–")
        for at in found
        if at.up
    ]
    recorder.table({"en": "Interfaces that are up", "zh": "启用中的网卡"}, columns, rows)
    name, via = gateway()
    recorder.fact("gateway", {"interface": name, "address": via})
    names = {host: lookup(host) for host in ("localhost", "localhost.invalid")}
    recorder.fact("names", names)
    _answers(recorder, name, via, names)
    recorder.scene("networks", {"en": "Are two addresses in one network?", "zh": "两个地址在同一网段吗？"})
    compared = [compare(*pair) for pair in _PAIRS]
    recorder.fact(
        "pairs",
        [{**asdict(at), "prefix": pair[2], "same": at.same} for at, pair in zip(compared, _PAIRS, strict=True)],
    )
    for comparison, (_, _, prefix) in zip(compared, _PAIRS, strict=True):
        _bit_by_bit(recorder, comparison, prefix)
    return recorder.recording()


def _answers(recorder: Recorder, name: str, via: str, names: dict[str, list[str]]) -> None:
    none: Text = {"en": "none", "zh": "无"}
    rows: list[tuple[str | Text, ...]] = [
        ({"en": "default gateway", "zh": """默认网关"""}, f"{via} ({name})" if via else none)
    ]
    rows += [(host, ", ".join(answers) if answers else none) for host, answers in names.items()]
    columns: tuple[Text, ...] = ({"en": "asked", "zh": "询问"}, {"en": "answer", "zh": "回答"})
    recorder.table({"en": "Gateway and names", "zh": "网关与名字"}, columns, rows)


def _bit_by_bit(recorder: Recorder, at: Comparison, prefix: int) -> None:
    answer: Text = (
        {"en": "same network", "zh": "同一网段"} if at.same else {"en": "through the gateway", "zh": "要经过网关"}
    )
    columns: tuple[Text, ...] = (
        {"en": "", "zh": ""},
        {"en": "address", "zh": "地址"},
        {"en": "bits", "zh": "二进制位"},
        {"en": "network", "zh": "网络号"},
    )
    rows: list[tuple[str | Text, ...]] = [
        ("A", at.one, at.bits_one, at.network_one),
        ("B", at.two, at.bits_two, at.network_two),
        (f"/{prefix}", at.mask, at.bits_mask, answer),
    ]
    recorder.table(
        {"en": f"{at.one} and {at.two} under /{prefix}", "zh": f"/{prefix} 下的 {at.one} 与 {at.two}"}, columns, rows
    )


def verdict(recording: Recording) -> Text:
    machine = recording.scene("machine").facts
    loopback = [at for at in machine["interfaces"] if at["address"] == "127.0.0.1"]
    claim(len(loopback) == 1 and loopback[0]["netmask"] == "255.0.0.0", "loopback has 127.0.0.1 under 255.0.0.0")
    claim(
        all(ipaddress.ip_address(answer).is_loopback for answer in machine["names"]["localhost"]), "localhost is us"
    )
    claim(machine["names"]["localhost"] != [], "localhost has an address")
    claim(machine["names"]["localhost.invalid"] == [], "a name under .invalid has none (RFC 6761)")
    for pair in recording.scene("networks").facts["pairs"]:
        network = ipaddress.ip_network(f"{pair['one']}/{pair['prefix']}", strict=False)
        claim(pair["same"] == (ipaddress.ip_address(pair["two"]) in network), f"{pair['one']} and {pair['two']}")
        claim(pair["same"] == same_network(pair["one"], pair["two"], pair["prefix"]), "two ways, one answer")
    up = sum(at["up"] for at in machine["interfaces"])
    us = machine["names"]["localhost"]
    return {
        "en": f"{up} interfaces are up; localhost is {', '.join(us)}; five pairs compared under their masks.",
        "zh": f"有 {up} 个网卡启用；localhost 是 {'、'.join(us)}；五对地址已在各自的掩码下比较。",
    }


CODE = (same_network, interfaces, gateway)
