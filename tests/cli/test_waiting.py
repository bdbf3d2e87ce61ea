"""What a person hears while a line is down."""

from __future__ import annotations

from towline.base.errors import Busy
from towline.cli.running import gone, worth_a_word
from towline.client.line import Reconnecting


def test_a_long_pause_before_the_first_attempt_is_told_and_a_short_one_is_not() -> None:
    heard = [(attempt, wait) for attempt in range(1, 12) for wait in (0.0, 30.0)
             if worth_a_word(Reconnecting(attempt, wait, Busy()))]  # fmt: skip
    assert heard == [(1, 30.0), (2, 0.0), (2, 30.0), (10, 0.0), (10, 30.0)]
    assert gone(Reconnecting(1, 30.0, Busy())).endswith("trying again …")
