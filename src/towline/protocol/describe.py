"""One line about one frame, for logs, tests and the lab: safe to print, secrets and bodies shown as their length."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

from towline.base.text import printable
from towline.protocol.table import FRAMES, Flag, Kind

if TYPE_CHECKING:
    from towline.protocol.codec import Frame

_VALUE = 120
_ITEMS = 20
_DEPTH = 3  # a peer may nest as deep as the JSON parser goes
_LINE = 400


def describe(frame: Frame, *, body: bool = False) -> str:
    """`DATA stream 3 MORE {name: "a"} 100 bytes`. With `body`, its bytes too (as a Python literal, at most 64)."""
    spec = FRAMES.get(frame.kind)
    words = [spec.name if spec else f"kind {frame.kind}"]
    if frame.stream or (spec is None or spec.on_stream):
        words.append(f"stream {frame.stream}")
    words += flag_names(frame.flags)
    if frame.header is not None:
        words.append(printable(describe_header(frame.kind, frame.header), limit=_LINE))
    size = len(frame.body)
    if frame.kind == Kind.CREDIT and size == 8:
        words.append(f"+{int.from_bytes(frame.body)}")
    elif size:
        words.append(f"{size} byte{'s' * (size != 1)}")
        if body:
            words.append(repr(bytes(frame.body[:64])) + "…" * (size > 64))
    return " ".join(words)


def flag_names(flags: int) -> list[str]:
    """Names of the bits that are set; an unknown bit by its number."""
    known = {int(flag): flag.name or "" for flag in Flag if flag}
    return [known.get(1 << bit, f"flag {1 << bit:#04x}") for bit in range(8) if flags >> bit & 1]


def describe_header(kind: int, header: object) -> str:
    """A JSON header in short: long values cut, secrets as their length. Not yet printable."""
    if not isinstance(header, dict):
        return _value(header)
    secrets = {field.name for field in FRAMES[kind].fields if field.secret} if kind in FRAMES else set()
    shown = (
        f"{name}: " + (f"<{len(str(value))} characters>" if name in secrets else _value(value))
        for name, value in header.items()
    )
    return "{" + ", ".join(shown) + "}"


def _value(value: object, depth: int = 0) -> str:
    if isinstance(value, dict | list) and depth >= _DEPTH:
        text = "…"
    elif isinstance(value, dict):
        inside = (f"{name}: {_value(each, depth + 1)}" for name, each in islice(value.items(), _ITEMS))
        text = "{" + ", ".join(inside) + "}"
    elif isinstance(value, list):
        text = "[" + ", ".join(_value(each, depth + 1) for each in value[:_ITEMS]) + "]"
    else:
        text = f'"{value}"' if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _VALUE else text[: _VALUE - 1] + "…"
