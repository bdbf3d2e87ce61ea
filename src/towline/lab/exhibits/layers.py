"""One message through the layers: payload, segment, packet, frame, with every byte named."""

from __future__ import annotations

import struct

from towline.lab import headers
from towline.lab.exhibit import claim
from towline.lab.headers import ETHERNET, IPV4, PAYLOAD, TCP, Layer
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "one message through the layers, every byte named", "zh": "一条消息穿过各层，每个字节都有名字"}
QUESTION: Text = {
    "en": "I send 15 bytes. What goes onto the wire?",
    "zh": "我发送 15 个字节，线上走的究竟是什么？",
}
SETUP: Text = {
    "en": "One message is sent over a loopback connection, and the frame that carried it is taken apart.",
    "zh": "在回环连接上发送一条消息，再把承载它的帧拆开来看。",
}
LOOK: Text = {
    "en": """Each layer puts its header in front and treats all behind as payload: TCP says which bytes of the
        stream (ports, sequence), IP says which machine, Ethernet says which neighbour. On loopback both MACs are
        zero, and the TCP checksum is left unfinished because no cable can spoil it.""",
    "zh": """每一层都在前面加上自己的头部，把后面的一切当作载荷：TCP 说明是流里的哪些字节（端口、序号），
IP 说明是哪台机器，以太网说明是哪个邻居。回环接口上两个 MAC 都是零；TCP 校验和也没有算完，因为没有线缆会弄坏它。""",
}

MESSAGE = "你好, Towline".encode()

_NAMES: dict[str, str] = {
    "destination MAC": "目的 MAC",
    "source MAC": "源 MAC",
    "type": "类型",
    "version and header length": "版本与头部长度",
    "type of service": "服务类型",
    "total length": "总长度",
    "identification": "标识",
    "flags and fragment offset": "标志与分片偏移",
    "time to live": "生存时间 TTL",
    "protocol": "协议",
    "header checksum": "头部校验和",
    "source address": "源地址",
    "destination address": "目的地址",
    "source port": "源端口",
    "destination port": "目的端口",
    "sequence number": "序号",
    "acknowledgment number": "确认号",
    "data offset": "数据偏移",
    "flags": "标志",
    "window": "窗口",
    "checksum": "校验和",
    "urgent pointer": "紧急指针",
    "options": "选项",
    "data": "数据",
}
_LAYER_NAMES: dict[str, Text] = {
    ETHERNET: {"en": "frame (Ethernet)", "zh": "帧（以太网）"},
    IPV4: {"en": "packet (IPv4)", "zh": "包（IPv4）"},
    TCP: {"en": "segment (TCP)", "zh": "段（TCP）"},
    PAYLOAD: {"en": "payload (ours)", "zh": "载荷（我们的）"},
}


def send_one(client: Tap, server: Tap) -> bytes:
    client.send(MESSAGE)
    return server.recv(1024)


def wrap(payload: bytes, source: tuple[str, int], target: tuple[str, int]) -> bytes:
    """The same frame built by hand, where it cannot be captured: what only TCP knows is zero."""
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], 0, 0, 5 << 4, 0x18, 0, 0, 0) + payload
    addresses = b"".join(bytes(map(int, host.split("."))) for host in (source[0], target[0]))
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + addresses
    ip = ip[:10] + headers.checksum(ip).to_bytes(2) + ip[12:]
    return bytes(12) + b"\x08\x00" + ip + tcp


def run(recorder: Recorder) -> Recording:
    recorder.scene("message", {"en": "one send, one recv", "zh": "一次 send，一次 recv"})
    client, server = recorder.pair(nodelay=True)
    send_one(client, server)
    frames = [seen.frame for seen in recorder.frames() if seen.segment.payload == MESSAGE]
    recorder.scene("layers", {"en": "The frame, from the outside in", "zh": "这个帧，由外到内"})
    if not frames:
        recorder.footnote(
            {
                "en": """Built by the rules, not seen: this process may not open a packet socket. Sequence
                    numbers, window and TCP checksum are zero.""",
                "zh": "这个帧是按规则拼出来的，并非捕获：本进程无权打开 packet 套接字。序号、窗口和 TCP 校验和为零。",
            }
        )
    frame = frames[0] if frames else wrap(MESSAGE, client.local, server.local)
    recorder.fact("frame", frame.hex())
    found = headers.layers(frame)
    _onion(recorder, found, len(frame))
    for layer in found:
        _fields(recorder, layer, frame)
    return recorder.recording()


def _onion(recorder: Recorder, found: list[Layer], size: int) -> None:
    columns: tuple[Text, ...] = (
        {"en": "layer", "zh": "层"},
        {"en": "header", "zh": "头部"},
        {"en": "bytes of the frame", "zh": "在帧中的字节"},
        {"en": "picture", "zh": "图示"},
    )
    rows: list[tuple[str | Text, ...]] = []
    for layer in found:
        # One column of the picture stands for four bytes.
        before, own, rest = layer.offset // 4, max(layer.length // 4, 1), (size - layer.offset - layer.length) // 4
        rows.append(
            (
                _LAYER_NAMES.get(layer.name, {"en": layer.name, "zh": layer.name}),
                f"{layer.length} B",
                f"{layer.offset}–{layer.offset + layer.length - 1}",
                " " * before + "█" * own + "░" * rest,
            )
        )
    recorder.table(
        {"en": f"{size} bytes carry {len(MESSAGE)}", "zh": f"{size} 个字节承载 {len(MESSAGE)} 个"}, columns, rows
    )


def _fields(recorder: Recorder, layer: Layer, frame: bytes) -> None:
    columns: tuple[Text, ...] = (
        {"en": "bytes", "zh": "字节"},
        {"en": "field", "zh": "字段"},
        {"en": "hex", "zh": "十六进制"},
        {"en": "meaning", "zh": "含义"},
    )
    rows: list[tuple[str | Text, ...]] = []
    for field in layer.fields:
        raw = frame[field.offset : field.offset + field.length]
        value = MESSAGE.decode() if layer.name == PAYLOAD else field.value
        shown = raw.hex(" ") if len(raw) <= 8 else raw[:7].hex(" ") + " …"
        last = field.offset + field.length - 1
        where = f"{field.offset}–{last}" if field.length > 1 else str(field.offset)
        rows.append((where, {"en": field.name, "zh": _NAMES.get(field.name, field.name)}, shown, value))
    recorder.table(_LAYER_NAMES.get(layer.name, {"en": layer.name, "zh": layer.name}), columns, rows)


def verdict(recording: Recording) -> Text:
    frame = bytes.fromhex(recording.scene("layers").facts["frame"])
    named = {layer.name: layer for layer in headers.layers(frame)}
    claim(list(named) == [ETHERNET, IPV4, TCP, PAYLOAD], "frame, packet, segment, payload, in this order")
    body = named[PAYLOAD]
    claim(frame[body.offset :] == MESSAGE, "the innermost bytes are the message")
    ip = frame[named[IPV4].offset : named[IPV4].offset + named[IPV4].length]
    claim(int.from_bytes(ip[2:4]) == len(frame) - 14, "IP's total length is the frame without the Ethernet header")
    claim(headers.checksum(ip) == 0, "the sum over the IP header with its checksum is right")
    claim(sum(layer.length for layer in named.values()) == len(frame), "no byte of the frame is without a name")
    parts = " + ".join(str(layer.length) for layer in named.values())
    return {
        "en": f"{len(frame)} bytes = {parts}: Ethernet, IPv4, TCP, and the message itself; every byte has a name.",
        "zh": f"{len(frame)} 字节 = {parts}：以太网、IPv4、TCP 和消息本身；每个字节都有名字。",
    }


CODE = (send_one, wrap, headers.layers)
