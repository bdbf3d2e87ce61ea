"""Streams as conversations: credit, half-close, resets, budgets, floods, draining."""

from __future__ import annotations

import weakref

import pytest

from towline.base.errors import (
    BadMessage,
    Busy,
    Cancelled,
    ConnectionLost,
    ControlFlood,
    CreditExceeded,
    Draining,
    LimitExceeded,
    MalformedFrame,
    NotFound,
    ProtocolError,
    StreamClosed,
    TooManyResets,
    TowlineError,
    UnexpectedFrame,
    UnknownService,
)
from towline.base.limits import CONTROL_QUEUE, RESETS, STREAM_WINDOW
from towline.protocol import events as ev
from towline.protocol.codec import Frame, encode
from towline.protocol.liveness import PING_INTERVAL, PONG_TIMEOUT
from towline.protocol.records import Limits, fault_header
from towline.protocol.scheduler import CHUNK
from towline.protocol.session import Session
from towline.protocol.stream import Stream
from towline.protocol.table import Class, Kind, State, StreamState
from world import SMALL, Side, Talk, frames_of, opened_pair, taken

FAULT = {"code": 110, "message": "enough", "retryable": False}


def node_talk(limits: Limits | None = None) -> Talk:
    """A node behind the handshake; the script is the client."""
    return Talk(opened_pair(node_limits=limits)[1], 1.0)


def client_talk(node_limits: Limits | None = None) -> Talk:
    return Talk(opened_pair(node_limits=node_limits)[0], 1.0)


def client_talk_with(limits: Limits) -> Talk:
    return Talk(opened_pair(client_limits=limits)[0], 1.0)


def opening(number: int = 1, cls: int = 2) -> Frame:
    return Frame(Kind.OPEN, 0, number, {"service": "echo", "class": cls})


def data(number: int = 1, body: bytes = b"hello", *, more: bool = False) -> Frame:
    return Frame(Kind.DATA, int(more), number, None, body)


# --- the life of a stream ---


def test_a_request_and_its_answer() -> None:
    talk = node_talk()
    talk.hears(opening(), data(), Frame(Kind.END, 0, 1)).tells("StreamOpened", "DataReceived", "StreamEnded")
    stream = talk.stream
    talk.does(lambda s: (s.accept(stream, {"size": 5}), s.send(stream, b"HELLO"), s.end(stream, {"status": 0})))
    talk.says("ACCEPT stream 1 {size: 5}", "DATA stream 1 5 bytes", "END stream 1 {status: 0}")
    assert stream.state is StreamState.CLOSED
    assert talk.session.streams, "it counts until its handler has ended"
    talk.does(lambda s: (s.release(stream), s.release(stream))).says().tells()
    assert not talk.session.streams


def test_data_may_follow_open_at_once() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "echo"}, Class.BULK)
    talk.session.send(stream, b"x")
    talk.says('OPEN stream 1 {service: "echo", class: 3}', "DATA stream 1 1 byte")
    talk.hears(Frame(Kind.ACCEPT, 0, 1, {"a": 1})).tells("StreamAccepted")


def test_what_was_queued_before_end_goes_out_though_the_handler_is_gone() -> None:
    talk = node_talk()
    stream = talk.hears(opening()).tells("StreamOpened").stream
    talk.does(lambda s: (s.send(stream, b"answer"), s.end(stream), s.release(stream)))
    talk.says("DATA stream 1 6 bytes", "END stream 1").tells()
    assert talk.session.streams
    talk.hears(Frame(Kind.END, 0, 1)).tells("StreamEnded")
    assert not talk.session.streams


def test_data_for_a_handler_that_has_gone_is_answered_by_reset() -> None:
    talk = node_talk()
    stream = talk.hears(opening()).tells("StreamOpened").stream
    talk.does(lambda s: (s.end(stream), s.release(stream))).says("END stream 1")
    talk.hears(data()).tells().says("RESET stream 1 {code: 109")
    assert not talk.session.streams


def test_a_handler_that_ends_nothing_resets_the_stream() -> None:
    talk = node_talk()
    stream = talk.hears(opening()).tells("StreamOpened").stream
    talk.does(lambda s: s.release(stream)).says("RESET stream 1 {code: 109")
    assert not talk.session.streams


def test_a_reset_drops_what_was_queued() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "echo"})
    talk.session.send(stream, b"x" * 5000)
    talk.does(lambda s: s.reset(stream, NotFound("gone"))).says("OPEN", 'RESET stream 1 {code: 301, message: "gone"')
    with pytest.raises(StreamClosed):
        talk.session.send(stream, b"y")
    talk.does(lambda s: s.reset(stream)).says().tells()


def test_frames_for_a_forgotten_stream_are_ignored_and_their_credit_returned() -> None:
    talk = node_talk(SMALL)
    stream = talk.hears(opening()).tells("StreamOpened").stream
    talk.does(lambda s: (s.reset(stream), s.release(stream))).says("RESET")
    talk.hears(Frame(Kind.END, 0, 1), Frame(Kind.RESET, 0, 1, FAULT), Frame(Kind.CREDIT, 0, 1, None, bytes(8)))
    for _ in range(50):
        talk.hears(data(body=bytes(1000)))
        taken(talk.session)
    talk.tells()
    assert talk.session.state is State.OPEN


def test_end_and_reset_cross_each_other() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "echo"})
    talk.session.reset(stream)
    talk.hears(data(1), Frame(Kind.END, 0, 1), Frame(Kind.RESET, 0, 1, FAULT)).tells()
    assert talk.session.state is State.OPEN


def test_messages_queued_before_an_end_count_and_none_after() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "echo"})
    talk.session.end(stream)
    for misuse in (lambda: talk.session.send(stream, b""), lambda: talk.session.end(stream)):
        with pytest.raises(StreamClosed):
            misuse()


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([data(1)], UnexpectedFrame),
        ([opening(2)], UnexpectedFrame),
        ([opening(0)], UnexpectedFrame),
        ([opening(3), opening(1)], UnexpectedFrame),
        ([opening(1, cls=0)], MalformedFrame),
        ([opening(1, cls=4)], MalformedFrame),
        ([opening(), Frame(Kind.ACCEPT, 0, 1)], UnexpectedFrame),
        ([opening(), Frame(Kind.END, 0, 1), data()], UnexpectedFrame),
        ([opening(), Frame(Kind.END, 0, 1), Frame(Kind.END, 0, 1)], UnexpectedFrame),
        ([opening(), data(more=True), Frame(Kind.END, 0, 1)], UnexpectedFrame),
        ([opening(), data(body=b"", more=True)], MalformedFrame),
        ([opening(), data(more=True), Frame(Kind.DATA, 0, 1, {"late": 1}, b"x")], MalformedFrame),
        ([Frame(Kind.CREDIT, 0, 0, None, b"\xff" * 8)], ProtocolError),
        ([opening(), Frame(Kind.CREDIT, 0, 1, None, b"\x01" * 8)], ProtocolError),
        ([Frame(Kind.ACCEPT, 0, 2)], UnexpectedFrame),
        ([Frame(Kind.RESET, 0, 0, FAULT)], UnexpectedFrame),
    ],
)
def test_what_breaks_the_protocol(frames: list[Frame], why: type[TowlineError]) -> None:
    talk = node_talk().hears(*frames)
    assert type(talk.error) is why
    last = list(frames_of(taken(talk.session)))[-1]
    assert last.kind == Kind.GOAWAY
    assert last.header is not None
    assert last.header["code"] == why.code


def test_accepting_twice_is_a_mistake_on_either_side() -> None:
    talk = client_talk()
    talk.session.open({"service": "echo"})
    talk.hears(Frame(Kind.ACCEPT, 0, 1), Frame(Kind.ACCEPT, 0, 1))
    talk.tells("StreamAccepted", "StreamReset", "Closed")
    talk = node_talk()
    stream = talk.hears(opening()).stream
    talk.session.accept(stream)
    with pytest.raises(StreamClosed):
        talk.session.accept(stream)


# --- credit and messages ---


def test_data_beyond_the_credit_closes() -> None:
    talk = node_talk(SMALL).hears(opening())
    for _ in range(8):
        talk.hears(data(body=bytes(1000)))
    assert talk.session.state is State.OPEN
    talk.hears(data(body=bytes(1000)))
    assert isinstance(talk.error, CreditExceeded)


def test_credit_comes_back_by_half_windows() -> None:
    talk = node_talk(SMALL).hears(opening())
    cost = 1000 + 12
    talk.hears(*[data(body=bytes(1000))] * 5)
    consume = lambda s: s.consume(talk.stream, cost)  # noqa: E731
    for _ in range(4):
        talk.does(consume)
    talk.says()
    talk.does(consume).says(f"CREDIT stream 0 +{5 * cost}", f"CREDIT stream 1 +{5 * cost}")


@pytest.mark.parametrize("cls", [Class.CHAT, Class.BULK])
def test_what_goes_at_once_is_what_would_have_been_queued(cls: Class) -> None:
    for sizes in ([0, 1, 1500, 1500], [900] * 12, [4096, 10], [5000, 10]):
        quick, queued = (opened_pair(node_limits=SMALL)[0] for _ in range(2))
        ours, theirs = (session.open({"service": "echo"}, cls) for session in (quick, queued))
        assert quick.at_once(ours, b"before the OPEN is out") is None
        taken(quick), taken(queued)
        went = 0
        for size in sizes:
            body = bytes(size)
            if (frame := quick.at_once(ours, body)) is None:
                break
            went += 1
            queued.send(theirs, body)
            assert frame == taken(queued)
        assert ours.send_window.available == theirs.send_window.available
        assert bool(went) == (cls is Class.CHAT and sizes[0] < 4096), "bulk leaves room; one beyond a limit is queued"


def test_nothing_goes_at_once_that_the_other_side_does_not_take() -> None:
    session = opened_pair(node_limits=SMALL._replace(message=500))[0]
    stream = session.open({"service": "echo"})
    taken(session)
    assert session.at_once(stream, bytes(501)) is None
    assert session.at_once(stream, bytes(500)) is not None


def test_consuming_more_than_came_does_nothing() -> None:
    talk = node_talk(SMALL).hears(opening(), data(body=bytes(1000)))
    talk.does(lambda s: s.consume(talk.stream, 100_000)).does(lambda s: s.consume(talk.stream, 100_000)).says()


def test_unread_data_of_a_released_stream_gives_its_credit_back() -> None:
    talk = node_talk(SMALL).hears(opening())
    talk.hears(*[data(body=bytes(1000))] * 8, Frame(Kind.RESET, 0, 1, FAULT)).says()
    talk.does(lambda s: s.release(talk.stream)).says(f"CREDIT stream 0 +{8 * 1012}")


def test_our_own_streams_need_no_release() -> None:
    client, node = opened_pair(client_limits=SMALL)
    stream = client.open({"service": "x"})
    opened = node.receive(taken(client), 1.0)[0]
    assert isinstance(opened, ev.StreamOpened)
    node.send(opened.stream, bytes(8000))
    client.receive(taken(node), 1.0)
    client.reset(stream)
    assert [str(f).split(" {")[0] for f in frames_of(taken(client))][:1] == [f"CREDIT stream 0 +{8000 + 8 * 12}"]


def test_a_reset_by_the_peer_gives_back_what_we_had_not_read() -> None:
    talk = client_talk_with(SMALL)
    talk.session.open({"service": "x"})
    talk.hears(*[data(body=bytes(1000))] * 8, Frame(Kind.RESET, 0, 1, FAULT))
    talk.says("OPEN", f"CREDIT stream 0 +{8 * 1012}")


def test_windows_grow_while_they_are_what_slows_the_sender() -> None:
    client, node = opened_pair()
    stream = client.open({"service": "x"}, Class.BULK)
    side = Side("node", node)
    client.send(stream, bytes(1 << 20))
    client.send(stream, bytes(1 << 20))
    now, most = 1.0, 0
    for _ in range(100):
        now += 0.001  # much less than the round trip of the handshake
        sent = taken(client)
        most = max(most, len(sent))
        side.take_events(node.receive(sent, now))
        client.receive(taken(node), now)
    assert [len(body) for _, body in side.inbox[1]] == [1 << 20] * 2
    assert most > STREAM_WINDOW.value


def test_a_message_larger_than_the_window_and_its_header() -> None:
    client, node = opened_pair(node_limits=SMALL)
    stream = client.open({"service": "x"})
    side = Side("node", node)
    body = bytes(range(256)) * 200
    client.send(stream, body, {"name": "a"})
    for _ in range(50):
        side.take_events(node.receive(taken(client), 1.0))
        client.receive(taken(node), 1.0)
    assert side.inbox[1] == [({"name": "a"}, body)]
    assert all(e.header == {"name": "a"} for e in side.events if isinstance(e, ev.DataReceived))


def test_the_largest_header_gets_through_the_smallest_window() -> None:
    client, node = opened_pair(node_limits=SMALL)
    stream = client.open({"service": "x"}, Class.BULK)
    side = Side("node", node)
    for _ in range(20):
        client.send(stream, bytes(1024), {"n": "x" * 1010})
    for _ in range(60):
        side.take_events(node.receive(taken(client), 1.0))
        client.receive(taken(node), 1.0)
    assert len(side.inbox[1]) == 20


def test_too_long_messages() -> None:
    talk = node_talk(SMALL).hears(opening())
    for _ in range(64):
        talk.hears(data(body=bytes(1024), more=True))
        talk.does(lambda s: s.consume(talk.stream, 1024 + 12))
        taken(talk.session)
    talk.hears(data(body=b"x"))
    assert talk.session.state is State.OPEN
    reset = talk.events[-1]
    assert isinstance(reset, ev.StreamReset)
    assert isinstance(reset.error, BadMessage)
    talk.says("RESET stream 1 {code: 341")
    client = client_talk(SMALL)
    stream = client.session.open({"service": "x"})
    with pytest.raises(LimitExceeded, match="message is 65536"):
        client.session.send(stream, bytes(65537))


def test_headers_that_the_other_side_would_refuse_stay_here() -> None:
    talk = client_talk(SMALL)
    large = {"x": "y" * 2000}
    with pytest.raises(LimitExceeded, match="frame_header is 1024"):
        talk.session.open(large)
    stream = talk.session.open({"service": "x"})
    assert stream.id == 1
    for misuse in (lambda: talk.session.send(stream, b"", large), lambda: talk.session.end(stream, large)):
        with pytest.raises(LimitExceeded, match="frame_header"):
            misuse()
    with pytest.raises(BadMessage):
        talk.session.send(stream, b"", {"x": float("inf")})
    talk.says("OPEN")
    assert stream.can_send
    assert not stream.has_output


def test_views_of_other_shapes_count_in_bytes() -> None:
    client, node = opened_pair()
    stream = client.open({"service": "x"})
    client.send(stream, memoryview(bytes(4000)).cast("I"))
    client.send(stream, bytearray(b"abc"))
    side = Side("node", node)
    side.take_events(node.receive(taken(client), 1.0))
    assert [len(body) for _, body in side.inbox[1]] == [4000, 3]


# --- the order in which things go out ---


def _queued(client: Session, scheduling: Class, count: int, size: int) -> Stream:
    stream = client.open({"service": "x"}, scheduling)
    for _ in range(count):
        client.send(stream, bytes(size))
    return stream


def test_interactive_overtakes_bulk_within_one_chunk() -> None:
    client, _ = opened_pair()
    _queued(client, Class.BULK, 2, 100_000)
    taken(client, 1)  # a chunk is on its way
    key = client.open({"service": "shell"}, Class.INTERACTIVE)
    client.send(key, b"k")
    assert [str(f) for f in frames_of(taken(client, 1))] == [
        'OPEN stream 3 {service: "shell", class: 1}',
    ]
    assert [str(f) for f in frames_of(taken(client, 1))] == ["DATA stream 3 1 byte"]


def test_one_take_never_gives_much_more_than_asked() -> None:
    client, _ = opened_pair()
    _queued(client, Class.BULK, 2, 100_000)
    assert len(taken(client, 1)) < 1000  # the OPEN
    assert len(taken(client, 1)) <= CHUNK + 12


def test_streams_of_one_class_take_turns() -> None:
    client, _ = opened_pair()
    one, two = _queued(client, Class.BULK, 1, 3 * CHUNK), _queued(client, Class.BULK, 400, 500)
    order = [f.stream for f in frames_of(taken(client, 4 * CHUNK)) if f.kind == Kind.DATA and f.body]
    turns = [a for a, b in zip(order, [0, *order], strict=False) if a != b]
    assert turns[:4] == [one.id, two.id, one.id, two.id]


def test_bulk_leaves_credit_to_the_others() -> None:
    limits = Limits(stream_window=1 << 20, connection_window=1 << 20)
    client, _ = opened_pair(node_limits=limits)
    _queued(client, Class.BULK, 2, 1 << 20)
    sent = len(taken(client))
    assert 0.8 * (1 << 20) < sent <= 0.875 * (1 << 20) + 1000
    chat = _queued(client, Class.CHAT, 1, 1000)
    assert [f.stream for f in frames_of(taken(client)) if f.kind == Kind.DATA] == [chat.id]


def test_a_blocked_stream_does_not_spin() -> None:
    client, _ = opened_pair(node_limits=SMALL)
    stream = _queued(client, Class.CHAT, 1, 60_000)
    while client.wants_to_send:
        client.take(1 << 20)
    client.send(stream, b"more")
    assert client.take(1 << 20) == []
    assert not client.wants_to_send
    client.receive(encode(Frame(Kind.CREDIT, 0, 1, None, (5000).to_bytes(8))), 1.0)
    assert client.take(1 << 20) == []  # the connection's own credit is still missing
    client.receive(encode(Frame(Kind.CREDIT, 0, 0, None, (5000).to_bytes(8))), 1.0)
    assert client.wants_to_send
    assert 4000 < len(taken(client)) <= 5000 + 8240


# --- budgets and floods ---


def test_a_stream_counts_until_it_is_released() -> None:
    talk = node_talk(SMALL)
    for index in range(SMALL.streams):
        talk.hears(opening(1 + 2 * index), Frame(Kind.RESET, 0, 1 + 2 * index, FAULT))
    talk.says()
    talk.hears(opening(101)).says("RESET stream 101 {code: 340")
    talk.does(lambda s: s.release(talk.stream))
    talk.hears(opening(103)).says()
    assert talk.stream.id == 103


class _Owner:
    """What a driver hangs on a stream: with it what nobody has read."""


@pytest.mark.parametrize("asked", [True, False], ids=["without credit", "never asked what goes out"])
@pytest.mark.parametrize("by_peer", [True, False], ids=["reset by the peer", "reset by us"])
def test_a_stream_that_is_over_is_kept_by_nobody(asked: bool, by_peer: bool) -> None:
    """A peer that returns no credit, or does not read, would else make us keep every stream that it ever opened."""
    node = opened_pair(client_limits=SMALL)[1]
    owners = []
    for number in (1, 3, 5):
        [opened] = node.receive(encode(opening(number)), 1.0)
        assert isinstance(opened, ev.StreamOpened)
        opened.stream.user = owner = _Owner()
        owners.append(weakref.ref(owner))
        node.accept(opened.stream)
        node.send(opened.stream, bytes(2 * SMALL.connection_window))
        if asked:
            taken(node)
        if by_peer:
            node.receive(encode(Frame(Kind.RESET, 0, number, FAULT)), 1.0)
        else:
            node.reset(opened.stream)
        node.release(opened.stream)
    del opened, owner
    assert [each() for each in owners] == [None, None, None]
    assert not node.streams


def test_open_respects_the_other_sides_budget() -> None:
    talk = client_talk(SMALL)
    streams = [talk.session.open({"service": "x"}) for _ in range(SMALL.streams)]
    with pytest.raises(LimitExceeded, match="streams is 8"):
        talk.session.open({"service": "x"})
    talk.session.reset(streams[0])
    assert talk.session.open({"service": "x"}).id == 17


def test_a_flood_of_resets_ends_it() -> None:
    talk = node_talk()
    for index in range(RESETS.value + 1):
        assert talk.session.state is State.OPEN
        talk.hears(opening(1 + 2 * index), Frame(Kind.RESET, 0, 1 + 2 * index, FAULT))
        talk.does(lambda s: s.release(talk.stream))
    assert isinstance(talk.error, TooManyResets)


def test_resets_in_the_course_of_time_are_no_flood() -> None:
    talk = node_talk()
    for index in range(RESETS.value * 2):
        talk.hears(opening(1 + 2 * index), Frame(Kind.RESET, 0, 1 + 2 * index, FAULT))
        talk.does(lambda s: s.release(talk.stream))
        talk.now += 1.0
    assert talk.session.state is State.OPEN


def test_a_flood_of_pings_ends_it_with_one_last_frame() -> None:
    talk = node_talk()
    ping = encode(Frame(Kind.PING, body=bytes(8)))
    talk.hears(ping * CONTROL_QUEUE.value)
    assert talk.session.state is State.OPEN
    talk.hears(ping)
    assert isinstance(talk.error, ControlFlood)
    talk.says("GOAWAY {code: 108")


def test_pings_that_are_read_are_answered() -> None:
    talk = node_talk()
    talk.hears(Frame(Kind.PING, body=b"12345678"))
    assert encode(Frame(Kind.PONG, body=b"12345678")) == taken(talk.session)


def test_a_flood_that_strikes_inside_a_call_closes_without_raising() -> None:
    talk = node_talk()
    stream = talk.hears(opening()).stream
    talk.hears(encode(Frame(Kind.PING, body=bytes(8))) * CONTROL_QUEUE.value)
    talk.does(lambda s: s.reset(stream, UnknownService())).does(lambda s: s.release(stream))
    talk.tells("StreamOpened", "Closed")
    assert isinstance(talk.error, ControlFlood)


def test_every_error_fits_every_frame() -> None:
    for text in ("x" * 10_000, "灯" * 10_000, "🚢" * 10_000, "\ud800" * 5000):
        header = fault_header(TowlineError(text, retry_after=float("inf")))
        assert len(encode(Frame(Kind.RESET, 0, 1, header))) <= SMALL.frame_header


def test_numbers_in_faults_may_be_absurd() -> None:
    for code in (-1, 10**40, 0, 65535):
        for wait in (10**400, -5, 1e300):
            talk = client_talk()
            talk.session.open({"service": "x"})
            fault = {"code": code, "message": "\x1b[31m", "retryable": True, "retry_after": wait}
            talk.hears(Frame(Kind.RESET, 0, 1, fault)).tells("StreamReset")
            reset = talk.events[-1]
            assert isinstance(reset, ev.StreamReset)
            assert "\x1b" not in reset.error.sentence
            assert 0 <= (reset.error.retry_after or 0) <= 3600


# --- liveness ---


def test_silence_is_asked_about_and_then_ends_it() -> None:
    talk = node_talk()
    assert talk.session.deadline() == pytest.approx(0.02 + PING_INTERVAL)
    talk.waits(PING_INTERVAL).says("PING 8 bytes")
    talk.waits(PONG_TIMEOUT).tells("Closed")
    assert isinstance(talk.error, ConnectionLost)


def test_any_bytes_are_a_sign_of_life() -> None:
    talk = node_talk().waits(PING_INTERVAL).says("PING")
    for _ in range(5):
        talk.waits(PONG_TIMEOUT - 1).hears(Frame(Kind.PING, body=bytes(8)))
        taken(talk.session)
    assert talk.session.state is State.OPEN
    talk.waits(2 * PONG_TIMEOUT)
    assert talk.session.state is State.CLOSED


def test_the_round_trip_is_measured_by_the_right_pong() -> None:
    talk = node_talk().does(lambda s: (s.ping(1.0), s.ping(1.0))).says("PING")
    talk.now = 1.5
    talk.hears(Frame(Kind.PONG, body=b"\xff" * 8))
    assert talk.session.rtt == pytest.approx(0.02)
    talk.hears(Frame(Kind.PONG, body=(1).to_bytes(8)))
    assert talk.session.rtt == pytest.approx(0.5)


# --- going away ---


def test_draining_waits_for_what_is_under_way() -> None:
    talk = node_talk().hears(opening())
    talk.does(lambda s: s.drain(Draining(), 1.0, 30.0)).says("GOAWAY {code: 603").tells("StreamOpened")
    talk.hears(opening(3)).says("RESET stream 3 {code: 603")
    stream = talk.stream
    talk.does(lambda s: (s.send(stream, b"rest"), s.end(stream), s.release(stream)))
    talk.hears(Frame(Kind.END, 0, 1)).tells("StreamEnded")
    talk.says("DATA", "END").tells("Closed")
    assert isinstance(talk.error, Draining)


def test_an_idle_connection_drains_at_once() -> None:
    talk = node_talk().does(lambda s: s.drain(Draining(), 1.0, 30.0))
    talk.says("GOAWAY").says().tells("Closed")


def test_draining_ends_at_the_latest_when_the_grace_is_over() -> None:
    talk = node_talk().hears(opening())
    talk.does(lambda s: s.drain(Draining(), 1.0, 5.0)).says("GOAWAY")
    assert talk.session.deadline() == 6.0
    talk.waits(5.0).tells("StreamOpened", "StreamReset", "Closed").says()


def test_the_other_side_going_away() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "x"})
    goaway = Frame(Kind.GOAWAY, header=fault_header(Draining(retry_after=3.0)))
    talk.hears(goaway, goaway).tells("GoingAway")
    assert talk.session.going_away
    with pytest.raises(Draining):
        talk.session.open({"service": "x"})
    talk.session.send(stream, b"still fine")
    talk._tell(talk.session.receive_eof(2.0))
    talk.tells("StreamReset", "Closed")
    assert isinstance(talk.error, Draining)
    assert talk.error.retry_after == 3.0


def test_both_sides_going_away() -> None:
    talk = client_talk()
    talk.session.open({"service": "x"})
    talk.hears(Frame(Kind.GOAWAY, header=fault_header(Draining())))
    talk.does(lambda s: s.drain(Draining(), 1.0, 5.0)).says("OPEN", "GOAWAY")
    talk.waits(5.0)
    assert isinstance(talk.error, Draining)


def test_a_goaway_with_an_error_closes() -> None:
    talk = client_talk().hears(Frame(Kind.GOAWAY, header=fault_header(Busy())))
    assert isinstance(talk.error, Busy)
    with pytest.raises(ConnectionLost):
        talk.session.open({"service": "x"})


def test_the_end_resets_every_stream_and_comes_last() -> None:
    talk = client_talk()
    streams = [talk.session.open({"service": "x"}) for _ in range(3)]
    talk._tell(talk.session.connection_lost(ConnectionLost(), 2.0))
    talk.tells("StreamReset", "StreamReset", "StreamReset", "Closed")
    for stream in streams:
        for late in (lambda: talk.session.send(stream, b""), lambda: talk.session.end(stream)):  # noqa: B023
            with pytest.raises(ConnectionLost):
                late()
        talk.does(lambda s: (s.reset(stream), s.release(stream), s.consume(stream, 5)))  # noqa: B023
    talk.tells()


def test_cancelled_is_what_a_reset_says_by_itself() -> None:
    talk = client_talk()
    stream = talk.session.open({"service": "x"})
    talk.does(lambda s: s.reset(stream)).says("OPEN", f"RESET stream 1 {{code: {Cancelled.code}")


def test_a_repr_shows_the_state() -> None:
    talk = node_talk().hears(opening())
    assert repr(talk.session) == "<Session node open streams=1 rtt=20.0 ms>"
    assert repr(talk.stream) == "<Stream 1 chat OPEN queued=0 credit=262144>"


def test_what_need_not_wait_goes_out_at_once_and_overtakes_nothing() -> None:
    client, node = opened_pair(node_limits=SMALL)
    stream = client.open({"service": "rooms"})
    assert client.at_once(stream, b"one") is None  # the OPEN has not gone yet
    node.receive(taken(client), 1.0)
    said = b""
    while (frame := client.at_once(stream, b"x" * 1000)) is not None:
        said += frame
    assert len(said) == 8 * 1012 <= SMALL.stream_window < 9 * 1012
    client.send(stream, b"waits")
    told = node.receive(said + taken(client), 1.0)
    assert [event.body for event in told if isinstance(event, ev.DataReceived)] == [b"x" * 1000] * 8 + [b"waits"]
    other = client.open({"service": "rooms"})
    taken(client)
    client.send(other, b"first")
    assert client.at_once(other, b"second") is None
    client.connection_lost(ConnectionLost(), 2.0)
    assert client.at_once(stream, b"late") is None


# --- room for writers ---


def test_only_who_watches_hears_that_a_stream_has_drained() -> None:
    client, _ = opened_pair()
    stream = client.open({"service": "echo"})

    def drained() -> list[bool]:
        taken(client)
        return [event.stream.watched for event in client.events() if isinstance(event, ev.StreamDrained)]

    client.send(stream, b"x")
    assert drained() == []
    stream.watched = True
    assert drained() == [], "nothing went out"
    client.send(stream, b"x")
    assert drained() == [False], "told once, and the watch is over"
    client.send(stream, b"x")
    assert drained() == []
