"""The handshake as conversations: who is let in, who is not, and how little a stranger costs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.base.errors import (
    BadProof,
    BadTicket,
    ConnectionLost,
    FrameTooLarge,
    HandshakeTimeout,
    MalformedFrame,
    NotTowline,
    ProtocolError,
    UnexpectedFrame,
    VersionMismatch,
)
from towline.base.limits import HANDSHAKE_FRAME, HANDSHAKE_SECONDS
from towline.protocol import events as ev
from towline.protocol.codec import Frame, encode
from towline.protocol.records import Limits, Proof, Welcome
from towline.protocol.session import Session
from towline.protocol.table import ALLOWED, FRAMES, PREFACE, PREFIX, Kind, Role, State
from world import Talk, frames_of, opened_pair, session, taken

NONCE = "ab" * 32
HELLO = Frame(Kind.HELLO, header={"agent": "x", "nonce": NONCE, "limits": {}, "pad": "." * 1000})
PROVE = Frame(Kind.PROVE, header={"method": "peer"})
WELCOME = Frame(Kind.WELCOME, header={"person": "ada", "grants": "read"})
FAULT = {"code": 200, "message": "no", "retryable": False}

EXAMPLES: dict[int, Frame] = {
    Kind.HELLO: HELLO,
    Kind.PROVE: PROVE,
    Kind.WELCOME: WELCOME,
    Kind.OPEN: Frame(Kind.OPEN, 0, 99, {"service": "echo"}),
    Kind.ACCEPT: Frame(Kind.ACCEPT, 0, 99, {}),
    Kind.DATA: Frame(Kind.DATA, 0, 99, None, b"x"),
    Kind.CREDIT: Frame(Kind.CREDIT, 0, 0, None, bytes(8)),
    Kind.END: Frame(Kind.END, 0, 99),
    Kind.RESET: Frame(Kind.RESET, 0, 99, FAULT),
    Kind.PING: Frame(Kind.PING, body=bytes(8)),
    Kind.PONG: Frame(Kind.PONG, body=bytes(8)),
    Kind.GOAWAY: Frame(Kind.GOAWAY, header=FAULT),
}


def in_state(role: Role, state: State) -> Session:
    """A session that stands there, nothing left to send."""
    if state is State.OPEN:
        client, node = opened_pair()
        return client if role is Role.CLIENT else node
    lane = "ticket" if role is Role.CLIENT and state is State.LANE else None
    it = session(role, lane=lane)
    steps: list[Frame | bytes] = [PREFACE, HELLO, PROVE if role is Role.NODE else WELCOME]
    if state is State.LANE:
        steps = (
            [WELCOME] if role is Role.CLIENT else [PREFACE, Frame(Kind.HELLO, header={**HELLO.header, "lane": "t"})]
        )
    if state is State.CLOSED:
        it.fail(BadProof())
    while it.state is not state:
        if role is Role.CLIENT and it.state is State.PROVE and state is State.VERDICT:
            it.prove(Proof("peer"))
            continue
        if role is Role.NODE and it.state is State.VERDICT and state is State.LANE:
            it.welcome(Welcome("ada", "read", lane=True))
            continue
        step = steps.pop(0)
        it.receive(encode(step) if isinstance(step, Frame) else step, 0.0)
    taken(it)
    return it


@pytest.mark.parametrize("kind", [int(kind) for kind in Kind])
@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("role", list(Role))
def test_every_kind_in_every_state(role: Role, state: State, kind: int) -> None:
    it = in_state(role, state)
    events = it.receive(encode(EXAMPLES[kind]), 1.0)
    refused = [e for e in events if isinstance(e, ev.Closed) and "not allowed in state" in e.error.sentence]
    if state in (State.CLOSED, State.LANE):
        assert events == []  # nobody listens; a lane's driver checks the same table
        assert it.state is state
    elif state is State.PREFACE:
        assert isinstance(it.error, NotTowline)
    elif kind in ALLOWED[role, state]:
        assert not refused
    else:
        assert refused
        assert it.state is State.CLOSED
        assert isinstance(it.error, UnexpectedFrame)


def test_before_proof_a_stranger_gets_two_frames_through_the_gate() -> None:
    for role, state in ALLOWED:
        if role is Role.NODE and state in (State.PREFACE, State.HELLO, State.PROVE, State.VERDICT, State.CLOSED):
            assert ALLOWED[role, state] <= {Kind.HELLO, Kind.PROVE, Kind.GOAWAY}
    assert set(EXAMPLES) == set(FRAMES)


def test_a_node_lets_a_client_in() -> None:
    talk = Talk(session(Role.NODE))
    talk.says().hears(PREFACE, HELLO).says("HELLO").tells()
    talk.hears(PROVE).tells("ProofOffered").says()
    talk.does(lambda s: s.welcome(Welcome("ada", "read"))).says('WELCOME {person: "ada", grants: "read"}').tells()
    assert talk.session.state is State.OPEN


def test_a_client_is_let_in() -> None:
    talk = Talk(session(Role.CLIENT))
    talk.says("HELLO").hears(PREFACE, HELLO).tells("ProofWanted").says()
    talk.does(lambda s: s.prove(Proof("peer"))).says("PROVE")
    talk.hears(WELCOME).tells("Welcomed")
    assert talk.session.peer_limits == Limits()


def test_both_sides_sign_the_same_bytes_and_each_byte_counts() -> None:
    def transcripts(fingerprint: str, agent: str) -> list[bytes]:
        client = Session(Role.CLIENT, agent=agent, nonce=b"c" * 32, now=0, fingerprint=fingerprint)
        node = Session(Role.NODE, agent="n", nonce=b"n" * 32, now=0, fingerprint="aa")
        node.receive(taken(client), 0)
        wanted = client.receive(taken(node), 0)[0]
        client.prove(Proof("peer"))
        offered = node.receive(taken(client), 0)[0]
        assert isinstance(wanted, ev.ProofWanted)
        assert isinstance(offered, ev.ProofOffered)
        return [wanted.transcript, offered.transcript]

    ours, theirs = transcripts("aa", "x")
    assert ours == theirs
    assert len(ours) == 32
    assert transcripts("aa", "y")[0] != ours
    ours, theirs = transcripts("bb", "x")  # the client saw another certificate
    assert ours != theirs


def test_a_round_trip_is_known_after_the_handshake() -> None:
    client, node = opened_pair()
    assert client.rtt == pytest.approx(0.01)
    assert node.rtt == pytest.approx(0.02)


@given(st.lists(st.integers(0, 3000), max_size=20))
def test_any_split_of_the_handshake_gives_the_same_events(cuts: list[int]) -> None:
    data = PREFACE + encode(HELLO) + encode(PROVE)
    places = sorted({cut % len(data) for cut in cuts})
    node = session(Role.NODE)
    events = [
        event
        for a, b in zip([0, *places], [*places, len(data)], strict=True)
        for event in node.receive(data[a:b], 0.5)
    ]
    whole = session(Role.NODE)
    assert events == whole.receive(data, 0.5)
    assert [type(event) for event in events] == [ev.ProofOffered]


# --- strangers ---

STRANGERS = [
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "speaks HTTP"),
    (b"POST /api HTTP/1.1\r\n", "speaks HTTP"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "speaks HTTP"),
    (b"SSH-2.0-OpenSSH_9.2p1\r\n", "speaks SSH"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "speaks TLS"),
    (b"\x00\xff\x13\x37noise noise noise", "does not speak Towline"),
    (b"TOWLOVE\x01", "does not speak Towline"),
    (b"TOWLINE\x07", "version 7"),
]


@pytest.mark.parametrize(("data", "why"), STRANGERS)
@pytest.mark.parametrize("role", list(Role))
def test_strangers_are_named_however_their_bytes_are_cut(role: Role, data: bytes, why: str) -> None:
    whole, bytewise = session(role), session(role)
    events = whole.receive(data, 0.0)
    assert [e for byte in data for e in bytewise.receive(bytes([byte]), 0.0)] != []
    assert repr(whole.error) == repr(bytewise.error)
    assert isinstance(whole.error, NotTowline | VersionMismatch)
    assert why in whole.error.sentence
    assert [type(event) for event in events] == [ev.Closed]


@pytest.mark.parametrize(("data", "why"), STRANGERS)
def test_a_stranger_gets_one_readable_line_not_longer_than_what_it_sent(data: bytes, why: str) -> None:
    for sent in (data, data + b"." * 200):
        node = session(Role.NODE)
        node.receive(sent, 0.0)
        answer = taken(node)
        assert len(answer) <= len(sent)
        if "version" in why:
            assert answer == PREFACE
        elif len(sent) > 200:
            assert answer.startswith(b"This is a Towline node.")
            assert answer.endswith(b"\r\n")
            assert answer.isascii()


def test_a_client_says_nothing_more_to_what_is_no_node() -> None:
    client = session(Role.CLIENT)
    taken(client)
    client.receive(b"HTTP/1.1 400 Bad Request\r\n", 0.0)
    assert taken(client) == b""


@given(st.binary(min_size=1, max_size=5000), st.booleans())
def test_no_more_bytes_out_than_in_before_proof(noise: bytes, polite: bool) -> None:
    node = session(Role.NODE)
    data = PREFACE + noise if polite else noise
    node.receive(data, 0.0)
    node.tick(HANDSHAKE_SECONDS.value)
    assert len(taken(node)) <= len(data)


def test_a_short_hello_gets_no_longer_answer() -> None:
    talk = Talk(session(Role.NODE))
    talk.hears(PREFACE, Frame(Kind.HELLO, header={**HELLO.header, "pad": ""})).tells("Closed")
    assert isinstance(talk.error, ProtocolError)
    assert len(taken(talk.session)) <= 200


def test_the_longest_name_fits_the_answer() -> None:
    node = Session(Role.NODE, agent="ä" * 500, nonce=bytes(32), now=0, name="灯" * 500)
    client = session(Role.CLIENT)
    node.receive(taken(client), 0)
    assert [type(e) for e in client.receive(taken(node), 0)] == [ev.ProofWanted]


def test_frames_before_proof_are_small() -> None:
    talk = Talk(session(Role.NODE))
    talk.hears(PREFACE, PREFIX.pack(Kind.HELLO, 0, HANDSHAKE_FRAME.value, 0, 0)).tells("Closed")
    assert isinstance(talk.error, FrameTooLarge)
    talk = Talk(session(Role.NODE))
    talk.hears(PREFACE, PREFIX.pack(Kind.DATA, 0, 0, 0xFFFF_FFFF, 1)).tells("Closed")
    assert isinstance(talk.error, FrameTooLarge)


@pytest.mark.parametrize("sent", [b"", PREFACE[:3], PREFACE, PREFACE + encode(HELLO)])
def test_the_deadline_is_absolute(sent: bytes) -> None:
    talk = Talk(session(Role.NODE))
    for byte in sent:
        talk.hears(bytes([byte])).waits(HANDSHAKE_SECONDS.value / (len(sent) + 1))
    while talk.now < HANDSHAKE_SECONDS.value:
        talk.waits(0.5)
    assert isinstance(talk.error, HandshakeTimeout)
    assert talk.session.deadline() is None


def test_the_deadline_does_not_move() -> None:
    node = session(Role.NODE)
    assert node.deadline() == HANDSHAKE_SECONDS.value
    node.receive(PREFACE, 9.0)
    assert node.deadline() == HANDSHAKE_SECONDS.value


# --- refusals ---


def test_a_refusal_before_our_hello_comes_with_our_preface() -> None:
    node, client = session(Role.NODE), session(Role.CLIENT)
    hello = taken(client)
    node.receive(hello[:100], 0.0)
    node.fail(BadProof("No."))
    assert client.receive(taken(node), 0.0)[-1] == ev.Closed(client.error)
    assert isinstance(client.error, BadProof)


def test_a_refusal_of_the_proof_reaches_the_client() -> None:
    node, client = session(Role.NODE), session(Role.CLIENT)
    node.receive(taken(client), 0.0)
    client.receive(taken(node), 0.0)
    client.prove(Proof("peer"))
    node.receive(taken(client), 0.0)
    assert isinstance(node.fail(BadProof("Not this key."))[-1], ev.Closed)
    client.receive(taken(node), 0.0)
    assert isinstance(client.error, BadProof)
    assert client.error.sentence == "Not this key."


@pytest.mark.parametrize(
    "change",
    [{"nonce": "abcd"}, {"nonce": "zz" * 32}, {"limits": {"streams": 0}}, {"limits": {"streams": True}},
     {"limits": {"frame_header": 10}}, {"limits": {"stream_window": 1000}}, {"limits": {"connection_window": 1}}],
)  # fmt: skip
def test_a_hello_that_makes_no_sense(change: dict[str, object]) -> None:
    talk = Talk(session(Role.NODE))
    talk.hears(PREFACE, Frame(Kind.HELLO, header={**HELLO.header, **change})).tells("Closed")
    assert isinstance(talk.error, MalformedFrame)


def test_a_call_that_comes_too_late_is_harmless() -> None:
    for late in (
        lambda s: s.welcome(Welcome("ada", "read")),
        lambda s: s.welcome(Welcome("ada", "read")),
        lambda s: s.prove(Proof("peer")),
        lambda s: s.fail(BadProof()),
        lambda s: s.drain(BadProof(), 1.0, 1.0),
    ):
        node = session(Role.NODE)
        node.receive(PREFACE + encode(HELLO) + encode(PROVE), 0.0)
        node.receive_eof(0.0)
        late(node)
        assert node.state is State.CLOSED
        assert node.events() == []


def test_eof_and_loss_close_once() -> None:
    talk = Talk(session(Role.NODE))
    talk._tell(talk.session.receive_eof(0.0))
    talk._tell(talk.session.connection_lost(ConnectionLost(), 0.0))
    talk._tell(talk.session.tick(100.0))
    talk.hears(b"more").does(lambda s: s.fail(BadProof())).tells("Closed")
    assert isinstance(talk.error, ConnectionLost)


def test_a_welcome_before_the_proof_is_refused() -> None:
    talk = Talk(session(Role.CLIENT)).says("HELLO")
    talk.hears(PREFACE, HELLO, WELCOME).tells("ProofWanted", "Closed")
    assert isinstance(talk.error, UnexpectedFrame)


# --- lanes ---


def test_a_lane_is_admitted_by_its_ticket_and_what_follows_is_kept() -> None:
    client, node = session(Role.CLIENT, lane="ticket-7"), session(Role.NODE)
    talk = Talk(node).hears(taken(client)).tells("LaneRequested")
    assert talk.events[-1] == ev.LaneRequested("ticket-7")
    node.welcome(Welcome("ada", "read", lane=True))
    assert node.state is State.LANE
    assert node.deadline() is None
    answer = taken(node)
    assert [Kind(f.kind) for f in frames_of(answer)] == [Kind.WELCOME]
    range_ = encode(Frame(Kind.OPEN, 0, 1, {"at": 0}))
    assert [type(e) for e in client.receive(answer + range_[:5], 0.0)] == [ev.Welcomed]
    assert client.receive(range_[5:], 0.0) == []
    assert client.take_rest() == range_
    assert node.receive(range_, 0.0) == []
    assert node.take_rest() == range_


def test_a_bad_ticket_is_refused_in_words_the_dialler_understands() -> None:
    client, node = session(Role.CLIENT, lane="x"), session(Role.NODE)
    node.receive(taken(client), 0.0)
    node.fail(BadTicket())
    client.receive(taken(node), 0.0)
    assert isinstance(client.error, BadTicket)


def test_a_lane_has_one_hello() -> None:
    talk = Talk(session(Role.NODE))
    lane = Frame(Kind.HELLO, header={**HELLO.header, "lane": "t"})
    talk.hears(PREFACE, lane, lane).tells("LaneRequested", "Closed")
    assert isinstance(talk.error, UnexpectedFrame)
