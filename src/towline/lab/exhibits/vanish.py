"""How a peer can disappear: an empty read, a reset, a broken pipe, or silence that only keepalive ends."""

from __future__ import annotations

import subprocess
import sys
import time

from towline.lab import filters
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "a peer vanishes: empty read, reset, half-open", "zh": "对方消失：空读、复位、半开连接"}
QUESTION: Text = {
    "en": "The other program was killed, or its machine lost power. What do I see?",
    "zh": "对方程序被杀，或者对方机器断电，我这边会看到什么？",
}
SETUP: Text = {
    "en": """A real process connects and is killed with SIGKILL: once with an empty receive queue, once with bytes
        that it never read. Then we write to a peer that is gone. Last, a peer that has gone silent: a socket
        filter drops all that comes to it, as a pulled cable would; keepalive (1 s idle, 1 probe) looks for it.""",
    "zh": """一个真实的进程连上来，再用 SIGKILL 杀掉：一次接收队列已空，一次还有它没读的数据。
接着向已经不在的对方写。最后是沉默的对方：套接字过滤器丢弃一切到达它的东西，如同拔掉网线；
由 keepalive（空闲 1 秒，探测 1 次）去发现。""",
}
LOOK: Text = {
    "en": """A killed process still says goodbye, because its kernel closes for it: an empty read, or ECONNRESET
        where it left bytes unread. The first write to a gone peer succeeds; only the second fails. And a machine
        that is gone says nothing: the connection stays ESTABLISHED for ever, unless somebody asks. A program that
        waits for bytes needs a deadline or a heartbeat.""",
    "zh": """进程被杀也会“道别”，因为内核替它关闭：读到空字节；若它有没读的数据，则是 ECONNRESET。
向已消失的对方写，第一次成功，第二次才失败。而断电的机器什么也不说：连接一直是 ESTABLISHED，除非有人去问。
等待数据的程序必须有期限或心跳。""",
}

_VICTIM = """
import socket, sys, time
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.send(b"hi")
time.sleep(60)
"""


def kill_peer(recorder: Recorder, server_sends: bytes) -> Tap:
    listener = recorder.listen()
    victim = subprocess.Popen([sys.executable, "-ISc", _VICTIM, str(listener.local[1])])
    try:
        server = listener.accept()
        server.recv(1024)
        listener.sock.close()
        if server_sends:
            server.send(server_sends)  # the victim never reads it
        recorder.remark("victim", {"en": "killed with SIGKILL", "zh": "被 SIGKILL 杀死"})
    finally:
        victim.kill()
        victim.wait()
    return server


def read_on(server: Tap) -> str:
    try:
        return repr(server.recv(1024))
    except OSError as error:
        return type(error).__name__


def write_on(recorder: Recorder, server: Tap) -> None:
    server.send(b"are you there?")  # succeeds: the kernel has taken it
    recorder.wait(lambda: server.states()[0] == "CLOSED", "the peer's answer, a reset")
    try:
        server.send(b"hello?")
    except OSError:
        pass  # noted


def half_open(recorder: Recorder, server: Tap, client: Tap) -> None:
    server.option("SO_KEEPALIVE", 1)
    server.option("TCP_KEEPIDLE", 1)  # seconds of silence before the first question
    server.option("TCP_KEEPINTVL", 1)  # seconds between questions
    server.option("TCP_KEEPCNT", 1)  # questions without an answer before giving up
    with filters.deaf(client.sock):
        recorder.remark("victim", {"en": "the cable is pulled here", "zh": "网线在此刻被拔掉"})
        recorder.look(server)
        read_on(server)


def run(recorder: Recorder) -> Recording:
    left = ("victim",)
    recorder.scene(
        "read", {"en": "killed, nothing unread: an empty read", "zh": """被杀，没有未读数据：空读"""}, left=left
    )
    read_on(kill_peer(recorder, b""))
    recorder.scene("reset", {"en": "killed with bytes unread: a reset", "zh": "被杀，还有未读数据：复位"}, left=left)
    read_on(kill_peer(recorder, b"an answer"))
    recorder.scene("write", {"en": "writing to a peer that is gone", "zh": "向已消失的对方写"}, left=left)
    write_on(recorder, kill_peer(recorder, b""))
    recorder.scene("silence", {"en": "half-open, found by keepalive", "zh": "半开连接，由 keepalive 发现"}, left=left)
    client, server = recorder.pair("victim")
    if filters.can_deafen():
        began = time.monotonic()
        half_open(recorder, server, client)
        recorder.fact("seconds", round(time.monotonic() - began, 2))
    else:
        recorder.look(server)
        recorder.footnote(
            {
                "en": "The silent peer is not shown: this system lets only an administrator filter a socket.",
                "zh": "没有演示沉默的对方：本系统只允许管理员给套接字加过滤器。",
            }
        )
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    claim(recording.scene("read").calls("recv")[-1].returned == 0, "an empty read after SIGKILL")
    claim(recording.scene("reset").calls("recv")[-1].error == "ECONNRESET", "ECONNRESET where bytes were left unread")
    first, second = recording.scene("write").calls("send")
    claim(first.returned == first.asked, "the first write to a gone peer succeeded")
    claim(second.error in {"EPIPE", "ECONNRESET"}, "the second one failed")
    silence = recording.scene("silence")
    if silence.note is None:
        lost = silence.calls("recv")[-1]
        claim(silence.states()[0] == ("ESTABLISHED", "ESTABLISHED"), "half-open looks like ESTABLISHED")
        claim(lost.error == "ETIMEDOUT", "keepalive ended the silence with ETIMEDOUT")
        claim(lost.took >= 1.0, "and not before a second had passed")
    return {
        "en": """Killed: an empty read, or ECONNRESET with bytes unread. Gone: the first write succeeds, the
            second fails. Silent: ESTABLISHED, until keepalive says ETIMEDOUT.""",
        "zh": """被杀：空读；有未读数据则 ECONNRESET。已消失：第一次写成功，第二次失败。沉默：一直 ESTABLISHED，
直到 keepalive 报 ETIMEDOUT。""",
    }


CODE = (kill_peer, read_on, write_on, half_open)
