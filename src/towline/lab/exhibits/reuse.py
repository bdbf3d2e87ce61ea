"""Address already in use: what SO_REUSEADDR permits, and what not."""

from __future__ import annotations

import socket

from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import SocketAddress
from towline.lab.texts import Text

TITLE: Text = {"en": "address already in use, and SO_REUSEADDR", "zh": "“地址已在使用”与 SO_REUSEADDR"}
QUESTION: Text = {
    "en": "I restart my server and bind fails with EADDRINUSE, though nothing runs any more. Why?",
    "zh": "服务器停了再启动，bind 却报“Address already in use”，明明没有程序在运行，为什么？",
}
SETUP: Text = {
    "en": """A server serves one client and closes first, so its end of the connection stays in TIME_WAIT on the
        port. Then it is restarted on the same port, with the option set by neither, one or both of the two runs;
        and once while the first one still listens.""",
    "zh": """服务器接待一个客户端后先关闭，于是它那一端在该端口上留下 TIME_WAIT。
随后在同一端口上重新启动：两次都不设该选项、只有一次设、两次都设；最后再试一次前一个仍在监听的情形。""",
}
LOOK: Text = {
    "en": """On Linux the *first* run must have set the option as well: its TIME_WAIT remembers. So set it always,
        before bind. It does not let two servers listen on one port; for that there is SO_REUSEPORT, which is
        another thing.""",
    "zh": """在 Linux 上，*前一次*运行也必须设过这个选项：TIME_WAIT 会记住它。所以每次都要设，而且要在 bind 之前。
它并不允许两个服务器同时监听一个端口；那是另一个选项 SO_REUSEPORT 的事。""",
}


def serve_once(recorder: Recorder, reuse: bool) -> SocketAddress:
    listener = recorder.listen(reuse=reuse)
    client = recorder.connect(listener.local)
    server = listener.accept()
    server.close()  # the server ends first ...
    client.recv(1)
    client.close()
    listener.close()
    recorder.wait(lambda: client.states()[1] == "TIME_WAIT", "TIME_WAIT on the server's port")
    recorder.look(client)  # ... and keeps TIME_WAIT
    return listener.local


def restart(recorder: Recorder, address: SocketAddress, reuse: bool) -> str:
    server = recorder.new("restarted")
    if reuse:
        server.option("SO_REUSEADDR", 1)
    try:
        server.bind(address)
        server.listen(5)
    except OSError as error:
        return "EADDRINUSE" if error.errno == 98 else str(error)
    finally:
        server.sock.close()
    return "OK"


_CASES: tuple[tuple[str, bool, bool, Text], ...] = (
    ("neither", False, False, {"en": "SO_REUSEADDR in neither run", "zh": "两次都不设 SO_REUSEADDR"}),
    ("second", False, True, {"en": "only in the second run", "zh": "只有第二次设"}),
    ("both", True, True, {"en": "in both runs", "zh": "两次都设"}),
)


def run(recorder: Recorder) -> Recording:
    sides = ("server", "restarted")
    results = {}
    for name, first, second, title in _CASES:
        recorder.scene(name, title, right=sides, segments=False)
        results[name] = restart(recorder, serve_once(recorder, first), second)
    recorder.scene(
        "alive", {"en": "while the first still listens", "zh": "前一个仍在监听"}, right=sides, segments=False
    )
    listener = recorder.new("server")
    listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    results["alive"] = restart(recorder, listener.local, True)
    recorder.fact("results", results)
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    for name, expected in (
        ("neither", "EADDRINUSE"),
        ("second", "EADDRINUSE"),
        ("both", ""),
        ("alive", "EADDRINUSE"),
    ):
        scene = recording.scene(name)
        # A live listener may be refused at bind or at listen; either is the same answer.
        errors = [event.error for event in scene.calls("bind", "listen", who="restarted")]
        claim(max(errors) == expected, f"{name}: {expected or 'no error'}, but it was {errors}")
        if name != "alive":
            claim(scene.states() == [("CLOSED", "TIME_WAIT")], f"{name}: TIME_WAIT lay on the server's port")
    return {
        "en": """EADDRINUSE, unless both the run that left TIME_WAIT and the new one set SO_REUSEADDR; never
            beside a listener.""",
        "zh": "只有留下 TIME_WAIT 的那次和新的这次都设了 SO_REUSEADDR 才能成功；旁边有监听者时始终报 EADDRINUSE。",
    }


CODE = (serve_once, restart)
