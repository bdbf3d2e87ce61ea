"""Typed records of the handshake and of faults: JSON headers parsed at the edge and trusted inside."""

from __future__ import annotations

from typing import NamedTuple

from towline.base.errors import MalformedFrame, TowlineError, error_from_wire
from towline.base.limits import CONNECTION_WINDOW, FRAME_BODY, FRAME_HEADER, MESSAGE, STREAM_WINDOW, STREAMS, Limit
from towline.base.text import printable
from towline.protocol.codec import Header, encode_header
from towline.protocol.table import PREFIX_SIZE

NONCE_SIZE = 32
AGENT_SIZE = 80  # characters of an agent's or node's name that are kept
# Messages up to this size are never cut, and no window or frame may be too small for one with its header.
WHOLE_MESSAGE = 1024
_NAME_SIZE = 400  # bytes of JSON: a node's HELLO must be shorter than a client's, which is filled up
_FAULT_SIZE = 900  # bytes of JSON: the sentence of a RESET or GOAWAY fits into the smallest frame_header
_LEAST_HEADER = 1024
_LONGEST_WAIT = 3600.0
_ANNOUNCED: tuple[Limit, ...] = (FRAME_HEADER, FRAME_BODY, MESSAGE, STREAMS, STREAM_WINDOW, CONNECTION_WINDOW)


class Limits(NamedTuple):
    """What one side announces that it takes; names as in limits.md, values in bytes or counts."""

    frame_header: int = FRAME_HEADER.value
    frame_body: int = FRAME_BODY.value
    message: int = MESSAGE.value
    streams: int = STREAMS.value
    stream_window: int = STREAM_WINDOW.value
    connection_window: int = CONNECTION_WINDOW.value

    @property
    def least_window(self) -> int:
        """What a window must have to never stall. See `check`."""
        return 4 * (PREFIX_SIZE + self.frame_header + WHOLE_MESSAGE)

    def check(self) -> None:
        """Raise MalformedFrame when a conversation within these limits could not be had.

        A receiver returns credit by half windows, and bulk leaves an eighth of a connection's window to the others;
        what is left, three eighths, must hold the largest piece that is not cut: a header with a small body.
        """
        floors = {
            "frame_header": _LEAST_HEADER,
            "frame_body": WHOLE_MESSAGE,
            "stream_window": self.least_window,
            "connection_window": self.least_window,
        }
        for name, least in floors.items():
            if getattr(self, name) < least:
                raise MalformedFrame(f"Limit {name} is {getattr(self, name)}; {least} is the least that works.")

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
        limits = cls(**values)
        limits.check()
        return limits


class Hello(NamedTuple):
    """HELLO of either side. `lane` is a ticket; `name` is the node's own."""

    agent: str
    nonce: bytes
    limits: Limits
    lane: str | None = None
    name: str | None = None

    def to_header(self) -> Header:
        agent = _fitting(self.agent, AGENT_SIZE)
        header: Header = {"agent": agent, "nonce": self.nonce.hex(), "limits": self.limits.to_header()}
        if self.lane is not None:
            header["lane"] = self.lane
        if self.name is not None:
            header["name"] = _fitting(self.name, _NAME_SIZE)
        return header

    @classmethod
    def from_header(cls, header: Header) -> Hello:
        limits = header["limits"]
        assert isinstance(limits, dict)
        nonce = hex_field(header, "nonce", NONCE_SIZE)
        return cls(
            agent=printable(str(header["agent"]), limit=AGENT_SIZE),
            nonce=nonce,
            limits=Limits.from_header(limits),
            lane=str(header["lane"]) if "lane" in header else None,
            name=printable(str(header["name"]), limit=AGENT_SIZE) if "name" in header else None,
        )


class Proof(NamedTuple):
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


class Welcome(NamedTuple):
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
    """The header of RESET and GOAWAY for `error`, its sentence cut to what fits everywhere."""
    header: Header = {"code": error.code, "message": "", "retryable": bool(error.retryable)}
    if error.retry_after is not None:
        header["retry_after"] = min(max(float(error.retry_after), 0.0), _LONGEST_WAIT)
    return header | {"message": _fitting(error.sentence, _FAULT_SIZE)}


def fault_from_header(header: Header) -> TowlineError:
    """The error that the peer named, its text made printable and its wait bounded."""
    wait = header.get("retry_after")
    retry_after: float | None = None
    if isinstance(wait, int | float):
        retry_after = float(min(max(wait, 0), _LONGEST_WAIT))
    code = header["code"]
    assert isinstance(code, int)
    return error_from_wire(
        code if 0 <= code < 1 << 16 else 0,
        printable(str(header["message"]), limit=_FAULT_SIZE),
        header["retryable"] is True,
        retry_after,
    )


def _fitting(text: str, size: int) -> str:
    """As much of `text` as takes at most `size` bytes of JSON: a character takes between one and twelve."""
    text = text[:size]
    while len(encode_header({"": text})) > size:
        text = text[: len(text) * 9 // 10]
    return text


def hex_field(header: Header, name: str, size: int) -> bytes:
    """A field of exactly `size` bytes in hexadecimal. Raises MalformedFrame."""
    try:
        value = bytes.fromhex(str(header.get(name, "")))
    except ValueError:
        value = b""
    if len(value) != size:
        raise MalformedFrame(f"Field {name!r} must be {size} bytes in hexadecimal.")
    return value
