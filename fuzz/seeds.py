"""The seed corpus, made from the frame table; `python -m fuzz.seeds DIR` writes it as files."""

from __future__ import annotations

import os
import sys
from random import Random

from towline.protocol.codec import Frame, encode
from towline.protocol.table import FRAMES, MAGIC, PREFACE, PREFIX, FrameSpec, Kind, Type

_VALUES = {Type.INT: 7, Type.STR: "text", Type.BOOL: True, Type.OBJECT: {"streams": 4}, Type.NUMBER: 1.5}
_STRANGE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\n",
    MAGIC + b"\x02",
    PREFACE + PREFIX.pack(Kind.DATA, 0, 0, 0xFFFF_FFFF, 1),
    PREFACE + PREFIX.pack(Kind.HELLO, 0, 0xFFFF, 0, 0) + b"{",
)


def decoder_seeds() -> list[bytes]:
    """Every kind of frame, alone and behind an opening, for every listener; strangers; broken lengths."""
    hello = PREFACE + encode(_example(FRAMES[Kind.HELLO]))
    streams = [Frame(Kind.OPEN, 0, n, {"service": "echo"}) for n in (1, 2, 3, 5, 9)]
    wires = [*_STRANGE, hello, hello + encode(_example(FRAMES[Kind.PROVE]))]
    for spec in FRAMES.values():
        frame = encode(_example(spec))
        wires += [frame, PREFACE + frame, hello + frame]
        for opened in streams:
            number = opened.stream
            wires.append(encode(opened) + encode(_example(spec)._replace(stream=number if spec.on_stream else 0)))
    return [bytes([who, step]) + wire for who in range(9) for step in (0, 5) for wire in wires]


def operation_seeds() -> list[bytes]:
    """Plausible conversations: open, deliver, send, deliver, read, end, release; and random ones."""
    exchange = bytes(b for side in (0, 1) for b in (24 + side, 17, 26 + 1 - side, 200))
    polite = bytes([1, 1, 2]) + exchange + bytes([2, 0, 5, 3]) + exchange + bytes([12, 0, 7, 0]) + exchange
    polite += bytes([6, 0, 10, 0]) + exchange
    random = Random(7)
    return [polite, polite * 3, b"\x00" + exchange * 4 + polite, *(random.randbytes(400) for _ in range(20))]


def _example(spec: FrameSpec) -> Frame:
    header = {field.name: _VALUES[field.type] for field in spec.fields}
    if spec.kind is Kind.HELLO:
        header = {"agent": "x", "nonce": "ab" * 32, "limits": {"streams": 4}, "pad": "." * 900}
    elif spec.kind is Kind.PROVE:
        header = {"method": "key", "key": "ab" * 32, "signature": "cd" * 64}
    elif spec.kind is Kind.OPEN:
        header = {"service": "echo", "class": 2}
    body = bytes(range(spec.body_size or 0)) if spec.body_size is not None else b"body bytes"
    return Frame(int(spec.kind), 0, 1 if spec.on_stream else 0, header or None, body)


def write(folder: str) -> int:
    """One file for each seed, in a folder for each target."""
    count = 0
    for name, seeds in (("decoder", decoder_seeds()), ("operations", operation_seeds())):
        os.makedirs(os.path.join(folder, name), exist_ok=True)
        for index, seed in enumerate(seeds):
            with open(os.path.join(folder, name, f"{index:04}.bin"), "wb") as file:
                file.write(seed)
        count += len(seeds)
    return count


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m fuzz.seeds DIR")
    print(f"{write(sys.argv[1])} seeds in {sys.argv[1]}")
