"""One unfinished file, for the tests about it."""

from __future__ import annotations

from pathlib import Path

from towline.services.files.part import Part, Pin, part_name

SIZE = 100_000
CONTENT = bytes(i * 7 % 251 for i in range(SIZE))
PIN = Pin(SIZE, 1_700_000_000_000_000_000, "1f")


def opened(folder: int, pin: Pin = PIN, *, owner: str = "anna", name: str = "big") -> Part:
    return Part.open(folder, name, owner=owner, pin=pin)


def the_file(share: Path, suffix: str, name: str = "big") -> Path:
    return share / (part_name(name, "anna") + suffix)


def opened_and_closed(folder: int) -> Part:
    part = opened(folder)
    part.close()
    return part
