"""`--bwlimit`: bytes have to have had their time, by a clock of our own."""

from __future__ import annotations

import threading

import pytest

from towline.services.files import pace as room
from towline.services.files.pace import Pace


class Clock:
    """Time that passes when somebody waits."""

    def __init__(self, pace: Pace, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(room.time, "monotonic", lambda: self.now)
        patch.setattr(pace._stopped, "wait", self.wait)

    def wait(self, seconds: float | None = None) -> bool:
        assert seconds is not None
        self.now += seconds
        return False


def test_bytes_take_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(1_000_000)
    clock = Clock(pace, monkeypatch)
    for _ in range(100):
        pace.spend(65_536)
    assert 6.4 <= clock.now - 1000 <= 6.6
    clock.now += 60  # a pause saves nothing up but a short burst
    began = clock.now
    for _ in range(100):
        pace.spend(65_536)
    assert 6.4 <= clock.now - began <= 6.6


def test_no_limit_never_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(0)
    clock = Clock(pace, monkeypatch)
    pace.spend(1 << 40)
    assert clock.now == 1000.0


def test_whoever_waits_is_let_go() -> None:
    pace = Pace(1)
    waiting = threading.Thread(target=pace.spend, args=(1 << 20,))
    waiting.start()
    pace.stop()
    waiting.join(10)
    assert not waiting.is_alive()
