"""Typed records of the handshake and of faults: JSON headers parsed at the edge and trusted inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

from towline.base.errors import MalformedFrame, TowlineError, error_from_wire
from towline.base.limits import CONNECTION_WINDOW, FRAME_BODY, FRAME_HEADER, MESSAGE, STREAM_WINDOW, STREAMS, Limit
from towline.base.text import printable
from towline.protocol.codec import Header

NONCE_SIZE = 32
_SENTENCE = 600
_LONGEST_WAIT = 3600.0
_ANNOUNCED: tuple[Limit, ...] = (FRAME_HEADER, FRAME_BODY, MESSAGE, STREAMS, STREAM_WINDOW, CONNECTION_WINDOW)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side announces that it takes; names as in limits.md, values in bytes or counts."""

    frame_header: int = FRAME_HEADER.value
    frame_body: int = FRAME_BODY.value
    message: int = MESSAGE.value
    streams: int = STREAMS.value
    stream_window: int = STREAM_WINDOW.value
    connection_window: int = CONNECTION_WINDOW.value

    def to_header(self) -> Header:
        return {limit.name: getattr(self, limit.name) for limit in _ANNOUNCED}

    @classmethod
    def from_header(cls, header: Header) -> Limits:
        """Unknown names are ignored, missing ones have our own values. Raises MalformedFrame."""
        values: dict[str, int] = {}
        for limit in _ANNOUNCED:
            value = header.get(limit.name, limit.value)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 48:
                raise MalformedFrame(f"Limit {limit.name} in HELLO is not a positive number.")
            values[limit.name] = value
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Hello:
    """HELLO of either side. `lane` is a ticket; `name` is the node's own."""

    agent: str
    nonce: bytes
    limits: Limits
    lane: str | None = None
    name: str | None = None

    def to_header(self) -> Header:
        header: Header = {"agent": self.agent, "nonce": self.nonce.hex(), "limits": self.limits.to_header()}
        if self.lane is not None:
            header["lane"] = self.lane
        if self.name is not None:
            header["name"] = self.name
        return header

    @classmethod
    def from_header(cls, header: Header) -> Hello:
        limits = header["limits"]
        assert isinstance(limits, dict)
        nonce = hex_field(header, "nonce", NONCE_SIZE)
        return cls(
            agent=printable(str(header["agent"]), limit=80),
            nonce=nonce,
            limits=Limits.from_header(limits),
            lane=str(header["lane"]) if "lane" in header else None,
            name=printable(str(header["name"]), limit=80) if "name" in header else None,
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client offers. `method` is `key`, `invite` or `peer`; sizes: key 32, signature 64 bytes."""

    method: str
    key: bytes = b""
    signature: bytes = b""
    secret: bytes = b""

    def to_header(self) -> Header:
        header: Header = {"method": self.method}
        if self.method != "peer":
            header |= {"key": self.key.hex(), "signature": self.signature.hex()}
        if self.method == "invite":
            header["secret"] = self.secret.hex()
        return header

    @classmethod
    def from_header(cls, header: Header) -> Proof:
        method = header["method"]
        if method == "peer":
            return cls("peer")
        if method not in {"key", "invite"}:
            raise MalformedFrame("PROVE has an unknown method.")
        return cls(
            method=str(method),
            key=hex_field(header, "key", 32),
            signature=hex_field(header, "signature", 64),
            secret=hex_field(header, "secret", 16) if method == "invite" else b"",
        )


@dataclass(frozen=True, slots=True)
class Welcome:
    """WELCOME: the name and the grants that the node has for the client."""

    person: str
    grants: str
    lane: bool = False

    def to_header(self) -> Header:
        header: Header = {"person": self.person, "grants": self.grants}
        return header | {"lane": True} if self.lane else header

    @classmethod
    def from_header(cls, header: Header) -> Welcome:
        return cls(
            printable(str(header["person"]), limit=200),
            printable(str(header["grants"]), limit=2000),
            header.get("lane") is True,
        )


def fault_header(error: TowlineError) -> Header:
    """The header of RESET and GOAWAY for `error`."""
    header: Header = {"code": error.code, "message": error.sentence[:_SENTENCE], "retryable": error.retryable}
    if error.retry_after is not None:
        header["retry_after"] = error.retry_after
    return header


def fault_from_header(header: Header) -> TowlineError:
    """The error that the peer named, its text made printable and its wait bounded."""
    wait = header.get("retry_after")
    retry_after: float | None = None
    if isinstance(wait, int | float) and math.isfinite(wait):
        retry_after = min(max(float(wait), 0.0), _LONGEST_WAIT)
    code = header["code"]
    assert isinstance(code, int)
    return error_from_wire(
        code, printable(str(header["message"]), limit=_SENTENCE), header["retryable"] is True, retry_after
    )


def hex_field(header: Header, name: str, size: int) -> bytes:
    """A field of exactly `size` bytes in hexadecimal. Raises MalformedFrame."""
    try:
        value = bytes.fromhex(str(header.get(name, "")))
    except ValueError:
        value = b""
    if len(value) != size:
        raise MalformedFrame(f"Field {name!r} must be {size} bytes in hexadecimal.")
    return value
