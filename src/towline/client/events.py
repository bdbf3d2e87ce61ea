"""What a transfer tells while it goes on. Sizes in bytes, times in seconds; paths relative to what is transferred."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from towline.base.errors import TowlineError


class Started(Struct, frozen=True):
    """The plan is known. A stream of unknown size counts 0 bytes."""

    files: int
    bytes: int


class Progress(Struct, frozen=True):
    """How far it got: files with their outcome, bytes at the other end or on their way.

    `path` is a large file that is under way, if one is: `path_bytes` of `path_total` (0: not known).
    """

    files: int
    total_files: int
    bytes: int
    total_bytes: int
    path: str = ""
    path_bytes: int = 0
    path_total: int = 0


class Resumed(Struct, frozen=True):
    """It goes on. `position` is that of the whole transfer; `covered` bytes of `path` were there."""

    position: int
    path: str
    covered: int


class FileDone(Struct, frozen=True):
    """A file is whole and durable under its name. `note`: `same` (it was there already), `kept` (left alone)."""

    path: str
    bytes: int
    digest: str
    note: str


class FileFailed(Struct, frozen=True):
    """A file could not be transferred; the others go on."""

    path: str
    error: TowlineError


class Warned(Struct, frozen=True):
    """Something is not taken along, or begun anew, and why."""

    path: str
    reason: str


class Done(Struct, frozen=True):
    """All have their outcome. `sent_bytes` arrived over the network, `resent_bytes` of them for nothing."""

    files: int
    bytes: int
    sent_bytes: int
    resent_bytes: int
    seconds: float
    cuts: int
    failures: tuple[TowlineError, ...]


TransferEvent: TypeAlias = Started | Progress | Resumed | FileDone | FileFailed | Warned | Done
