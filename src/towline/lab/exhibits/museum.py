"""Seven published mistakes, run for real on real sockets and caught, each with the right way beside it."""

from __future__ import annotations

import json
import os
import struct
import tempfile

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "seven published mistakes, caught in the act", "zh": "错误博物馆：七个流传甚广的写法"}
QUESTION: Text = {
    "en": "This code is in hundreds of lessons and it works on my machine. What is wrong with it?",
    "zh": "这些代码出现在无数教程里，在我机器上也跑得通，到底错在哪里？",
}
SETUP: Text = {
    "en": """Each mistake reads real bytes from a real socket, delivered in a way that any network may choose.
        Beside it reads the right way. An endless loop is stopped after 1000 turns; the file that escapes stays
        inside a temporary folder.""",
    "zh": """每个错误写法都从真实套接字读真实字节，字节的到达方式是任何网络都可能出现的；旁边是正确的写法。
死循环在第 1000 圈时被拦下；越界的文件只逃到临时文件夹之内。""",
}
LOOK: Text = {
    "en": """Six of the seven trust a number: the one recv was asked for, the one the peer sent, the one this
        machine's byte order makes of it. The seventh trusts a name. What comes from the network is a claim: count
        what really came, give each length one byte order and bounds, and choose file names yourself.""",
    "zh": """七个里有六个轻信了一个数：recv 要的数、对方报的数、本机字节序解出来的数；第七个轻信了一个名字。
来自网络的一切都只是“说法”：按实际收到的计数，长度要规定字节序和上下限，文件名由自己决定。""",
}

BUFSIZE = 8
TURNS = 1000  # an endless loop ends here


def read_exactly(sock: Tap, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise EOFError("the stream ended too early")
        data += chunk
    return data


# 1. counting what was asked for


def bad_remaining(sock: Tap, size: int) -> bytes:
    data, remaining = b"", size
    while remaining > 0:
        data += sock.recv(BUFSIZE)
        remaining -= BUFSIZE  # recv may have returned less
    return data


# 2. reading past the end of the file


def bad_last_chunk(sock: Tap, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(BUFSIZE)  # the last one takes the next header along
    return data


# 3. trusting recv(header_len)


def bad_header(sock: Tap, header_len: int) -> dict[str, object]:
    header: dict[str, object] = json.loads(sock.recv(header_len))  # may be half of it
    return header


# 4. a loop that does not know the end of the stream


def bad_loop(sock: Tap, size: int) -> tuple[bytes, int]:
    data, turns = b"", 0
    while len(data) < size:
        data += sock.sock.recv(BUFSIZE)  # b"" again and again after the end
        turns += 1
        if turns == TURNS:  # the lesson's loop has no such line
            break
    return data, turns


# 5. and 6. a length in this machine's byte order, and without bounds


def bad_length(raw: bytes) -> int:
    return int(struct.unpack("i", raw)[0])


def good_length(raw: bytes, limit: int = 1 << 20) -> int:
    length = int(struct.unpack("!I", raw)[0])
    if length > limit:
        raise ValueError(f"a length of {length} is above the limit of {limit}")
    return length


# 7. the sender's file name, straight into open()


def bad_save(folder: str, name: str, data: bytes) -> str:
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.write(data)
    return os.path.realpath(path)


def good_save(folder: str, name: str, data: bytes) -> str:
    if os.path.basename(name) != name or name in {"", ".", ".."}:
        raise ValueError(f"{name!r} is no plain file name")
    return bad_save(folder, name, data)


def run(recorder: Recorder) -> Recording:
    _remaining(recorder)
    _last_chunk(recorder)
    _header(recorder)
    _loop(recorder)
    _byte_order(recorder)
    _negative(recorder)
    _file_name(recorder)
    _summary(recorder)
    return recorder.recording()


def _both(recorder: Recorder, wire: list[bytes]) -> list[Tap]:
    # Two readers, two connections, the same bytes: one for the mistake, one for the right way.
    readers = []
    for name in ("mistake", "right way"):
        sender, reader = recorder.pair("sender", name, nodelay=True)
        for part in wire:
            sender.send(part)
        sender.close()
        recorder.wait(lambda reader=reader: reader.unread() == sum(map(len, wire)), "all bytes lie in the queue")  # type: ignore[misc]
        readers.append(reader)
    return readers


def _open(recorder: Recorder, name: str, title: Text) -> None:
    recorder.scene(name, title, left=("sender",), right=("mistake", "right way"), segments=False)


def _result(recorder: Recorder, bad: object, good: object) -> None:
    recorder.fact("mistake", bad)
    recorder.fact("right", good)


def _remaining(recorder: Recorder) -> None:
    _open(recorder, "remaining", {"en": "remaining -= bufsize", "zh": "remaining -= bufsize"})
    readers = []
    for name, read in (("mistake", bad_remaining), ("right way", read_exactly)):
        sender, reader = recorder.pair("sender", name, nodelay=True)
        sender.send(b"01234", of="file")  # the network delivers 5 bytes first ...
        recorder.wait(lambda reader=reader: reader.unread() == 5, "the first part")  # type: ignore[misc]
        first = reader.recv(BUFSIZE if read is bad_remaining else 16)
        sender.send(b"56789abcdef", of="file")  # ... and 11 later
        recorder.wait(lambda reader=reader: reader.unread() == 11, "the second part")  # type: ignore[misc]
        left = 16 - (BUFSIZE if read is bad_remaining else len(first))
        readers.append((first + read(reader, left)).decode())
    _result(recorder, *readers)


def _last_chunk(recorder: Recorder) -> None:
    _open(
        recorder,
        "last-chunk",
        {"en": "the last chunk takes the next header", "zh": """最后一块多读，吃掉下一个头部"""},
    )
    bad, good = _both(recorder, [b"twelve bytes", b"NEXT"])
    _result(recorder, bad_last_chunk(bad, 12).decode(), read_exactly(good, 12).decode())
    recorder.fact("next_mistake", bad.recv(4).decode())
    recorder.fact("next_right", read_exactly(good, 4).decode())


def _header(recorder: Recorder) -> None:
    _open(recorder, "header", {"en": "recv(header_len) trusted", "zh": "轻信 recv(header_len)"})
    wire = json.dumps({"lenth": 10}).encode()
    bad_sender, bad = recorder.pair("sender", "mistake", nodelay=True)
    bad_sender.send(wire[:7], of="header")
    recorder.wait(lambda: bad.unread() == 7, "half of the header")
    try:
        outcome = str(bad_header(bad, len(wire)))
    except ValueError as error:
        outcome = type(error).__name__
    good_sender, good = recorder.pair("sender", "right way", nodelay=True)
    good_sender.send(wire[:7], of="header")
    recorder.wait(lambda: good.unread() == 7, "half of the header")
    first = good.recv(len(wire))  # what read_exactly does, with the second half sent in between
    good_sender.send(wire[7:], of="header")
    _result(recorder, outcome, json.loads(first + read_exactly(good, len(wire) - len(first))))


def _loop(recorder: Recorder) -> None:
    _open(recorder, "loop", {"en": "a loop that does not see the end", "zh": "看不见结尾的循环"})
    bad, good = _both(recorder, [b"half a fi"])
    _, turns = bad_loop(bad, 20)
    recorder.remark("mistake", {"en": f"stopped after {turns} turns", "zh": f"转了 {turns} 圈后被拦下"})
    try:
        read_exactly(good, 20)
        outcome = "no error"
    except EOFError as error:
        outcome = str(error)
    _result(recorder, turns, outcome)


def _byte_order(recorder: Recorder) -> None:
    _open(recorder, "byte-order", {"en": "a native-endian length", "zh": "用本机字节序的长度"})
    bad, good = _both(recorder, [struct.pack("!I", 5) + b"hello"])
    # struct.unpack("i") on a little-endian machine; where this machine is big-endian, its peer is the other.
    raw = read_exactly(bad, 4)
    native = bad_length(raw)
    _result(recorder, native if native != 5 else int.from_bytes(raw, "little"), good_length(read_exactly(good, 4)))


def _negative(recorder: Recorder) -> None:
    _open(recorder, "negative", {"en": "a negative length", "zh": "负数长度"})
    bad, good = _both(recorder, [struct.pack("i", -1)])
    length = bad_length(read_exactly(bad, 4))
    try:
        bad.recv(length)
        outcome = "no error"
    except ValueError as error:
        outcome = f"ValueError: {error}"
    recorder.remark("mistake", {"en": f"recv({length}): {outcome}", "zh": f"recv({length})：{outcome}"})
    try:
        good_length(read_exactly(good, 4))
        refusal = "accepted"
    except ValueError as error:
        refusal = str(error)
    recorder.remark("right way", {"en": refusal, "zh": f"拒绝：{refusal}"})
    _result(recorder, [length, outcome], refusal)


def _file_name(recorder: Recorder) -> None:
    _open(recorder, "file-name", {"en": "the sender's file name in open()", "zh": "头部里的文件名直接交给 open()"})
    name = "../escaped.txt"
    bad, good = _both(recorder, [name.encode()])
    with tempfile.TemporaryDirectory() as outside:
        inside = os.path.join(os.path.realpath(outside), "downloads")
        os.mkdir(inside)
        written = bad_save(inside, bad.recv(1024).decode(), b"x")
        escaped = not written.startswith(inside + os.sep) and os.path.exists(written)
        os.unlink(written)
        try:
            good_save(inside, good.recv(1024).decode(), b"x")
            refusal = "saved"
        except ValueError as error:
            refusal = str(error)
        recorder.fact("left_behind", os.listdir(outside) + os.listdir(inside))
    _result(recorder, "outside the folder" if escaped else "inside", refusal)


_COLUMNS: tuple[Text, ...] = (
    {"en": "mistake", "zh": "错误写法"},
    {"en": "what came of it", "zh": "后果"},
    {"en": "the right way", "zh": "正确写法"},
)


def _summary(recorder: Recorder) -> None:
    recorder.scene("summary", {"en": "The collection", "zh": "馆藏一览"})
    rows: list[tuple[str | Text, ...]] = [
        (
            "remaining -= bufsize",
            {"en": "stops early, the file is short", "zh": "提前结束，文件残缺"},
            "remaining -= len(chunk)",
        ),
        (
            "recv(bufsize)",
            {"en": "eats the next header", "zh": "吃掉下一个头部"},
            "recv(min(bufsize, remaining))",
        ),
        ("json.loads(recv(n))", {"en": "half a header", "zh": "半个头部"}, "json.loads(read_exactly(n))"),
        ("while len(data) < n", {"en": "turns for ever at the end", "zh": "到结尾后空转不止"}, "if not chunk: raise"),
        ('unpack("i", …)', {"en": "5 becomes 83886080", "zh": "5 变成 83886080"}, 'unpack("!I", …)'),
        ("recv(length)", {"en": "ValueError at -1", "zh": "遇到 -1 抛 ValueError"}, "0 <= length <= LIMIT"),
        ("open(header[name])", {"en": "writes anywhere", "zh": "想写哪里写哪里"}, "basename(name) == name"),
    ]
    recorder.table({"en": "Seven mistakes", "zh": "七个错误"}, _COLUMNS, rows)


def verdict(recording: Recording) -> Text:
    facts = {scene.name: scene.facts for scene in recording.scenes}
    whole = "0123456789abcdef"
    claim(len(facts["remaining"]["mistake"]) < 16 and facts["remaining"]["right"] == whole, "the file came short")
    claim(facts["last-chunk"]["mistake"] == "twelve bytesNEXT", "the last chunk took the next header along")
    claim(facts["last-chunk"]["next_mistake"] == "", "and nothing was left of it")
    claim(facts["last-chunk"]["right"] == "twelve bytes" and facts["last-chunk"]["next_right"] == "NEXT", "cured")
    claim(facts["header"]["mistake"] == "JSONDecodeError", "half a header is no JSON")
    claim(facts["header"]["right"] == {"lenth": 10}, "read exactly, it is")
    claim(facts["loop"]["mistake"] == TURNS, "the loop turned until it was stopped")
    claim("ended" in facts["loop"]["right"], "the right way noticed the end")
    claim(facts["byte-order"]["mistake"] == 83886080 and facts["byte-order"]["right"] == 5, "5 was read as 83886080")
    claim(facts["negative"]["mistake"][0] == -1, "a negative length came through")
    claim("ValueError" in facts["negative"]["mistake"][1], "and recv failed on it")
    claim("above the limit" in facts["negative"]["right"], "the right way refused it by a limit")
    claim(facts["file-name"]["mistake"] == "outside the folder", "the file was written outside the folder")
    claim("no plain file name" in facts["file-name"]["right"], "the right way refused the name")
    claim(facts["file-name"]["left_behind"] == ["downloads"], "nothing was left behind")
    return {
        "en": """All seven failed on bytes that a network may deliver any day; the right way beside each read them
            or refused.""",
        "zh": "七个写法都栽在网络随时可能送来的字节上；旁边的正确写法不是读对了，就是明确拒绝。",
    }


CODE = (
    read_exactly,
    bad_remaining,
    bad_last_chunk,
    bad_header,
    bad_loop,
    bad_length,
    good_length,
    bad_save,
    good_save,
)
