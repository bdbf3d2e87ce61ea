"""The full-screen mode of `tow chat` (Textual): rooms, messages, people, and a line to write in."""

from __future__ import annotations

import argparse
import asyncio
import time
from functools import partial

from textual import on
from textual.widgets import Input, OptionList

from towline.base.errors import Exit, TowlineError
from towline.base.text import printable
from towline.cli.chat.commands import Commands
from towline.cli.chat.model import KEPT_ROWS, MOST_ROWS, Pending, RoomModel
from towline.cli.chat.painting import Painting
from towline.cli.chat.view import MessageView
from towline.cli.roomy import refused
from towline.client.line import Connected, Line, LineEvent, Reconnecting
from towline.client.rooms import Room
from towline.client.since import Since
from towline.journal import Cursor
from towline.services.rooms.messages import Item, Missed, Signal

FIRST_PAGE = 200
PAGE = 200
ROOMS_SECONDS = 5.0
RECEIPTS_SECONDS = 2.0
TYPING_SECONDS = 2.0


def run_screen(args: argparse.Namespace) -> int:
    """Until the person leaves."""
    from towline.cli.running import run_async

    return run_async(_talk(args))


async def _talk(args: argparse.Namespace) -> int:
    from towline.client.connect import connect

    async with connect(args.alias, give_up=args.give_up) as line:
        app = ChatApp(line, args.room, nick=args.nick, since=args.since, light=args.light)
        await app.run_async()
        if app.ended_by is not None:
            raise app.ended_by
    return Exit.OK


class ChatApp(Painting):
    """One line to a node, and the rooms that are open on it."""

    def __init__(self, line: Line, room: str, *, nick: str = "", since: Since = None, light: bool = False) -> None:
        super().__init__(line)
        self.nick = nick
        self.handles: dict[str, Room] = {}
        self.ended_by: BaseException | None = None
        self.commands = Commands(self)
        self._first_room, self._since, self._light = room, since, light
        self._following: dict[str, asyncio.Task[None]] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._unshown: set[str] = set()  # rooms with news
        self._typed = 0.0
        self._here = True
        self._loading = False

    # --- the screen ---

    async def on_mount(self) -> None:
        self.theme = "textual-light" if self._light else "textual-dark"
        self.query_one("#rooms", OptionList).can_focus = False
        self.query_one("#words", Input).focus()
        self.line.on_event = self._on_line
        self.line.on_refused = lambda message, error: self.note(refused(message, error), message.room)
        self.set_interval(ROOMS_SECONDS, lambda: self.work(self._look_at_rooms()))
        self.set_interval(RECEIPTS_SECONDS, lambda: self.work(self._look_at_receipts()))
        self.set_interval(1.0, self._show_status)
        self.open_room(self._first_room, self._since)
        self.work(self._look_at_rooms())
        _ = self.line.mailing  # what an earlier start left is sent now

    async def on_unmount(self) -> None:
        tasks = [*self._following.values(), *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_app_blur(self) -> None:
        self.present(False)

    def on_app_focus(self) -> None:
        self.present(True)

    def present(self, here: bool) -> None:
        """Whether a person is at the screen."""
        if here != self._here:
            self._here = here
            for handle in self.handles.values():
                handle.away(not here)
            if here:
                self._mark_read()

    # --- rooms ---

    def open_room(self, name: str, since: Since = None) -> None:
        """Show a room; follow it, if it is not followed yet."""
        model = self.models.setdefault(name, RoomModel(name, self.me))
        self.current = name
        if name not in self._following:
            handle = self.handles[name] = self.line.room(name)
            handle.nick = self.nick
            model.joined = True
            task = self._following[name] = asyncio.create_task(self._follow(handle, model, since))
            task.add_done_callback(partial(self._follow_ended, name))
        model.unread = 0
        self.show_all()
        self._mark_read()

    def leave_room(self, name: str) -> None:
        """Follow it no more."""
        task = self._following.pop(name, None)
        if task is not None:
            task.cancel()
        self.handles.pop(name, None)
        self.models.pop(name, None)
        others = self._joined()
        if not others:
            self.exit()
        elif self.current == name:
            self.open_room(others[0])
        self.show_rooms()

    def _joined(self) -> list[str]:
        """The rooms that somebody chose to be in; the others are only listed."""
        return [name for name, model in self.models.items() if model.joined]

    @property
    def handle(self) -> Room:
        """The same, for saying and asking."""
        return self.handles[self.current]

    async def _follow(self, handle: Room, model: RoomModel, since: Since) -> None:
        info = await handle.join()
        model.topic, model.first = str(info["topic"]), int(info["first"])
        if since is None:
            since = Cursor(int(info["epoch"]), max(int(info["first"]), int(info["last"]) - FIRST_PAGE + 1))
        behind = int(info["last"])
        async for item in handle.follow(
            since,
            create=True,
            on_signal=partial(self._on_signal, model),
            on_open=lambda _: self._opened(handle),
        ):
            shown = model.name == self.current and self._here
            model.add(item, seen=shown or item.next.seq <= behind + 1)
            looks_back = model.name == self.current and not self.query_one(MessageView).sticks
            model.trim(MOST_ROWS if looks_back else KEPT_ROWS)
            self._show_soon(model)

    def _opened(self, handle: Room) -> None:
        """The room is followed (again): what the node may not know of us any more."""
        self._connected()
        if not self._here:
            handle.away(True)
        elif handle.name == self.current:
            self._mark_read()

    def _show_soon(self, model: RoomModel) -> None:
        """What comes in one batch is shown together."""
        if model.name not in self._unshown:
            self._unshown.add(model.name)
            self.call_later(self._show_news, model)

    def _show_news(self, model: RoomModel) -> None:
        self._unshown.discard(model.name)
        if model.name == self.current:
            self.show_messages()
            self._mark_read()
        else:
            self.show_rooms()

    def _follow_ended(self, name: str, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if self._following.get(name) is task:
            del self._following[name]
        if isinstance(error, TowlineError):
            if others := [each for each in self._joined() if each != name]:
                self.models.pop(name, None)
                self.handles.pop(name, None)
                self.open_room(self.current if self.current in others else others[0])
                self.note(f"{name}: {error.sentence}")
            else:
                self.ended_by = error
                self.exit()
        elif error is not None:  # a bug: better no chat than one in which nothing comes any more
            self.ended_by = error
            self.exit()

    async def load_older(self) -> None:
        """The page before what is shown."""
        model, handle = self.model, self.handle
        if self._loading or not model.rows or model.oldest <= max(model.first, 1):
            return
        if len(model.rows) >= MOST_ROWS:
            if not model.full:
                model.full = True
                self.note(f"No more than {MOST_ROWS} messages are shown here; tow log shows older ones.")
            return
        self._loading = True
        try:
            begin = max(model.oldest - PAGE, model.first, 1)
            older: list[Item] = [item async for item in handle.history(begin, until=model.oldest)]
            model.prepend(older)
            if not older or (isinstance(older[0], Missed) and older[0].reason == "retention"):
                model.first = model.oldest
            if model is self.model:
                self.show_messages()
        finally:
            self._loading = False

    async def _look_at_rooms(self) -> None:
        for row in await self.line.rooms():
            name = str(row["room"])
            model = self.models.get(name)
            if model is None:
                model = self.models[name] = RoomModel(name, self.me)
            if not model.joined:
                model.unread = max(int(row["last"]) - int(row["read"]), 0)
        self.show_rooms()

    async def _look_at_receipts(self) -> None:
        row = self.model.last_of_mine() if self.current in self.models else None
        if row is None or self._link != "connected" or len(self.model.people) < 2:
            return
        found = await self.handle.receipts(row.seq)
        count, read = int(found["delivered"]), len(found["read"])
        mark = f"✓✓{count}" + (f" read {read}" if read else "") if count else "✓"
        if row.mark != mark:
            row.mark = mark
            self.show_messages()

    # --- what comes ---

    def _on_signal(self, model: RoomModel, signal: Signal) -> None:
        if model.hear(signal) and model.name == self.current:
            self.show_people()
        self._show_status()

    def _on_line(self, event: LineEvent) -> None:
        match event:
            case Reconnecting(attempt, wait, error):
                self._link = f"reconnecting ({attempt}) in {wait:.0f} s: {printable(error.sentence, limit=60)}"
            case Connected():
                self._connected()
        self.call_later(self._show_status)

    def _connected(self) -> None:
        self._link = "connected"

    # --- what goes ---

    def say(self, text: str, *, kind: str = "message", room: str = "", **more: object) -> None:
        """Say it; until it has its place in the room it is shown as pending."""
        name = room or self.current
        handle = self.handles.get(name) or self.line.room(name)
        handle.nick = self.nick
        future, id_ = handle.post_with_id(text, kind=kind, **more)  # type: ignore[arg-type]
        model = self.models.get(name)
        if model is not None and kind in ("message", "me"):
            pending = model.pending[id_] = Pending(id_, text, kind)
            future.add_done_callback(partial(self._answered, model, pending))
        else:
            future.add_done_callback(partial(self._answered, model, None))
        self.show_messages()

    def _answered(self, model: RoomModel | None, pending: Pending | None, done: asyncio.Future[Cursor]) -> None:
        if done.cancelled() or not self.is_running:
            return
        error = done.exception()
        if error is None:
            if pending is not None:
                pending.seq = done.result().seq
        elif pending is not None and isinstance(error, TowlineError) and not error.retryable:
            pending.error = error.sentence
        else:
            self.note(str(error))
        if model is not None and model.name == self.current:
            self.show_messages()

    @on(Input.Changed, "#words")
    def _changed(self, event: Input.Changed) -> None:
        if not event.value or event.value.startswith("/"):
            return
        self.present(True)
        now = time.monotonic()
        if now - self._typed > TYPING_SECONDS and self.current in self.handles:
            self._typed = now
            self.handle.typing()

    @on(Input.Submitted, "#words")
    def _submitted(self, event: Input.Submitted) -> None:
        text = event.value
        if not text.strip():
            return
        self.query_one(MessageView).to_end()
        try:
            if text.startswith("/") and not text.startswith("//"):
                self.commands.run(text)
            else:
                self.say(text[1:] if text.startswith("//") else text)
        except TowlineError as error:
            self.note(error.sentence)

    @on(OptionList.OptionSelected, "#rooms")
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        if event.option_id is not None:
            self.open_room(event.option_id)
        self.query_one("#words", Input).focus()

    @on(MessageView.AtTop)
    def _at_top(self) -> None:
        self.work(self.load_older())

    def work(self, doing: object, *, ordered: bool = False) -> None:
        """Do something that waits; what goes wrong is said on the screen. `ordered`: by whoever sits here, who has to
        hear of a cut as well; what we do by ourselves is done again."""
        task = asyncio.ensure_future(doing)  # type: ignore[call-overload]
        self._background.add(task)
        task.add_done_callback(partial(self._worked, ordered))

    def _worked(self, ordered: bool, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if task.cancelled() or not isinstance(error := task.exception(), TowlineError):
            return
        if ordered or not error.retryable:
            self.note(error.sentence)

    # --- keys ---

    def action_next_room(self, step: int) -> None:
        names = [name for name in sorted(self.models) if self.models[name].joined]
        self.open_room(names[(names.index(self.current) + step) % len(names)])

    def action_page(self, step: int) -> None:
        view = self.query_one(MessageView)
        view.scroll_relative(y=step * max(view.size.height - 2, 1), animate=False)
        if step < 0 and view.scroll_offset.y <= 0:
            self.work(self.load_older())

    def _mark_read(self) -> None:
        model = self.models.get(self.current)
        if model is not None and model.rows and self._here and self.current in self.handles:
            model.unread = 0
            self.handle.mark_read(model.last)
