"""The text gate: what a peer supplied, made safe for a terminal, a log or a page.

Terminal escapes in names, errors and chat are an old way to spoof what a person sees (scp CVE-2019-6109). Everything
from outside goes through `printable` before it reaches a human.
"""

from __future__ import annotations

import unicodedata

# Format characters (Cf) reorder or hide text; the two joiners are part of ordinary words and emoji.
_HARMLESS_FORMAT = frozenset("\u200c\u200d")
_ELLIPSIS = "…"


def printable(text: str, *, limit: int | None = None, keep_newlines: bool = False) -> str:
    """`text` with every character that could steer a terminal shown as an escape like `\\x1b`.

    Letters of every script, emoji and right-to-left text pass; control characters, bidirectional overrides, lone
    surrogates (undecodable bytes) and unassigned code points do not. With `limit`, at most that many characters.
    """
    if text.isascii() and text.isprintable():
        safe = text
    else:
        safe = "".join(
            char if _harmless(char) or (keep_newlines and char == "\n") else _escaped(char) for char in text
        )
    if limit is not None and len(safe) > limit:
        safe = safe[: max(limit - 1, 0)] + _ELLIPSIS
    return safe


def printable_bytes(data: bytes, *, limit: int | None = None) -> str:
    """Like `printable`, for bytes that should be UTF-8 but need not be."""
    return printable(data.decode("utf-8", "surrogateescape"), limit=limit)


def _harmless(char: str) -> bool:
    return char in _HARMLESS_FORMAT or unicodedata.category(char) not in {
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    }


def _escaped(char: str) -> str:
    point = ord(char)
    if 0xDC80 <= point <= 0xDCFF:  # surrogateescape: an undecodable byte
        return f"\\x{point - 0xDC00:02x}"
    if point < 0x100:
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char, f"\\x{point:02x}")
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
