"""The slash commands of the screen: a table of them, and what each does."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from towline.base.errors import NotFound, PathRefused, UsageError
from towline.base.ids import encode
from towline.base.quantity import format_duration, format_size, parse_duration
from towline.base.text import printable
from towline.cli.roomy import line_of
from towline.client.events import Progress, TransferEvent
from towline.services.rooms.messages import Entry, Missed

if TYPE_CHECKING:
    from towline.cli.chat.screen import ChatApp

_FOUND_SHOWN = 20


class Commands:
    """Runs lines like `/join ops`. Raises UsageError; what fails later is told by the screen."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app

    def run(self, line: str) -> None:
        """One command."""
        word, _, rest = line[1:].partition(" ")
        entry = TABLE.get(word)
        if entry is None:
            raise UsageError(f"There is no command /{printable(word, limit=40)}; /help lists them.")
        entry[1](self, rest.strip())

    def _do(self, work: Awaitable[object], done: str = "") -> None:
        room = self._app.current  # it may be another one by then

        async def to_the_end() -> None:
            await work
            if done:
                self._app.note(done, room)

        self._app.work(to_the_end(), ordered=True)

    # --- rooms ---

    def join(self, rest: str) -> None:
        name, _, how = _need(rest, "/join ROOM [private]").partition(" ")
        name = name.removeprefix("#")
        if how not in ("", "private"):
            raise UsageError(f"A room's name is one word; {printable(how, limit=40)!r} is too much.")
        if how == "private":
            self._do(self._app.line.room(name).join(private=True))
        self._app.open_room(name)

    def leave(self, rest: str) -> None:
        self._app.leave_room(rest or self._app.current)

    def msg(self, rest: str) -> None:
        name, _, text = _need(rest, "/msg NAME TEXT").partition(" ")
        room = f"@{name.removeprefix('@')}"
        self._app.open_room(room)
        if text.strip():
            self._app.say(text.strip(), room=room)

    def topic(self, rest: str) -> None:
        if rest:
            self._do(self._app.handle.topic(rest))
        else:
            topic = printable(self._app.model.topic)
            self._app.note(f"This room is about: {topic}" if topic else "Nobody has said what this room is about.")

    def invite(self, rest: str) -> None:
        name = _need(rest, "/invite NAME")
        self._do(self._app.handle.invite(name), f"{printable(name, limit=80)} may see this room now.")

    def private(self, rest: str) -> None:
        if rest not in ("", "off"):
            raise UsageError("Write /private or /private off.")
        seen_by = "everybody who may chat sees" if rest else "only who is invited sees"
        self._do(self._app.handle.openness(private=not rest), f"From now on {seen_by} this room.")

    def keep(self, rest: str) -> None:
        seconds = parse_duration(_need(rest, "/keep TIME"))
        lasts = f"for {format_duration(seconds)} at least" if seconds else "as long as the node's default says"
        self._do(self._app.handle.keep(seconds=seconds), f"Messages of this room are kept {lasts}.")

    # --- words ---

    def me(self, rest: str) -> None:
        self._app.say(_need(rest, "/me DOES SOMETHING"), kind="me")

    def nick(self, rest: str) -> None:
        self._app.nick = rest
        for handle in self._app.handles.values():
            handle.nick = rest
        self._app.note(f"Your messages carry the nick {rest!r} from now on." if rest else "No nick any more.")

    def edit(self, rest: str) -> None:
        number, _, text = rest.partition(" ")
        self._app.say(_need(text, "/edit N TEXT"), kind="edit", ref=_number(number))

    def delete(self, rest: str) -> None:
        self._app.say("", kind="delete", ref=_number(rest))

    def search(self, rest: str) -> None:
        self._do(self._search(_need(rest, "/search WORD")))

    async def _search(self, word: str) -> None:
        items = [item async for item in self._app.handle.history(search=word)]
        found = [item for item in items if isinstance(item, Entry)]
        lines = [line_of(entry) for entry in found[-_FOUND_SHOWN:]]
        gaps = [f"-- {item.text}" for item in items if isinstance(item, Missed)]
        self._app.note("\n".join([*gaps, f"{len(found)} found, the newest {len(lines)}:", *lines]))

    # --- people ---

    def who(self, rest: str) -> None:
        self._do(self._who(rest))

    async def _who(self, room: str) -> None:
        rows = await (self._app.line.room(room).who() if room else self._app.line.who())
        lines = [f"{row['who']} ({row['state']}) {' '.join(row.get('rooms', []))}" for row in rows]
        self._app.note("\n".join(lines) or "Nobody is here.")

    def receipts(self, rest: str) -> None:
        row = self._app.model.last_of_mine()
        if not rest and row is None:
            raise UsageError("You have said nothing here; write /receipts N.")
        self._do(self._receipts(_number(rest) if rest or row is None else row.seq))

    async def _receipts(self, seq: int) -> None:
        found = await self._app.handle.receipts(seq)
        read = ", ".join(str(name) for name in found["read"]) or "nobody yet"
        self._app.note(f"{seq}: accepted, delivered to {found['delivered']}, read by {read}.")

    def away(self, rest: str) -> None:
        self._app.present(False)

    def back(self, rest: str) -> None:
        self._app.present(True)

    def mute(self, rest: str) -> None:
        name, _, lasts = _need(rest, "/mute NAME [TIME]").partition(" ")
        self._do(self._app.handle.mute(name, parse_duration(lasts) if lasts else 3600.0))

    def unmute(self, rest: str) -> None:
        self._do(self._app.handle.mute(_need(rest, "/unmute NAME"), 0))

    def remove(self, rest: str) -> None:
        self._do(self._app.handle.remove(_number(rest)))

    # --- files ---

    def send(self, rest: str) -> None:
        path = os.path.expanduser(_need(rest, "/send PATH"))
        if not os.path.isfile(path):
            raise NotFound(f"There is no file {printable(path, limit=200)}.")
        self._do(self._send(path))

    async def _send(self, path: str) -> None:
        app, name = self._app, os.path.basename(path)
        share = next((name for name, read_only in await app.line.shares() if not read_only), None)
        if share is None:
            raise NotFound("The node has no share that you may write to.")
        remote, room = f"{share}/chat/{encode(os.urandom(5))}/{name}", app.current
        try:
            done = await app.line.put(path, remote, on_event=self._progress(f"sending {name}"))
        finally:
            app.activity("")
        if done.failures:
            raise done.failures[0]
        app.say(name, room=room, file={"name": name, "path": remote, "bytes": done.bytes})

    def get(self, rest: str) -> None:
        number, _, target = rest.partition(" ")
        self._do(self._get(_number(number), os.path.expanduser(target.strip())))

    async def _get(self, seq: int, target: str) -> None:
        app, row = self._app, self._app.model.find(seq)
        if row is None or not isinstance(row.item, Entry) or row.item.file is None:
            raise NotFound(f"Message {seq} has no file.")
        remote = str(row.item.file["path"])
        name = remote.rpartition("/")[2]
        if name in ("", ".", "..") or name.startswith(("-", ".")) or printable(name) != name:
            raise PathRefused(f"{printable(name, limit=80)!r} is no name to keep a file under.")
        local = target or name
        try:
            done = await app.line.get(remote, local, on_event=self._progress(f"getting {name}"))
        finally:
            app.activity("")
        if done.failures:
            raise done.failures[0]
        app.note(f"{name} is here: {local}, {format_size(done.bytes)}.")

    def _progress(self, doing: str) -> Callable[[TransferEvent], None]:
        def tell(event: TransferEvent) -> None:
            if isinstance(event, Progress) and event.total_bytes > 0:
                self._app.activity(f"{printable(doing, limit=40)} {event.bytes * 100 // event.total_bytes} %")

        return tell

    # --- the rest ---

    def help(self, rest: str) -> None:
        self._app.note("\n".join(f"/{name} {text}" for name, (text, _) in TABLE.items()))

    def quit(self, rest: str) -> None:
        self._app.exit()


TABLE: dict[str, tuple[str, Callable[[Commands, str], None]]] = {
    "join": ("ROOM [private]: open a room, make it if it is not there", Commands.join),
    "leave": ("[ROOM]: close a room", Commands.leave),
    "msg": ("NAME TEXT: say it to one person", Commands.msg),
    "me": ("DOES SOMETHING", Commands.me),
    "nick": ("[NICK]: shown beside your name", Commands.nick),
    "who": ("[ROOM]: who is here", Commands.who),
    "search": ("WORD: in this room, as far back as it is kept", Commands.search),
    "send": ("PATH: upload a file for the others", Commands.send),
    "get": ("N [TARGET]: fetch the file of message N", Commands.get),
    "edit": ("N TEXT: another text for your message N", Commands.edit),
    "delete": ("N: take your message N back", Commands.delete),
    "receipts": ("[N]: what became of a message", Commands.receipts),
    "topic": ("[TEXT]: what this room is about", Commands.topic),
    "invite": ("NAME: into this private room", Commands.invite),
    "private": ("[off]: only who is invited sees this room", Commands.private),
    "keep": ("TIME: how long messages are kept", Commands.keep),
    "away": (": you are not here", Commands.away),
    "back": (": you are", Commands.back),
    "mute": ("NAME [TIME]: admins", Commands.mute),
    "unmute": ("NAME: admins", Commands.unmute),
    "remove": ("N: admins", Commands.remove),
    "help": (": this", Commands.help),
    "quit": (": leave (ctrl+q); ctrl+n, ctrl+p change rooms; ctrl+t light or dark; page up: older", Commands.quit),
}


def _need(rest: str, usage: str) -> str:
    if not rest.strip():
        raise UsageError(f"Write {usage}.")
    return rest


def _number(text: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{printable(text, limit=40)!r} is not the number of a message.")
    return int(text)
