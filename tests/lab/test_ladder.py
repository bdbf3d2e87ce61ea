"""The ladder: which bytes of which send came in which recv, and why, told from the recording alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towline.lab.ladder import build, letters, preview
from towline.lab.recording import Event, Kernel, Scene

_FLOW = "client→server"


def send(start: int, data: bytes, *, held: int | None = 0, of: str = "", at: float = 0.0) -> Event:
    size = len(data)
    truth = Kernel(state="ESTABLISHED", held=held)
    return Event(at, "client", "send", size, size, _FLOW, start, of, data=data, kernel=truth)


def recv(start: int, data: bytes, *, asked: int = 1024, waiting: int | None = None, at: float = 1.0) -> Event:
    size = len(data)
    return Event(
        at, "server", "recv", asked, size, _FLOW, start, waiting=size if waiting is None else waiting, data=data
    )


def ladder(*events: Event, lang: str = "en"):  # type: ignore[no-untyped-def]
    return build(Scene("test", {"en": "test", "zh": "测试"}, events=events), lang)


def test_a_recv_shows_its_messages_in_order() -> None:
    made = ladder(send(0, b"hello"), send(5, b"world"), recv(0, b"helloworld"))
    assert [piece.caption for piece in made.lines[2].pieces] == ["A‹hello›", "B‹world›"]
    assert made.lines[2].origins == ((0, 0), (1, 1))


def test_joined_in_the_queue_and_joined_by_the_sender_are_told_apart() -> None:
    apart = ladder(send(0, b"hello"), send(5, b"world"), recv(0, b"helloworld"))
    together = ladder(send(0, b"hello", held=5), send(5, b"world", held=10), recv(0, b"helloworld"))
    unknown = ladder(send(0, b"hello", held=None), send(5, b"world", held=None), recv(0, b"helloworld"))
    assert apart.lines[2].evidence == ("A+B: sent apart, met in this queue",)
    assert together.lines[2].evidence == ("A+B: joined by the sender's side, before they left",)
    assert unknown.lines[2].evidence == ("A+B came together",)


def test_left_over_by_the_receiver_is_said_on_both_lines() -> None:
    made = ladder(
        send(0, b"hello world"), recv(0, b"hello", asked=5, waiting=11), recv(5, b" world", asked=99, waiting=6)
    )
    first, second = made.lines[1:]
    assert first.pieces[0].caption == "A[0:5]‹hello›"
    assert first.evidence == ("6 B are left in the queue",)
    assert second.pieces[0].caption == "A[5:11]‹ world›"
    assert second.evidence == ("left over by the recv before",)


def test_a_recv_that_ends_where_the_message_ends_is_no_leftover() -> None:
    made = ladder(send(0, b"hello"), send(5, b"world"), recv(0, b"hello", asked=5, waiting=10))
    assert made.lines[2].evidence == ()


def test_sends_of_one_name_are_one_message() -> None:
    made = ladder(send(0, b"he", of="M"), send(2, b"llo", of="M"), recv(0, b"hello"))
    assert [message.label for message in made.messages] == ["M"]
    assert made.lines[2].pieces[0].caption == "M‹hello›"
    assert made.lines[0].pieces[0].caption == "M[0:2]‹he›"


def test_the_end_and_an_error_are_said() -> None:
    failed = Event(2.0, "server", "recv", 10, None, _FLOW, 0, error="ECONNRESET")
    made = ladder(send(0, b"x"), recv(0, b"x"), recv(1, b""), failed)
    assert made.lines[2].evidence == ("0 bytes: the other side has ended",)
    assert made.lines[3].failed
    assert "ECONNRESET" in made.lines[3].head


def test_evidence_is_said_in_chinese() -> None:
    made = ladder(send(0, b"hello"), send(5, b"world"), recv(0, b"helloworld"), lang="zh")
    assert made.lines[2].evidence == ("A+B：分开发出，在接收队列里相遇",)


def test_two_states_of_one_moment_are_one_line() -> None:
    looks = (Event(1.0, "client", "state", detail="SYN_SENT"), Event(1.0, "server", "state", detail="SYN_RECV"))
    made = ladder(*looks)
    assert [(line.head, line.other) for line in made.lines] == [("SYN_SENT", "SYN_RECV")]


@pytest.mark.parametrize(
    ("number", "label"), [(0, "A"), (25, "Z"), (26, "AA"), (27, "AB"), (701, "ZZ"), (702, "AAA")]
)
def test_letters_go_on_after_z(number: int, label: str) -> None:
    assert letters(number) == label


@pytest.mark.parametrize(
    ("data", "size", "shown"),
    [
        (b"hello", 5, "hello"),
        (b"", 0, "0 B"),
        (b"\x00\x00\x00\x05", 4, "00 00 00 05"),
        (b"x" * 100, 100, "x" * 19 + "…"),
        (b"\xff" * 100, 100, "100 B"),
        (b"", 5, "5 B"),  # redacted
        (b"\x1b[31mred", 8, "1b 5b 33 31 6d 72 65 64"),
        (b"a\nb", 3, "a\\nb"),
    ],
)
def test_payload_is_previewed_safely(data: bytes, size: int, shown: str) -> None:
    assert preview(data, size, "en") == shown


@given(cuts=st.lists(st.integers(1, 7), min_size=1, max_size=12), reads=st.lists(st.integers(1, 9), min_size=1))
def test_every_byte_is_shown_once_whatever_the_cuts(cuts: list[int], reads: list[int]) -> None:
    total = sum(cuts)
    stream = bytes(65 + number % 26 for number in range(total))
    events, at = [], 0
    for size in cuts:
        events.append(send(at, stream[at : at + size]))
        at += size
    at, turn = 0, 0
    while at < total:
        size = min(reads[turn % len(reads)], total - at)
        events.append(recv(at, stream[at : at + size], asked=size, waiting=total - at))
        at, turn = at + size, turn + 1
    made = ladder(*events)
    taken = [piece for line in made.lines if line.head.startswith("recv") for piece in line.pieces]
    spans = [(piece.message.start + piece.start, piece.message.start + piece.end) for piece in taken]
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert spans[-1][1] == total
