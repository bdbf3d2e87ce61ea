"""Busy polling: begins with quick answers, ends with late ones, and leaves streams and quiet connections alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests import kit
from tests.runtime.house import face_to_face

from towline.runtime import polling
from towline.runtime.channel import Channel
from towline.runtime.polling import CROWDED, ENOUGH, SLICE, SMALL, WINDOW, BusyPoll

QUESTION = [b"x" * 100]


class Clock:
    """A clock that stands, and a loop that runs one callback a round; each offer of the processor costs some time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1.0
        self.offer = WINDOW / 3.5
        self.looks = 0
        self._soon: list[Callable[[], object]] = []
        monkeypatch.setattr(polling, "perf_counter", lambda: self.now)
        monkeypatch.setattr(polling, "_yield", self._offered)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self._soon.append(callback)

    def rounds(self) -> int:
        """Run until the loop would sleep; how often the poll looked."""
        before = self.looks
        while self._soon:
            self._soon.pop(0)()
        return self.looks - before

    def _offered(self) -> None:
        self.looks += 1
        self.now += self.offer


def _poll(clock: Clock) -> BusyPoll:
    return BusyPoll(clock)  # type: ignore[arg-type]  # it uses nothing but call_soon


def _exchange(clock: Clock, poll: BusyPoll, after: float, times: int = 1) -> None:
    for _ in range(times):
        poll.said(QUESTION)
        clock.now += after
        poll.heard(100)


def test_looks_only_after_a_series_of_quick_answers_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, ENOUGH - 1)
    poll.said(QUESTION)
    assert clock.rounds() == 0
    poll.heard(100)
    poll.said(QUESTION)
    assert clock.rounds() == 4
    assert clock.rounds() == 0


def test_late_answers_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, 10_000)
    clock.rounds()
    _exchange(clock, poll, 2 * WINDOW, 7)
    clock.rounds()
    poll.said(QUESTION)
    assert clock.rounds() == 0


def test_one_quick_answer_in_two_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    for _ in range(100):
        _exchange(clock, poll, WINDOW / 2)
        _exchange(clock, poll, 2 * WINDOW)
        assert clock.rounds() == 0


def test_a_stream_in_either_direction_is_no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, ENOUGH)
    clock.rounds()
    poll.said([b"", bytes(SMALL), b"x"])
    assert clock.rounds() == 0
    _exchange(clock, poll, WINDOW / 2, ENOUGH)
    clock.rounds()
    poll.heard(SMALL + 1)
    poll.said(QUESTION)
    assert clock.rounds() == 0


def test_it_ends_with_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, ENOUGH)
    clock.rounds()
    poll.said(QUESTION)
    poll.heard(100)
    assert clock.rounds() == 0


def test_one_who_only_speaks_is_not_kept_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, 10_000)
    clock.rounds()
    for _ in range(100):
        poll.said(QUESTION)
        clock.now += WINDOW / 2
        if not clock.rounds():
            break
    else:
        pytest.fail("it looked on for answers that nobody gives")


def test_where_others_want_the_processor_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    poll = _poll(clock)
    _exchange(clock, poll, WINDOW / 2, ENOUGH)
    clock.offer = 2 * SLICE
    poll.said(QUESTION)
    assert clock.rounds() == 1
    _exchange(clock, poll, 2 * WINDOW)  # late answers do not make it forget
    _exchange(clock, poll, WINDOW / 2, CROWDED)
    assert clock.rounds() == 0
    clock.offer = WINDOW / 3.5
    _exchange(clock, poll, WINDOW / 2, ENOUGH)
    clock.rounds()
    poll.said(QUESTION)
    assert clock.rounds() == 4


@pytest.mark.parametrize("loop", kit.LOOPS)
def test_a_real_loop_sleeps_again_when_the_talk_is_over(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "WINDOW", 60.0)  # so that every answer is quick, however busy this machine is
    looks: list[None] = []
    monkeypatch.setattr(polling, "_yield", lambda: looks.append(None))

    async def echo(channel: Channel) -> None:
        channel.accept()
        async for body in channel:
            await channel.send(body)

    async def talk() -> None:
        async with face_to_face(echo) as (client, _):
            channel = client.open({"service": "echo"})
            for number in range(2 * ENOUGH):
                await channel.send(b"%d" % number)
                message = await channel.receive()
                assert message is not None
                assert message.body == b"%d" % number
            assert looks
            monkeypatch.setattr(polling, "WINDOW", 0.0)
            seen = -1
            while seen != len(looks):  # a poll that went on would look in each round of the loop
                seen = len(looks)
                await kit.round_of_the_loop()

    kit.run(talk(), loop)
