"""Fields of a request, type-checked at the edge."""

from __future__ import annotations

from towline.base.errors import BadMessage
from towline.protocol.codec import Header


def text(header: Header, name: str, default: str | None = None) -> str:
    """A string field. Raises BadMessage when it is missing without a default, or no string."""
    value = header.get(name, default)
    if not isinstance(value, str):
        raise BadMessage(f"The request needs the text {name!r}.")
    return value


def number(header: Header, name: str, default: int | None = None, *, least: int = 0, most: int = 1 << 62) -> int:
    """An integer field within bounds. Raises BadMessage."""
    value = header.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise BadMessage(f"The request needs the number {name!r} between {least} and {most}.")
    return value


def seconds(header: Header, name: str, default: float) -> float:
    """A duration or moment in seconds. Raises BadMessage."""
    value = header.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not -1e15 < value < 1e15:
        raise BadMessage(f"The request needs {name!r} in seconds.")
    return float(value)


def flag(header: Header, name: str) -> bool:
    """A true or false field, false when missing. Raises BadMessage."""
    value = header.get(name, False)
    if not isinstance(value, bool):
        raise BadMessage(f"The request's {name!r} is neither true nor false.")
    return value
