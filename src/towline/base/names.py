"""What the name of a person, an alias or a node may look like: short, on one line, never mistaken for an option."""

from __future__ import annotations

import unicodedata

from towline.base.errors import UsageError
from towline.base.text import printable

LONGEST_NAME = 64
_MARKS = "-_."
# Letters and marks by category that show nothing: with them two names could look the same.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u3164\uffa0") | frozenset(
    map(chr, [*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
)


def checked_name(text: str, *, what: str = "name for a person") -> str:
    """`text` in Unicode form NFC when it is a good name. Raises UsageError that says why it is no good `what`."""
    name = unicodedata.normalize("NFC", text)
    bad = next((char for char in name if not _allowed(char)), None)
    shown = printable(text, limit=80)
    if bad is not None:
        raise UsageError(
            f"'{shown}' is no {what}: '{printable(bad)}' is not allowed; use letters, digits, '-', '_' and '.'."
        )
    if not 1 <= len(name) <= LONGEST_NAME:
        raise UsageError(f"'{shown}' is no {what}: it needs 1 to {LONGEST_NAME} characters, this has {len(name)}.")
    if name.startswith("-") or not any(char.isalnum() for char in name):
        raise UsageError(f"'{shown}' is no {what}: it needs a letter or digit, and no '-' at its start.")
    return name


def checked_alias(text: str, *, what: str = "alias") -> str:
    """The same rule for what a client calls a node, and a node itself."""
    return checked_name(text, what=what)


def _allowed(char: str) -> bool:
    # Marks (M) are parts of letters in many scripts: vowel signs, tone marks.
    return char in _MARKS or (unicodedata.category(char)[0] in "LMN" and char not in _INVISIBLE)
