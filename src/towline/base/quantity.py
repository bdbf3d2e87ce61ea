"""Sizes and durations as people write them, both ways."""

from __future__ import annotations

import re

from towline.base.errors import UsageError

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw]?)", re.IGNORECASE)
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_LONGEST = 100 * 365 * 86400.0
_LARGEST = 1 << 62  # bytes; what a request may ask for


def parse_size(text: str) -> int:
    """Bytes: `4096`, `20MB` (powers of 1000), `64KiB`, `1g`. Raises UsageError."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a size; write for example 4096, 20MB or 64KiB.")
    number, unit, binary = match.groups()
    base = 1024 if binary else 1000
    size = float(number) * base ** " kmgt".index(unit.lower() or " ")
    if size > _LARGEST:
        raise UsageError(f"{text!r} is more than any disk holds.")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds: `90`, `500ms`, `24h`, `1h30m`. Raises UsageError."""
    stripped = text.strip()
    parts = _DURATION.findall(stripped)
    if not parts or "".join(a + b for a, b in parts) != stripped:
        raise UsageError(f"{text!r} is not a duration; write for example 90, 500ms, 10m or 1h30m.")
    seconds = sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)
    if seconds > _LONGEST:
        raise UsageError(f"{text!r} is longer than a century.")
    return seconds


def format_size(count: float) -> str:
    """`1.5 GiB`, three significant digits at most."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_count(count: int, thing: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def format_duration(seconds: float) -> str:
    """`12 s`, `3 min 20 s`, `2 h 05 min`, `4 d 3 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"
