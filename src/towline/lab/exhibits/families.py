"""The same talk over IPv4, IPv6 and a Unix socket."""

from __future__ import annotations

import os
import socket
import struct
import tempfile

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import SocketAddress, Tap, show
from towline.lab.texts import Text

TITLE: Text = {"en": "the same talk over IPv4, IPv6 and a Unix socket", "zh": "同一段对话：IPv4、IPv6、Unix 套接字"}
QUESTION: Text = {
    "en": "What changes in a program when the address family changes?",
    "zh": "换一个地址族，程序要改什么？",
}
SETUP: Text = {
    "en": "One function talks with one server three times: at 127.0.0.1, at ::1, and at a path in the file system.",
    "zh": "同一个函数与服务器对话三次：地址分别是 127.0.0.1、::1 和文件系统里的一个路径。",
}
LOOK: Text = {
    "en": """Only the address changes; connect, send and recv stay. A Unix socket has no port, no segments and no
        TIME_WAIT, the file's permissions guard it, and its kernel vouches for who is calling (SO_PEERCRED). Its
        file stays behind and must be removed before the next bind.""",
    "zh": """变的只有地址；connect、send、recv 都不变。Unix 套接字没有端口、报文段和 TIME_WAIT，由文件权限把守，
内核还能证明来者是谁（SO_PEERCRED）。它的文件会留下来，下次 bind 之前要删掉。""",
}


def talk(recorder: Recorder, address: SocketAddress) -> tuple[Tap, Tap]:
    listener = recorder.listen(address)
    client = recorder.connect(listener.local)
    server = listener.accept()
    client.sendall(b"hello")
    server.sendall(server.recv(1024).upper())
    client.recv(1024)
    return client, server


def caller(server: Tap) -> tuple[int, int]:
    raw = server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", raw)
    return pid, uid


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def run(recorder: Recorder) -> Recording:
    recorder.scene("ipv4", {"en": "IPv4", "zh": "IPv4"}, segments=False)
    client, server = talk(recorder, ("127.0.0.1", 0))
    recorder.fact("ends", [show(client.local), show(server.local)])
    recorder.scene("ipv6", {"en": "IPv6", "zh": "IPv6"}, segments=False)
    if has_ipv6():
        client, server = talk(recorder, ("::1", 0))
        recorder.fact("ends", [show(client.local), show(server.local)])
    else:
        recorder.footnote({"en": "This system has no IPv6 on loopback.", "zh": "本系统的回环接口没有 IPv6。"})
    recorder.scene("unix", {"en": "a Unix socket", "zh": "Unix 套接字"}, segments=False)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "talk.sock")
        client, server = talk(recorder, path)
        recorder.fact("ends", [show(client.local) or "(unnamed)", os.path.basename(path)])
        recorder.fact("file_stays", os.path.exists(path))
        if hasattr(socket, "SO_PEERCRED"):
            pid, uid = caller(server)
            recorder.fact("caller_is_us", (pid, uid) == (os.getpid(), os.getuid()))
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    shown = [scene for scene in recording.scenes if scene.note is None]
    for scene in shown:
        claim(scene.calls("recv", who="client")[0].data == b"HELLO", f"the answer came over {scene.name}")
    claim(len(shown) >= 2, "at least two families are there")
    unix = recording.scene("unix").facts
    claim(unix["file_stays"], "the Unix socket's file stays behind")
    claim(unix.get("caller_is_us", True), "the kernel names the caller's process and user")
    families = ", ".join(scene.name for scene in shown)
    return {
        "en": f"The same function talked over {families}; only the address differed.",
        "zh": f"同一个函数走通了 {families}；不同的只有地址。",
    }


CODE = (talk, caller)
