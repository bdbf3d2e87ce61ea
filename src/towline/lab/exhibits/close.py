"""Four steps to close, half-close, TIME_WAIT, CLOSE_WAIT, and the close that is a reset."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from towline.lab import filters
from towline.lab.exhibit import claim
from towline.lab.recorder import Recorder
from towline.lab.recording import Recording
from towline.lab.tap import Tap
from towline.lab.texts import Text

TITLE: Text = {"en": "four steps to close, half-close, TIME_WAIT, CLOSE_WAIT", "zh": "四次挥手、半关闭与各种 WAIT"}
QUESTION: Text = {
    "en": "How does a connection end, why does one side linger in TIME_WAIT, and what leaves a CLOSE_WAIT behind?",
    "zh": "连接怎样结束？为什么有一端要停在 TIME_WAIT？CLOSE_WAIT 又是谁留下的？",
}
SETUP: Text = {
    "en": """The client ends its half with shutdown(SHUT_WR); the server still answers, then closes. A deaf end
        holds the steps still, as in `handshake`. Then a server that never closes, and a client that closes with
        bytes unread.""",
    "zh": """客户端用 shutdown(SHUT_WR) 结束自己这一半；服务器仍可回话，然后关闭。和 `handshake` 一样，
让一端暂时听不见，好把每一步看清。随后是一个从不 close 的服务器，以及一个还有未读数据就 close 的客户端。""",
}
LOOK: Text = {
    "en": """Each direction ends by itself: FIN means "I have said all", not "go away". Who ends first keeps
        TIME_WAIT (60 s on Linux), so that a late segment cannot wake a new connection. CLOSE_WAIT never ends by
        itself: it waits for *our program* to call close, and is always a bug in the program. Closing with unread
        bytes is no farewell but a reset.""",
    "zh": """两个方向各自结束：FIN 的意思是“我说完了”，不是“请离开”。先结束的一方留在 TIME_WAIT（Linux 上 60 秒），
以免迟到的报文段闯进新连接。CLOSE_WAIT 不会自己消失：它在等*我们的程序*调用 close，出现堆积必是程序的错。
带着未读数据关闭不是道别，而是复位（RST）。""",
}


def orderly(recorder: Recorder, client: Tap, server: Tap) -> None:
    with unheard(server):
        client.shutdown(socket.SHUT_WR)  # FIN
        watch(recorder, client, "FIN_WAIT1", "ESTABLISHED")
    settle(recorder, client, "FIN_WAIT2", "CLOSE_WAIT")
    server.recv(1024)  # returns b"": the other half has ended
    server.send(b"one more thing")  # this half has not
    client.recv(1024)
    with unheard(client):
        server.close()  # FIN
        watch(recorder, client, "FIN_WAIT2", "LAST_ACK")
    settle(recorder, client, "TIME_WAIT", "CLOSED")
    client.recv(1024)
    client.close()


@contextmanager
def unheard(tap: Tap) -> Iterator[None]:
    if not filters.can_deafen():
        yield
        return
    with filters.deaf(tap.sock):
        yield


def watch(recorder: Recorder, client: Tap, here: str, there: str) -> None:
    if filters.can_deafen():  # else the moment is over before it can be seen
        settle(recorder, client, here, there)


def settle(recorder: Recorder, client: Tap, here: str, there: str) -> None:
    recorder.wait(lambda: client.states() == (here, there), f"{here} here, {there} there")
    recorder.look(client)


def run(recorder: Recorder) -> Recording:
    recorder.scene(
        "orderly",
        {
            "en": "FIN, ACK, FIN, ACK, with a half-close",
            "zh": """FIN、ACK、FIN、ACK，
 中间半关闭""",
        },
    )
    client, server = recorder.pair()
    recorder.look(client)
    orderly(recorder, client, server)
    if not filters.can_deafen():
        recorder.footnote(
            {
                "en": "FIN_WAIT1 and LAST_ACK are not shown: this system lets only an administrator filter a socket.",
                "zh": "没有显示 FIN_WAIT1 和 LAST_ACK：本系统只允许管理员给套接字加过滤器。",
            }
        )
    recorder.scene("forgotten", {"en": "a server that never closes", "zh": "从不 close 的服务器"})
    client, server = recorder.pair()
    client.close()
    server.recv(1024)
    settle(recorder, client, "FIN_WAIT2", "CLOSE_WAIT")
    recorder.scene("reset", {"en": "close with bytes unread", "zh": "还有未读数据就 close"})
    client, server = recorder.pair()
    server.send(b"did you get this?")
    recorder.wait(lambda: client.unread() == 17, "the bytes lie in the client's queue")
    client.close()
    settle(recorder, client, "CLOSED", "CLOSED")
    try:
        server.recv(1024)
    except ConnectionResetError:
        pass  # noted
    return recorder.recording()


def verdict(recording: Recording) -> Text:
    scene = recording.scene("orderly")
    states = scene.states()
    claim(("FIN_WAIT2", "CLOSE_WAIT") in states, "the half-closed moment: FIN_WAIT2 and CLOSE_WAIT")
    claim(states[-1] == ("TIME_WAIT", "CLOSED"), "who ended first is left in TIME_WAIT, the other end is gone")
    if scene.note is None:
        claim(("FIN_WAIT1", "ESTABLISHED") in states, "FIN_WAIT1 while the FIN was not yet answered")
        claim(("FIN_WAIT2", "LAST_ACK") in states, "LAST_ACK while the second FIN was not yet answered")
    claim([event.returned for event in scene.calls("recv", who="server")] == [0], "the server read the end")
    claim(scene.calls("recv", who="client")[0].data == b"one more thing", "and could still answer")
    claim(recording.scene("forgotten").states() == [("FIN_WAIT2", "CLOSE_WAIT")], "CLOSE_WAIT stays")
    reset = recording.scene("reset")
    claim(reset.calls("recv")[0].error == "ECONNRESET", "close with unread bytes reset the other end")
    if recording.segments_shown:
        claim(any("RST" in event.detail for event in reset.calls("segment")), "an RST was on the wire")
    return {
        "en": """The end that closed first went through FIN_WAIT1, FIN_WAIT2 and TIME_WAIT, the other through
            CLOSE_WAIT and LAST_ACK; a half-closed connection still carried an answer; unread bytes turned close
            into a reset.""",
        "zh": """先关闭的一端经历 FIN_WAIT1、FIN_WAIT2、TIME_WAIT，另一端经历 CLOSE_WAIT、LAST_ACK；
半关闭的连接照样送回了话；有未读数据时，close 变成了 RST。""",
    }


CODE = (orderly, unheard, watch, settle)
