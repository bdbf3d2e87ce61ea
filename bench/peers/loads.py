"""The same load for every contender: what is sent, how answers are timed."""

from __future__ import annotations

from typing import Any

PAYLOAD = b"m" * 100


class Beats:
    """Times of answers (seconds) and their distribution in milliseconds."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def add(self, seconds: float) -> None:
        self._times.append(seconds)

    def answer(self) -> dict[str, Any]:
        ordered = sorted(self._times)
        last = len(ordered) - 1
        return {
            "p50": ordered[last // 2] * 1000,
            "p99": ordered[round(last * 0.99)] * 1000,
            "worst": ordered[last] * 1000,
        }
