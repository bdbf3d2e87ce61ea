"""The cures: a length prefix and a JSON header; and what recv(4) breaks when it returns 3."""

from __future__ import annotations

import json
import struct

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "a length before each message, and read exactly", "zh": "先发长度、读够长度：粘包的解法"}
QUESTION: Text = {
    "en": "How does a reader know where a message ends, and why is recv(4) not enough to read four bytes?",
    "zh": "读的一方怎么知道一条消息在哪里结束？要读 4 个字节，为什么 recv(4) 不够？",
}
SETUP: Text = {
    "en": """First two messages, each behind its length (4 bytes, big-endian), in one queue. Then the prefix
        itself arrives in two parts, 3 bytes and 1, as any network may deliver it. Last, a JSON header that says
        more than a length.""",
    "zh": """先是两条消息，各带 4 字节大端长度，同在一个队列里。接着长度前缀自己分两段到达（3 字节 + 1 字节），
网络随时可能如此。
最后用 JSON 头，它能说的不止长度。""",
}
LOOK: Text = {
    "en": """`recv(4)` means "at most 4". read_exactly asks for what is missing until it has all, so it cannot be
        fooled by the way the bytes were cut. One loop, used for the prefix, the header and the payload alike, is
        the whole cure.""",
    "zh": """`recv(4)` 的意思是“最多 4 个”。read_exactly 缺多少要多少，直到读够，所以字节怎样被切开都骗不了它。
前缀、头部、正文都用同一个循环来读，这就是全部的解法。""",
}


def read_exactly(sock: Tap, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError(f"the stream ended {size - len(data)} bytes too early")
        data += chunk
    return data


def send_message(sock: Tap, payload: bytes, label: str) -> None:
    sock.sendall(struct.pack("!I", len(payload)) + payload, of=label)


def read_message(sock: Tap) -> bytes:
    (length,) = struct.unpack("!I", read_exactly(sock, 4))
    return read_exactly(sock, length)


def trusting_read(sock: Tap) -> bytes:
    (length,) = struct.unpack("!I", sock.recv(4))  # "it asked for 4, so it gets 4"
    return sock.recv(length)


def send_with_header(sock: Tap, name: str, payload: bytes) -> None:
    header = json.dumps({"filename": name, "size": len(payload)}).encode()
    sock.sendall(struct.pack("!I", len(header)), of="length")
    sock.sendall(header, of="header")
    sock.sendall(payload, of="payload")


def read_with_header(sock: Tap) -> tuple[dict[str, object], bytes]:
    header = json.loads(read_message(sock))
    return header, read_exactly(sock, header["size"])


def run(recorder: Recorder) -> Recording:
    recorder.scene("prefix", {"en": "a length before each message", "zh": "每条消息前面带上长度"})
    client, server = recorder.pair(nodelay=True)
    send_message(client, b"hello", "A")
    send_message(client, b"world!", "B")
    recorder.wait(lambda: server.unread() == 19, "both messages lie in the queue")
    recorder.fact("read", [read_message(server).decode(), read_message(server).decode()])

    recorder.scene("trusted", {"en": "recv(4) returns 3, and is trusted", "zh": "recv(4) 只返回 3，却被信任"})
    client, server = recorder.pair(nodelay=True)
    wire = struct.pack("!I", 5) + b"hello"
    client.send(wire[:3], of="A")
    recorder.wait(lambda: server.unread() == 3, "three bytes of the prefix lie in the queue")
    try:
        trusting_read(server)
        recorder.fact("failure", "")
    except struct.error as error:
        recorder.fact("failure", str(error))
        recorder.remark("server", {"en": f"struct.error: {error}", "zh": f"struct.error：{error}"})
    client.send(wire[3:], of="A")

    recorder.scene("exact", {"en": "the same cut, read exactly", "zh": "同样的切法，用 read_exactly 读"})
    client, server = recorder.pair(nodelay=True)
    client.send(wire[:3], of="A")
    recorder.wait(lambda: server.unread() == 3, "three bytes of the prefix lie in the queue")
    # read_exactly would wait here; its first recv and its second, with the missing byte sent in between
    first = server.recv(4)
    client.send(wire[3:], of="A")
    second = read_exactly(server, 4 - len(first))
    recorder.fact("read", read_exactly(server, struct.unpack("!I", first + second)[0]).decode())

    recorder.scene("json", {"en": "length, JSON header, payload", "zh": "长度、JSON 头、正文"})
    client, server = recorder.pair(nodelay=True)
    send_with_header(client, "note.txt", b"sticky no more")
    header, payload = read_with_header(server)
    recorder.fact("header", header)
    recorder.fact("payload", payload.decode())
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    claim(recording.scene("prefix").facts["read"] == ["hello", "world!"], "both messages were read whole and apart")
    trusted = recording.scene("trusted")
    claim(trusted.calls("recv")[0].returned == 3, "recv(4) returned 3 bytes")
    claim("4 bytes" in trusted.facts["failure"], "the trusting reader failed on them")
    exact = recording.scene("exact")
    claim([event.returned for event in exact.calls("recv")] == [3, 1, 5], "3 bytes, then the missing 1, then 5")
    claim(exact.facts["read"] == "hello", "the message was read whole in spite of the cut")
    headed = recording.scene("json").facts
    claim(headed["header"] == {"filename": "note.txt", "size": 14}, "the JSON header came through")
    claim(headed["payload"] == "sticky no more", "and so did the payload")
    return {
        "en": """With a length and a reader that reads to it, two messages in one queue and a prefix cut in two
            were both read whole; the reader that trusted recv(4) broke on 3 bytes.""",
        "zh": """有了长度、又读够长度，粘在一起的两条消息和被切成两段的前缀都完整读出；
轻信 recv(4) 的写法遇到 3 个字节就出错。""",
    }


CODE = (read_exactly, send_message, read_message, trusting_read, send_with_header, read_with_header)
