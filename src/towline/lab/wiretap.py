"""The tap for Towline's own connections: every frame they say, as plain events, payload left out by default.

Sits in the runtime's seat for an onlooker, so it sees frames after TLS was taken off and needs neither root nor keys.
Its cost is bounded: headers are parsed, bodies are only counted, and above a limit frames are counted only.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import IO, TYPE_CHECKING, Any

from msgspec import Struct

from towline.base.errors import DiskError, TowlineError
from towline.base.limits import MIB, Limit
from towline.base.text import printable
from towline.protocol.codec import Buffer, Frame, Header, encode_header
from towline.protocol.describe import describe, flag_names
from towline.protocol.table import FRAMES, PREFACE, PREFIX, PREFIX_SIZE, Kind, Role
from towline.runtime import watching

if TYPE_CHECKING:
    from towline.runtime.pump import Connection

TAP_FILE = Limit("tap_file", 64 * MIB, "bytes", "a recording that nobody stops must not fill the disk")
TAP_BODY = Limit("tap_body", 4096, "bytes", "payload that is kept of one frame when payload was asked for")
ENVIRONMENT = "TOWLINE_TAP"  # a file: a `tow` that finds it set writes its recording there
PAYLOAD_ENVIRONMENT = "TOWLINE_TAP_PAYLOAD"

# Values that say what a frame is; every other text of a service's own may be somebody's and is left out.
_SAYS_WHAT = frozenset({"service", "op", "t", "kind", "class"})

_LONG_NUMBERS = frozenset({"nonce", "key", "signature", "pad"})  # hexadecimal; the beginning tells them apart

Emit = Callable[[dict[str, Any]], None]


class Seen(Struct, frozen=True):
    """One frame as it went by: its position in the connection's bytes of that direction, and what was kept of it."""

    start: int
    kind: int
    flags: int
    stream: int
    header: bytes
    size: int  # of the body
    body: bytes  # the beginning of it, as far as it was kept

    @property
    def wire_size(self) -> int:
        return PREFIX_SIZE + len(self.header) + self.size


class FrameReader:
    """Reads along on one direction of a connection. Holds a header at most, never a body."""

    def __init__(self, keep: int = 0) -> None:
        self.preface = b""
        self.broken = False  # a frame of no known kind: what follows cannot be understood
        self._keep = keep
        self._held = bytearray()
        self._at = 0  # position of the first held byte
        self._skip = 0  # bytes of the body that are still to come
        self._open: tuple[int, int, int, int, bytes, int, bytearray] | None = None

    def feed(self, data: Buffer) -> Iterator[Seen | bytes]:
        """What is complete now: the preface (as bytes), then frames."""
        view = memoryview(data)
        while len(view) and not self.broken:
            if self._skip:
                view = self._body(view)
                if not self._skip:
                    yield self._finish()
                continue
            missing = self._missing()
            self._held += view[:missing]
            view = view[missing:]
            if self._missing():
                continue
            if not self.preface:
                yield self._begin_connection()
            elif self._begin() == 0 and self._open:
                yield self._finish()

    def _missing(self) -> int:
        if not self.preface:
            return len(PREFACE) - len(self._held)
        if len(self._held) < PREFIX_SIZE:
            return PREFIX_SIZE - len(self._held)
        return PREFIX_SIZE + int(PREFIX.unpack_from(self._held)[2]) - len(self._held)

    def _begin_connection(self) -> bytes:
        self.preface = bytes(self._held)
        self.broken = self.preface != PREFACE
        self._at += len(self._held)
        self._held.clear()
        return self.preface

    def _begin(self) -> int:
        """A prefix with its header is complete; how much body is to come."""
        kind, flags, header_len, size, stream = PREFIX.unpack_from(self._held)
        if kind not in FRAMES:
            self.broken = True
            return 0
        header = bytes(self._held[PREFIX_SIZE:])
        self._open = (self._at, kind, flags, stream, header, size, bytearray())
        self._at += PREFIX_SIZE + header_len + size
        self._held.clear()
        self._skip = size
        return int(size)

    def _body(self, view: memoryview) -> memoryview:
        assert self._open is not None
        part = view[: self._skip]
        kept = self._open[6]
        kept += part[: max(self._keep - len(kept), 0)]
        self._skip -= len(part)
        return view[len(part) :]

    def _finish(self) -> Seen:
        assert self._open is not None
        start, kind, flags, stream, header, size, kept = self._open
        self._open = None
        return Seen(start, kind, flags, stream, header, size, bytes(kept))


class WireTap:
    """An onlooker that turns what goes by into events. `emit` is called under a lock, from any thread."""

    def __init__(self, emit: Emit, *, payload: bool = False) -> None:
        self.payload = payload
        self._emit = emit
        self._lock = threading.Lock()
        self._began = time.monotonic()
        # The objects are kept with their numbers: the address of one that is gone may be given to another.
        self._numbers: dict[int, tuple[int, object]] = {}
        self._count = 0
        self._role = Role.CLIENT  # what this process is; a lane does not say it
        self._readers: dict[tuple[int, bool], FrameReader] = {}

    def on_bytes(self, connection: Connection, ours: bool, buffers: Sequence[Buffer]) -> None:
        with self._lock:
            number = self._number(connection, connection.session.role, connection.peer.address)
            keep = TAP_BODY.value if self.payload else 0
            reader = self._readers.setdefault((number, ours), FrameReader(keep))
            self._role = role = connection.session.role
            sender = role if ours else role.peer
            for buffer in buffers:
                for seen in reader.feed(buffer):
                    if isinstance(seen, Seen):
                        self._frame(number, sender, seen)
                    else:
                        self._tell("preface", number, sender, hex=seen.hex())

    def on_lane_frame(self, lane: object, ours: bool, kind: Kind, header: Header | None, size: int) -> None:
        with self._lock:
            number = self._number(lane, None, "")
            seen = Seen(0, int(kind), 0, 1, encode_header(header or None), size, b"")
            self._frame(number, self._role if ours else self._role.peer, seen, lane=True)

    def on_over(self, connection: Connection, error: TowlineError | None) -> None:
        with self._lock:
            number, _ = self._numbers.pop(id(connection), (0, None))
            if not number:
                return
            for ours in (False, True):
                self._readers.pop((number, ours), None)
            reason = printable(error.sentence, limit=200) if error else ""
            self._emit(self._stamped("over", number) | {"name": error.name if error else "", "reason": reason})

    # --- inside ---

    def _number(self, who: object, role: Role | None, peer: str) -> int:
        number, _ = self._numbers.get(id(who), (0, None))
        if not number:
            self._count += 1
            number = self._count
            self._numbers[id(who)] = (number, who)
            kind = role.value if role else "lane"
            self._emit(self._stamped("connection", number) | {"role": kind, "peer": printable(peer)})
        return number

    def _frame(self, number: int, sender: Role | None, seen: Seen, **more: Any) -> None:
        header = _readable(seen.header)
        shown = header if self.payload or header is None else redacted(seen.kind, header)
        body = seen.body if len(seen.body) == seen.size else bytes(0)
        text = describe(Frame(seen.kind, seen.flags, seen.stream, shown, body))
        if seen.size and not body:
            text += f" {seen.size} bytes"
        kept = {"body": base64.b64encode(seen.body).decode("ascii")} if self.payload and seen.body else {}
        self._tell(
            "frame",
            number,
            sender,
            kind=FRAMES[seen.kind].name,
            stream=seen.stream,
            flags=flag_names(seen.flags),
            start=seen.start,
            size=seen.wire_size,
            body_size=seen.size,
            text=text,
            **kept,
            **more,
        )

    def _tell(self, event: str, number: int, sender: Role | None, **fields: Any) -> None:
        who = {"sender": sender.value} if sender else {}
        self._emit(self._stamped(event, number) | who | fields)

    def _stamped(self, event: str, number: int) -> dict[str, Any]:
        at = round(time.monotonic() - self._began, 6)
        return {"v": 1, "event": event, "at": at, "connection": number}


def redacted(kind: int, header: Header) -> Header:
    """A header with every text left out that is the service's own, and so perhaps somebody's: its length stands."""
    known = {field.name for field in FRAMES[kind].fields} | _SAYS_WHAT
    return {name: _short(name, value) if name in known else _without_text(value) for name, value in header.items()}


def _short(name: str, value: object) -> object:
    if not isinstance(value, str):
        return value
    if name == "message":  # an error's sentence; what it quotes is somebody's
        return re.sub(r"\"[^\"]*\"|'[^']*'", '"…"', value)
    return f"{value[:8]}…" if name in _LONG_NUMBERS and len(value) > 16 else value


def _without_text(value: object) -> object:
    if isinstance(value, str):
        return f"<{len(value)} characters>"
    if isinstance(value, dict):
        return f"<{len(value)} fields>"
    if isinstance(value, list):
        return f"<{len(value)} items>"
    return value


def _readable(header: bytes) -> Header | None:
    if not header:
        return None
    try:
        value = json.loads(header)
    except (ValueError, RecursionError):
        return {"?": "not JSON"}
    return value if isinstance(value, dict) else {"?": "not an object"}


# --- a tap that writes a file ---


class TapFile:
    """JSON lines in a file that only we may read, up to a limit."""

    def __init__(self, path: str, *, payload: bool) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DiskError(f"The recording {printable(path)} cannot be written: {error.strerror}.") from None
        self._file: IO[str] = os.fdopen(descriptor, "w", encoding="utf-8")
        self._left = TAP_FILE.value
        self._dropped = 0
        self._flushed = 0.0
        self({"v": 1, "event": "tap", "payload": payload})

    def __call__(self, event: dict[str, Any]) -> None:
        line = json.dumps(event) + "\n"
        self._left -= len(line)
        if self._left < 0:
            self._dropped += 1
            return
        try:
            self._file.write(line)
            if (now := time.monotonic()) - self._flushed > 1.0:  # a node's recording may be looked at while it grows
                self._file.flush()
                self._flushed = now
        except OSError:  # a full disk must not end what is being recorded
            self._left = 0
            self._dropped += 1

    def close(self) -> None:
        """Write what is buffered; says how much was left out."""
        try:
            if self._dropped:
                self._file.write(json.dumps({"v": 1, "event": "left-out", "events": self._dropped}) + "\n")
            self._file.close()
        except OSError:
            pass  # the same full disk


def tapping_as_told(environment: Mapping[str, str]) -> AbstractContextManager[None]:
    """What `tow lab record` asks of the commands it starts: a recording where the environment names a file."""
    path = environment.get(ENVIRONMENT)
    if not path:
        return nullcontext()
    if os.path.exists(path):  # an earlier command of the same script was here
        path = f"{path}.{os.getpid()}"
    return tapping(path, payload=bool(environment.get(PAYLOAD_ENVIRONMENT)))


@contextmanager
def tapping(path: str, *, payload: bool = False) -> Iterator[None]:
    """Record every Towline connection of this process into `path` for the length of a `with` block."""
    file = TapFile(path, payload=payload)
    watching.watch(WireTap(file, payload=payload))
    try:
        yield
    finally:
        watching.watch(None)
        file.close()
