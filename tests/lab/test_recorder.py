"""The tap: what it notes is what the socket did and what the kernel says."""

from __future__ import annotations

import socket
import sys  # noqa: F401 - a skip condition names it
from pathlib import Path
from typing import Any

import pytest

from towline.base.errors import TimedOut
from towline.lab import kernel
from towline.lab.recorder import LAB_EVENTS, Recorder
from towline.lab.recording import Event


def scene(recorder: Recorder) -> None:
    recorder.scene("test", {"en": "test", "zh": "测试"})


def test_a_call_is_noted_with_what_was_asked_and_what_came() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        client, server = recorder.pair(nodelay=True)
        client.send(b"hello")
        recorder.wait(lambda: server.unread() == 5, "the bytes")
        server.recv(3)
        server.recv(100)
        sent, first, second = recorder.recording().scenes[0].calls("send", "recv")
    assert (sent.who, sent.asked, sent.returned, sent.start) == ("client", 5, 5, 0)
    assert (first.who, first.asked, first.returned, first.waiting, first.start) == ("server", 3, 3, 5, 0)
    assert (second.asked, second.returned, second.waiting, second.start) == (100, 2, 2, 3)
    assert first.data + second.data == b"hello"
    assert sent.flow == first.flow == second.flow == "client→server"
    assert first.kernel is not None
    assert (first.kernel.state, first.kernel.unread) == ("ESTABLISHED", 2)
    assert sent.at <= first.at <= second.at


def test_an_error_is_noted_by_name_and_raised_again() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        client, server = recorder.pair()
        client.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(10)
        with pytest.raises(ValueError, match="negative"):
            server.recv(-1)
        noted = recorder.recording().scenes[0].calls("recv")
    assert [event.error for event in noted] == ["EAGAIN", "ValueError"]
    assert [event.returned for event in noted] == [None, None]


def test_a_call_that_ctrl_c_ended_is_not_noted_and_the_interruption_goes_on() -> None:
    class Interrupted:
        def __init__(self, sock: socket.socket) -> None:
            self._sock = sock

        def __getattr__(self, name: str) -> Any:
            return getattr(self._sock, name)

        def recv(self, size: int) -> bytes:
            raise KeyboardInterrupt

    with Recorder("test") as recorder:
        scene(recorder)
        _, server = recorder.pair()
        server.sock = Interrupted(server.sock)  # type: ignore[assignment]
        with pytest.raises(KeyboardInterrupt):
            server.recv(10)
        assert not recorder.recording().scenes[0].calls("recv")


def test_bytes_sent_before_accept_belong_to_the_same_flow() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        listener = recorder.listen()
        client = recorder.connect(listener.local)
        client.send(b"early")
        server = listener.accept()
        server.recv(10)
        sent, received = recorder.recording().scenes[0].calls("send", "recv")
    assert sent.flow == received.flow == "client→server"


def test_two_connections_of_the_same_names_are_kept_apart() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        listener = recorder.listen()
        clients = [recorder.connect(listener.local) for _ in range(2)]
        servers = [listener.accept() for _ in range(2)]
        clients[1].send(b"second")
        servers[1].recv(10)
        flows = {client.out for client in clients}
        assert len(flows) == 2
        assert servers[1].into == clients[1].out


def test_unix_sockets_are_paired_too(tmp_path: Path) -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        listener = recorder.listen(str(tmp_path / "s"))
        client = recorder.connect(listener.local)
        server = listener.accept()
        assert server.into == client.out
        client.send(b"x")
        server.recv(1)
        received = recorder.recording().scenes[0].calls("recv")[0]
    assert received.kernel is not None
    assert received.kernel.state == "", "no TCP state on a Unix socket"


def test_payload_beyond_the_limit_is_not_kept_but_counted() -> None:
    with Recorder("test", keep=4) as recorder:
        scene(recorder)
        client, server = recorder.pair()
        client.send(b"0123456789")
        recorder.wait(lambda: server.unread() == 10, "the bytes")
        server.recv(10)
        sent, received = recorder.recording().scenes[0].calls("send", "recv")
    assert sent.data == received.data == b"0123"
    assert sent.returned == received.returned == 10


def test_a_recording_has_a_limit() -> None:
    with Recorder("test", segments=False) as recorder:
        scene(recorder)
        for number in range(LAB_EVENTS.value + 3):
            recorder.note(Event(at=float(number), who="x", call="remark"))
        recorded = recorder.recording().scenes[0]
    assert len(recorded.events) == LAB_EVENTS.value
    assert recorded.facts["events_not_kept"] == 3


def test_waiting_in_vain_ends_and_says_for_what() -> None:
    with Recorder("test", segments=False) as recorder, pytest.raises(TimedOut, match="a miracle"):
        recorder.wait(lambda: False, "a miracle", seconds=0.01)


def test_segments_are_shown_where_a_packet_socket_may_be_opened() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        listener = recorder.listen()
        client = recorder.connect(listener.local)
        listener.accept()
        client.send(b"hello")
        recording = recorder.recording()
    segments = recording.scenes[0].calls("segment")
    if not recording.segments_shown:
        assert recorder.no_segments
        assert segments == []
        return
    assert [event.detail for event in segments[:3]] == ["SYN", "SYN ACK", "ACK"]
    data = next(event for event in segments if event.returned)
    assert (data.who, data.data, data.start, data.flow) == ("client", b"hello", 0, "client→server")
    connect = recording.scenes[0].calls("connect")[0]
    assert connect.at <= segments[0].at, "a segment is stamped when it passed, not when it was read"
    assert segments[-1].at <= recorder.clock()


def test_other_traffic_on_loopback_is_not_recorded() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        client, _ = recorder.pair()
        with socket.create_server(("127.0.0.1", 0)) as other, socket.create_connection(other.getsockname()) as noise:
            noise.send(b"not ours")
            client.send(b"ours")
            recording = recorder.recording()
    assert b"not ours" not in {event.data for event in recording.scenes[0].events}


def test_states_are_the_kernels() -> None:
    with Recorder("test") as recorder:
        scene(recorder)
        listener = recorder.listen()
        assert kernel.state_of(listener.local, ("127.0.0.1", 1)) == "LISTEN"
        client = recorder.connect(listener.local)
        server = listener.accept()
        assert client.states() == server.states() == ("ESTABLISHED", "ESTABLISHED")
        client.close()
        recorder.wait(lambda: client.states() == ("FIN_WAIT2", "CLOSE_WAIT"), "the half-closed states")


_TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000005:0000000A 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
"""


@pytest.mark.skipif("sys.byteorder != 'little'", reason="the sample was taken on a little-endian machine")
def test_the_tables_of_proc_are_read() -> None:
    listener, connection = kernel.parse_table(_TABLE)
    assert (listener.local, listener.state, listener.unread) == (("127.0.0.1", 8080), "LISTEN", 2)
    assert (connection.peer, connection.state) == (("127.0.0.1", 50000), "ESTABLISHED")
    assert (connection.unsent, connection.unread) == (5, 10)


def test_tcp_info_of_any_length_is_read() -> None:
    whole = bytes(range(256))
    for length in range(257):
        found = kernel.parse_tcp_info(whole[:length])
        assert len(found) <= length or not length
    assert kernel.parse_tcp_info(whole)["state"] == 0
    assert kernel.parse_tcp_info(b"\x01" + bytes(7)) == {
        **dict.fromkeys(kernel.parse_tcp_info(bytes(8)), 0),
        "state": 1,
    }
