"""What a terminal program has switched on, so that another terminal can be brought to the same, and back. Pure.

Not the screen: whoever attaches rebuilds that from what was printed last. The modes may have been switched long
before that (DEC private modes, xterm's control sequences): the alternate screen, application cursor keys, mouse
reports, bracketed paste, a hidden cursor, the keys that are told apart.
"""

from __future__ import annotations

import re

_ALTERNATE = frozenset({47, 1047, 1049})
# Modes that matter to who attaches, and what a fresh terminal has them at.
_FRESH = {1: False, 5: False, 6: False, 7: True, 9: False, 12: False, 25: True, 66: False, 1000: False, 1001: False,
          1002: False, 1003: False, 1004: False, 1005: False, 1006: False, 1007: False, 1015: False, 1016: False,
          2004: False}  # fmt: skip
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?([0-9;]{1,40})([hl])|([=>c])|\[(!p)|\[([0-9]?) q|\[>4(?:;([0-9]?))?m|\[([<>])([0-9]{0,3})u)"
)
_UNFINISHED = re.compile(rb"\x1b(?:\[(?:[?!<>][0-9;]{0,40}|[0-9]? ?)?)?\Z")
_NESTED = 16  # key protocols that programs in programs have switched on


class Modes:
    """Fed with everything that a terminal was sent, in any pieces."""

    __slots__ = ("_carry", "_keypad", "_keys", "_nested", "_set", "_shape", "alternate")

    def __init__(self) -> None:
        self.alternate = 0  # the mode number that switched to the alternate screen
        self._set: dict[int, bool] = {}
        self._keypad = False
        self._carry = b""
        self._shape = b""  # of the cursor (DECSCUSR)
        self._keys = b""  # xterm's modifyOtherKeys
        self._nested: list[bytes] = []  # kitty's keyboard protocol: flags that were pushed

    def feed(self, data: bytes) -> None:
        """These bytes come next."""
        text = self._carry + data
        for match in _SEQUENCE.finditer(text):
            numbers, letter, single, soft, shape, keys, push, flags = match.groups()
            if numbers is not None:
                for number in numbers.split(b";"):
                    self._switch(int(number or b"0"), letter == b"h")
            elif single in {b"=", b">"}:
                self._keypad = single == b"="
            elif shape is not None:
                self._shape = shape.strip(b"0")
            elif push is not None:
                self._nest(push, flags)
            elif single is None and soft is None:
                self._keys = (keys or b"").strip(b"0")
            else:
                self._reset(hard=soft is None)
        unfinished = _UNFINISHED.search(text[-48:])
        self._carry = unfinished.group() if unfinished else b""

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
        parts += [b"\x1b[%b q" % self._shape] if self._shape else []
        parts += [b"\x1b[>4;%bm" % self._keys] if self._keys else []
        return b"".join([*parts, *(b"\x1b[>%bu" % flags for flags in self._nested)])

    def undo(self) -> bytes:
        """What brings a terminal in these modes back to a fresh one's."""
        parts = [
            b"\x1b[?%d%c" % (mode, b"h" if _FRESH[mode] else b"l")
            for mode, on in sorted(self._set.items())
            if on != _FRESH[mode]
        ]
        if self._keypad:
            parts.append(b"\x1b>")
        parts += [b"\x1b[0 q"] if self._shape else []
        parts += [b"\x1b[>4m"] if self._keys else []
        parts += [b"\x1b[<%du" % len(self._nested)] if self._nested else []
        if self.alternate:
            parts.append(b"\x1b[?%dl" % self.alternate)
        return b"".join([*parts, b"\x1b[0m"])

    def _switch(self, mode: int, on: bool) -> None:
        if mode in _ALTERNATE:
            self.alternate = mode if on else 0
        elif mode in _FRESH:
            self._set[mode] = on

    def _nest(self, push: bytes, flags: bytes) -> None:
        if push == b">":
            self._nested = [*self._nested, flags][-_NESTED:]
        else:
            del self._nested[max(len(self._nested) - int(flags or b"1"), 0) :]

    def _reset(self, *, hard: bool) -> None:
        self._set.clear()
        self._keypad = False
        if hard:
            self.alternate = 0
            self._shape = self._keys = b""
            self._nested.clear()
