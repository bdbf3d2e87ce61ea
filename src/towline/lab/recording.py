"""A recording: every call on every tapped socket on one time line, as plain values that survive JSON.

A *flow* is the bytes that travel one way, for example `client→server`. Positions in it count from 0, so that the
bytes of a `send` are found again in the `recv` calls that returned them. Times are seconds since the recording
began.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sized
from typing import Any

from msgspec import Struct, field
from msgspec.structs import asdict, replace

from towline.lab.texts import Text

VERSION = 1

# Calls that put bytes into a flow, and calls that take them out.
SENDS = frozenset({"send", "sendall", "sendto"})
RECEIVES = frozenset({"recv", "recvfrom"})


class Kernel(Struct, frozen=True):
    """What the kernel said about a socket after a call: TCP state, queue sizes in bytes, parts of TCP_INFO."""

    state: str = ""
    unread: int | None = None
    unsent: int | None = None  # handed to the kernel and not yet acknowledged by the peer (SIOCOUTQ)
    held: int | None = None  # of these, not even sent once (SIOCOUTQNSD)
    info: Mapping[str, int] = field(default_factory=dict)


class Event(Struct, frozen=True):
    """One thing that happened: a call, a segment on the wire, a look at the states, or a remark."""

    at: float
    who: str
    call: str
    asked: int | None = None  # bytes asked for: the size given to recv, the length given to send
    returned: int | None = None  # bytes returned or taken
    flow: str = ""
    start: int | None = None  # position in the flow of the first byte
    of: str = ""  # the message that the sender says these bytes belong to
    waiting: int | None = None  # unread bytes in the queue right before a recv
    data: bytes = b""
    error: str = ""  # errno's name
    detail: str = ""  # flags of a segment, a state, an address, an option
    took: float = 0.0
    text: Text | None = None
    kernel: Kernel | None = None

    @property
    def end(self) -> int:
        """Position after the last byte; only for events with a position."""
        return (self.start or 0) + (self.returned or 0)


class Table(Struct, frozen=True):
    """Facts that are no calls: a small table with a heading in both languages."""

    title: Text
    columns: tuple[Text, ...]
    rows: tuple[tuple[str | Text, ...], ...]


class Scene(Struct, frozen=True):
    """One experiment of an exhibit: two sides, what happened between them, and the facts measured."""

    name: str
    title: Text
    left: tuple[str, ...] = ("client",)
    right: tuple[str, ...] = ("server",)
    events: tuple[Event, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    note: Text | None = None  # said under the ladder: what is not shown here, and why

    def calls(self, *names: str, who: str = "") -> list[Event]:
        """The events with one of these call names, of one actor where it is given."""
        return [event for event in self.events if event.call in names and (not who or event.who == who)]

    def states(self) -> list[tuple[str, str]]:
        """The looks at both ends, in order: (state at the left end, state at the right end)."""
        seen = [(event.at, event.who, event.detail) for event in self.calls("state")]
        lefts = [entry for entry in seen if entry[1] in self.left]
        rights = {entry[0]: entry[2] for entry in seen if entry[1] in self.right}
        return [(state, rights.get(at, "")) for at, _, state in lefts]


class Recording(Struct, frozen=True):
    """What one exhibit (or one live connection) left behind."""

    name: str
    scenes: tuple[Scene, ...]
    system: str = ""
    segments_shown: bool = False
    redacted: bool = False

    def scene(self, name: str) -> Scene:
        """The scene with that name; KeyError when there is none."""
        for scene in self.scenes:
            if scene.name == name:
                return scene
        raise KeyError(name)

    def without_payload(self) -> Recording:
        """The same recording with every payload taken out; sizes and positions stay."""
        scenes = tuple(
            replace(scene, events=tuple(replace(event, data=b"") for event in scene.events)) for scene in self.scenes
        )
        return replace(self, scenes=scenes, redacted=True)


# --- JSON ---


def to_json(recording: Recording) -> dict[str, Any]:
    """A recording as JSON values; payload as base64; fields that say nothing are left out."""
    return {"v": VERSION, **_plain(recording)}


def event_to_json(event: Event) -> dict[str, Any]:
    """One event as JSON values."""
    plain: dict[str, Any] = _plain(event)
    return plain


def from_json(values: Mapping[str, Any]) -> Recording:
    """The inverse of `to_json`. Raises ValueError for anything that is no recording of this version."""
    try:
        if values["v"] != VERSION:
            raise ValueError(f"a recording of version {values['v']!r}; this program reads version {VERSION}")
        scenes = tuple(_scene(scene) for scene in values.get("scenes", ()))
        return Recording(**_known(Recording, values) | {"scenes": scenes})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a recording ({type(error).__name__}: {error})") from None


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, Struct):
        items = asdict(value).items()
        return {name: _plain(item) for name, item in items if not _says_nothing(item)}
    return value


def _says_nothing(item: Any) -> bool:
    # A zero says something: recv returned nothing.
    return item is None or item is False or (isinstance(item, Sized) and len(item) == 0)


def _known(cls: type[Struct], values: Mapping[str, Any]) -> dict[str, Any]:
    # Fields are only ever added, so a reader leaves out what it does not know.
    names = cls.__struct_fields__
    return {key: value for key, value in values.items() if key in names}


def _scene(values: Mapping[str, Any]) -> Scene:
    parts = _known(Scene, values)
    parts["events"] = tuple(_event(event) for event in values.get("events", ()))
    parts["tables"] = tuple(_table(table) for table in values.get("tables", ()))
    for name in ("left", "right"):
        if name in parts:
            parts[name] = tuple(parts[name])
    return Scene(**parts)


def _event(values: Mapping[str, Any]) -> Event:
    parts = _known(Event, values)
    if "data" in parts:
        parts["data"] = base64.b64decode(parts["data"], validate=True)
    if "kernel" in parts:
        parts["kernel"] = Kernel(**_known(Kernel, parts["kernel"]))
    return Event(**({"at": 0.0} | parts))


def _table(values: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in values.get("rows", ()))
    return Table(title=values["title"], columns=tuple(values["columns"]), rows=rows)
