"""What a terminal program has switched on, so that another terminal can be brought to the same state. Pure.

Not a model of the screen: a full-screen program repaints itself when it is told of a new size, and what stood on the
normal screen is replayed from the spool. What neither brings back are the modes (DEC private modes, xterm's control
sequences): the alternate screen, application cursor keys, mouse reports, bracketed paste, a hidden cursor.
"""

from __future__ import annotations

import re
from collections import deque

from towline.base.limits import KIB

TAIL_BYTES = 64 * KIB
_ALTERNATE = frozenset({47, 1047, 1049})
# Modes that matter to who attaches, and what a fresh terminal has them at.
_FRESH = {1: False, 5: False, 6: False, 7: True, 9: False, 12: False, 25: True, 66: False, 1000: False, 1001: False,
          1002: False, 1003: False, 1004: False, 1005: False, 1006: False, 1007: False, 1015: False, 1016: False,
          2004: False}  # fmt: skip
_SEQUENCE = re.compile(rb"\x1b(?:\[\?([0-9;]{1,40})([hl])|([=>c])|\[(!p))")
_UNFINISHED = re.compile(rb"\x1b(?:\[(?:[?!][0-9;]{0,40})?)?\Z")
# What makes a terminal answer: device attributes, status, version, mode and colour requests (xterm ctlseqs).
_QUESTIONS = re.compile(
    rb"\x1b\[[>=?]?[0-9;]*c|\x1b\[\??[0-9;]*n|\x1b\[>[0-9]*q|\x1b\[\??[0-9;]*\$p|\x1b\[\?u|\x1b\[[0-9;]*x|\x1bZ"
    rb"|\x1b\[(?:1[1345678]|2[01])t"
    rb"|\x1b\][0-9]+(?:;[0-9]+)?;\?(?:\x07|\x1b\\)|\x1bP[+$]q[^\x1b]*\x1b\\|\x1b_G[^\x1b]*\x1b\\|\x05"
)
_ALTERNATES = re.compile(rb"\x1b\[\?(?:47|1047|1049)([hl])")


class Modes:
    """Fed with everything that a terminal was sent, in any pieces."""

    __slots__ = ("_carry", "_keypad", "_set", "_tail", "_tail_bytes", "alternate")

    def __init__(self) -> None:
        self.alternate = 0  # the mode number that switched to the alternate screen
        self._set: dict[int, bool] = {}
        self._keypad = False
        self._carry = b""
        self._tail: deque[tuple[int, int]] = deque()  # (seq, bytes) of what the normal screen was sent last
        self._tail_bytes = 0

    def feed(self, seq: int, data: bytes) -> None:
        """Record `seq` has these bytes."""
        was_alternate = self.alternate
        text = self._carry + data
        for match in _SEQUENCE.finditer(text):
            numbers, letter, single, soft = match.groups()
            if numbers is not None:
                for number in numbers.split(b";"):
                    self._switch(int(number or b"0"), letter == b"h")
            elif single in {b"=", b">"}:
                self._keypad = single == b"="
            else:
                self._reset(hard=soft is None)
        unfinished = _UNFINISHED.search(text[-48:])
        self._carry = unfinished.group() if unfinished else b""
        if not (was_alternate and self.alternate):
            self._remember(seq, len(data))

    @property
    def tail(self) -> tuple[int, int]:
        """The first and the last record of what the normal screen was sent last; (1, 0) when nothing was."""
        return (self._tail[0][0], self._tail[-1][0]) if self._tail else (1, 0)

    def restore(self) -> bytes:
        """What brings a fresh terminal to the same modes."""
        parts = [b"\x1b[?%dh" % self.alternate, b"\x1b[H\x1b[2J"] if self.alternate else []
        parts += [
            b"\x1b[?%d%c" % (mode, b"h" if on else b"l")
            for mode, on in sorted(self._set.items())
            if on != _FRESH.get(mode, on)
        ]
        if self._keypad:
            parts.append(b"\x1b=")
        return b"".join(parts)

    def undo(self) -> bytes:
        """What brings a terminal in these modes back to a fresh one's."""
        parts = [
            b"\x1b[?%d%c" % (mode, b"h" if _FRESH[mode] else b"l")
            for mode, on in sorted(self._set.items())
            if on != _FRESH[mode]
        ]
        if self._keypad:
            parts.append(b"\x1b>")
        if self.alternate:
            parts.append(b"\x1b[?%dl" % self.alternate)
        return b"".join([*parts, b"\x1b[0m"])

    def _switch(self, mode: int, on: bool) -> None:
        if mode in _ALTERNATE:
            self.alternate = mode if on else 0
        elif mode in _FRESH:
            self._set[mode] = on

    def _reset(self, *, hard: bool) -> None:
        self._set.clear()
        self._keypad = False
        if hard:
            self.alternate = 0

    def _remember(self, seq: int, size: int) -> None:
        self._tail.append((seq, size))
        self._tail_bytes += size
        while self._tail_bytes > TAIL_BYTES and len(self._tail) > 1:
            self._tail_bytes -= self._tail.popleft()[1]


def replayed(data: bytes) -> bytes:
    """Old output as the normal screen may show it once more: nothing a terminal would answer to, and nothing of what
    was on the alternate screen."""
    kept, at, normal = [], 0, True
    for match in _ALTERNATES.finditer(data):
        on = match.group(1) == b"h"
        if on and normal:
            kept.append(data[at : match.start()])
        normal, at = not on, match.end()
    if normal:
        kept.append(data[at:])
    return _QUESTIONS.sub(b"", b"".join(kept))
