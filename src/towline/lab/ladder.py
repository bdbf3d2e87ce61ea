"""A ladder: two columns, time downwards, and for every recv which bytes of which send it returned.

Pure: a scene in, lines out; `terminal.py` and `svg.py` paint them. What a line says beyond the bare call is
evidence from the recording: that messages were joined by the sender's side or only met in the receiver's queue
(what the sender's kernel still held back), or that a recv asked for too little and left the rest behind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from towline.base.text import printable
from towline.lab.recording import RECEIVES, SENDS, Event, Scene
from towline.lab.texts import Text, pick

_PREVIEW = 20  # characters of payload in a chip

_SAYS: dict[str, Text] = {
    "joined-wire": {
        "en": "{who}: joined by the sender's side, before they left",
        "zh": "{who}：发送方在发出之前就合并了",
    },
    "joined-queue": {
        "en": "{who}: sent apart, met in this queue",
        "zh": "{who}：分开发出，在接收队列里相遇",
    },
    "joined": {"en": "{who} came together", "zh": "{who} 一起到达"},
    "rest": {"en": "{left} B are left in the queue", "zh": "队列里还剩 {left} 字节"},
    "middle": {"en": "left over by the recv before", "zh": "上一次 recv 剩下的"},
    "short": {"en": "{who} is not all here yet", "zh": "{who} 还没有到齐"},
    "cut": {"en": "{lost} B of the datagram are thrown away", "zh": "这个数据报有 {lost} 字节被丢弃"},
    "end": {"en": "0 bytes: the other side has ended", "zh": "返回 0 字节：对方已结束发送"},
    "partial": {"en": "only {n} of {asked} B were taken", "zh": "只收下 {asked} 字节中的 {n} 字节"},
    "never": {"en": "{who} never arrived", "zh": "{who} 从未到达"},
    "again": {"en": "{who} once more", "zh": "{who} 又来了一次"},
    "late": {"en": "{who} was overtaken", "zh": "{who} 被后面的超过了"},
    "bytes": {"en": "{n} B", "zh": "{n} 字节"},
}


class Message(Struct, frozen=True):
    """What a sender meant to be one thing: a range of one flow, with a short label (A, B, …) and a colour
    number."""

    label: str
    colour: int
    flow: str
    start: int
    end: int


class Piece(Struct, frozen=True):
    """A part of one message inside one call: positions `start` to `end` within the message."""

    message: Message
    start: int
    end: int
    text: str

    @property
    def whole(self) -> bool:
        return self.end - self.start == self.message.end - self.message.start

    @property
    def caption(self) -> str:
        """`A‹hello›`, or `A[3:5]‹lo›` for a part."""
        part = "" if self.whole else f"[{self.start}:{self.end}]"
        return f"{self.message.label}{part}‹{self.text}›"


class Line(Struct, frozen=True):
    """One line. `side` is left or right (a state line: both); `origins`: the lines whose bytes it returned."""

    kind: str  # call, segment, frame, state, remark
    at: float
    side: str
    who: str
    head: str
    pieces: tuple[Piece, ...] = ()
    evidence: tuple[str, ...] = ()
    failed: bool = False
    other: str = ""  # the state at the right end
    origins: tuple[tuple[int, int], ...] = ()  # (line number, colour)


@dataclass(slots=True)
class Ladder:
    """The lines of one scene, and the heads of its two columns."""

    title: str
    left: str
    right: str
    lines: list[Line] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    note: str = ""


def build(scene: Scene, lang: str) -> Ladder:
    """The ladder of a scene, its evidence said in `lang`."""
    ladder = Ladder(
        title=pick(scene.title, lang),
        left=_together(scene.left),
        right=_together(scene.right),
        messages=_messages(scene.events),
        note=pick(scene.note, lang) if scene.note else "",
    )
    return _Builder(scene, ladder, lang).built()


def preview(data: bytes, size: int, lang: str) -> str:
    """Payload for a chip: short text as it is, short binary in hexadecimal, anything else by its size."""
    counted = pick(_SAYS["bytes"], lang).format(n=size)
    if len(data) < size or size == 0:
        return counted
    try:
        text = printable(data.decode("utf-8"))
    except UnicodeDecodeError:
        return data.hex(" ") if size <= 8 else counted
    if text.startswith("\\x"):  # binary that happens to decode
        return data.hex(" ") if size <= 8 else counted
    return text if len(text) <= _PREVIEW else text[: _PREVIEW - 1] + "…"


def letters(number: int) -> str:
    """0 → A, 25 → Z, 26 → AA."""
    label = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        label = chr(65 + rest) + label
    return label


class _Builder:
    """Goes through a scene once. Remembers per flow where the reading stands."""

    def __init__(self, scene: Scene, ladder: Ladder, lang: str) -> None:
        self.scene, self.ladder, self.lang = scene, ladder, lang
        self.began = scene.events[0].at if scene.events else 0.0
        self.sent: list[tuple[int, Event]] = []  # line number and event of every send
        self.seen: list[Message] = []

    def built(self) -> Ladder:
        for event in self.scene.events:
            if event.call == "state" and self._joins_last_state(event):
                continue
            line = self._line(event)
            if event.call in SENDS and event.returned is not None:
                self.sent.append((len(self.ladder.lines), event))
            self.ladder.lines.append(line)
        return self.ladder

    def _line(self, event: Event) -> Line:
        kind = event.call if event.call in {"segment", "frame", "state", "remark"} else "call"
        side = "right" if event.who in self.scene.right else "left"
        pieces = self._pieces(event) if kind == "call" else ()
        return Line(
            kind=kind,
            at=event.at - self.began,
            side=side,
            who=event.who,
            head=self._head(event, kind),
            pieces=pieces,
            evidence=(pick(event.text, self.lang),)
            if kind == "frame" and event.text
            else tuple(self._evidence(event, pieces)),
            failed=bool(event.error),
            other=event.detail if kind == "state" and side == "right" else "",
            origins=self._origins(event),
        )

    def _joins_last_state(self, event: Event) -> bool:
        # The two ends were looked at in one moment: one line.
        if not self.ladder.lines or event.who not in self.scene.right:
            return False
        last = self.ladder.lines[-1]
        if last.kind != "state" or last.other or last.at != event.at - self.began:
            return False
        joined = Line("state", last.at, "left", last.who, last.head, other=event.detail)
        self.ladder.lines[-1] = joined
        return True

    def _head(self, event: Event, kind: str) -> str:
        if kind == "remark":
            return pick(event.text, self.lang) if event.text else ""
        many = len(self.scene.left if event.who in self.scene.left else self.scene.right) > 1
        if kind == "state":
            return f"{event.who}: {event.detail}" if many else event.detail
        if kind == "frame":
            return event.detail
        if kind == "segment":
            size = f", {event.returned} B" if event.returned else ""
            return event.detail + size
        who = f"{event.who}: " if many else ""
        argument = str(event.asked) if event.asked is not None else event.detail
        whole = event.call in SENDS and event.returned == event.asked
        result = event.error or ("" if event.returned is None or whole else str(event.returned))
        return f"{who}{event.call}({argument})" + (f" → {result}" if result else "")

    def _pieces(self, event: Event) -> tuple[Piece, ...]:
        if event.start is None or event.returned is None:
            return ()
        if event.returned == 0 and event.call not in {"sendto", "recvfrom"}:
            return ()
        found = []
        for message in self.ladder.messages:
            start, end = max(message.start, event.start), min(message.end, event.end)
            empty = message.start == message.end == event.start == event.end
            if message.flow != event.flow or (start >= end and not empty):
                continue
            data = event.data[start - event.start : end - event.start]
            text = preview(data, end - start, self.lang)
            found.append(Piece(message, start - message.start, end - message.start, text))
        if not found and event.call in RECEIVES and event.data:  # whoever sent this was not tapped
            message = Message("", len(self.ladder.messages), event.flow, event.start, event.end)
            found = [Piece(message, 0, event.returned, preview(event.data, event.returned, self.lang))]
        return tuple(found)

    def _origins(self, event: Event) -> tuple[tuple[int, int], ...]:
        if event.call not in RECEIVES or not event.returned or event.start is None:
            return ()
        links = []
        for number, send in self.sent:
            overlap = min(send.end, event.end) > max(send.start or 0, event.start)
            if send.flow == event.flow and overlap:
                links.append((number, self._colour(send)))
        return tuple(links)

    def _colour(self, send: Event) -> int:
        for message in self.ladder.messages:
            if message.flow == send.flow and message.start <= (send.start or 0) < message.end:
                return message.colour
        return 0

    # --- evidence ---

    def _evidence(self, event: Event, pieces: tuple[Piece, ...]) -> Iterable[str]:
        if event.call in SENDS:
            yield from self._evidence_of_send(event, pieces)
        elif event.call in RECEIVES and not event.error:
            yield from self._evidence_of_recv(event, pieces)

    def _evidence_of_send(self, event: Event, pieces: tuple[Piece, ...]) -> Iterable[str]:
        if event.returned is not None and event.asked is not None and event.returned < event.asked:
            yield self._say("partial", n=event.returned, asked=event.asked)
        if event.call == "sendto" and pieces and not self._arrives(pieces[0].message):
            yield self._say("never", who=pieces[0].message.label)

    def _evidence_of_recv(self, event: Event, pieces: tuple[Piece, ...]) -> Iterable[str]:
        asked, returned = event.asked or 0, event.returned or 0
        if event.call == "recvfrom":
            yield from self._evidence_of_datagram(event, pieces)
            return
        if returned == 0:
            if asked:
                yield self._say("end")
            return
        if pieces and pieces[0].start > 0:
            yield self._say("middle", who=pieces[0].message.label)
        if len(pieces) > 1:
            yield self._joined(pieces)
        left = (event.waiting or 0) - returned
        torn = bool(pieces) and pieces[-1].end < pieces[-1].message.end - pieces[-1].message.start
        if left > 0 and torn:
            yield self._say("rest", left=left)
        elif torn and returned < asked:
            yield self._say("short", who=pieces[-1].message.label)

    def _joined(self, pieces: tuple[Piece, ...]) -> str:
        """Where messages were joined: what its kernel held back when the next was sent left with it."""
        labels = [piece.message.label for piece in pieces]
        who = "+".join(labels) if len(labels) < 4 else f"{labels[0]}…{labels[-1]}"
        held = [self._held_after(piece.message) for piece in pieces[:-1]]
        if None in held:  # not TCP: the kernel does not say
            return self._say("joined", who=who)
        return self._say("joined-wire" if all(held) else "joined-queue", who=who)

    def _held_after(self, message: Message) -> int | None:
        for _, send in reversed(self.sent):
            if send.flow == message.flow and send.end == message.end:
                return send.kernel.held if send.kernel else None
        return None

    def _evidence_of_datagram(self, event: Event, pieces: tuple[Piece, ...]) -> Iterable[str]:
        lost = (event.waiting or 0) - (event.returned or 0)
        if lost > 0 and event.returned == event.asked:
            yield self._say("cut", lost=lost)
        for piece in pieces:
            if piece.message in self.seen:
                yield self._say("again", who=piece.message.label)
            elif any(_after(former, piece.message) for former in self.seen):
                yield self._say("late", who=piece.message.label)
            self.seen.append(piece.message)

    def _arrives(self, message: Message) -> bool:
        receipts = [event for event in self.scene.events if event.call == "recvfrom" and event.flow == message.flow]
        # Nobody reads this flow in the recording: nothing is known about its arrival.
        return not receipts or any((event.start or 0) == message.start for event in receipts if not event.error)

    def _say(self, key: str, **values: object) -> str:
        return pick(_SAYS[key], self.lang).format(**values)


def _messages(events: Iterable[Event]) -> list[Message]:
    """Each send is a message of its own, unless the sender named it: then all sends of that name are one."""
    found: list[Message] = []
    for event in events:
        if event.call not in SENDS or event.returned is None or event.start is None:
            continue
        before = found[-1] if found else None
        if event.of and before and before.label == event.of and before.flow == event.flow:
            found[-1] = Message(before.label, before.colour, before.flow, before.start, event.end)
            continue
        found.append(Message(event.of or letters(len(found)), len(found), event.flow, event.start, event.end))
    return found


def _together(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


def _after(one: Message, other: Message) -> bool:
    return one.flow == other.flow and one.start > other.start
