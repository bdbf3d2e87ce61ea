"""What the screen looks like: its panes, and how each is drawn from the models."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from towline.base.text import printable
from towline.cli.chat.model import RoomModel
from towline.cli.chat.render import note_text, pending_text, row_text
from towline.cli.chat.view import Block, MessageView
from towline.cli.chat.words import Words
from towline.client.line import Line

_NOTES = 500  # lines of our own in each room; the oldest go


class Painting(App[None]):
    """The panes. `models` are the rooms by name; `current` is the one that is shown."""

    CSS = """
    #rooms { width: 16; height: 1fr; border: none; border-right: solid $panel; padding: 0; }
    #people { width: 14; height: 1fr; border-left: solid $panel; padding: 0 0 0 1; }
    #topic, #status { height: 1; background: $panel; color: $foreground; padding: 0 1; }
    #words { height: 3; }
    MessageView { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("ctrl+n", "next_room(1)", "Next room"),  # behind what was typed before, which is for this room
        Binding("ctrl+p", "next_room(-1)", "Previous room"),
        Binding("pageup", "page(-1)", "Older", priority=True),
        Binding("pagedown", "page(1)", "Newer", priority=True),
        Binding("ctrl+t", "theme", "Light or dark", priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line
        self.me = line.welcome.person if line.welcome is not None else ""
        self.models: dict[str, RoomModel] = {}
        self.current = ""
        self._link = "connected"
        self._activity = ""
        self._own_notes: dict[str, list[tuple[int, int, str]]] = {}  # (behind which seq, number, text)
        self._notes = 0

    def compose(self) -> ComposeResult:
        yield Static("", id="topic", markup=False)
        with Horizontal():
            yield OptionList(id="rooms")
            with Vertical():
                yield MessageView(id="messages")
            yield Static("", id="people", markup=False)
        yield Static("", id="status", markup=False)
        yield Words(placeholder="write, or /help", id="words")

    @property
    def model(self) -> RoomModel:
        """The room that is shown."""
        return self.models[self.current]

    def on_resize(self, event: events.Resize) -> None:
        narrow = event.size.width < 60
        self.query_one("#people").display = not narrow
        self.query_one("#rooms").display = event.size.width >= 45

    def action_theme(self) -> None:
        self.theme = "textual-dark" if self.theme == "textual-light" else "textual-light"

    # --- drawing ---

    def note(self, text: str, room: str = "") -> None:
        """Tell our own person something, in the room that is shown."""
        name = room if room in self.models else self.current
        model = self.models.get(name)
        behind = model.last if model is not None else 0
        notes = self._own_notes.setdefault(name, [])
        for line in text.split("\n"):
            self._notes += 1
            notes.append((behind, self._notes, f"· {printable(line)}"))
        del notes[:-_NOTES]
        if self.is_running:
            self.show_messages()

    def activity(self, text: str) -> None:
        """What goes on beside: a transfer."""
        self._activity = text
        self._show_status()

    def show_all(self) -> None:
        self.show_rooms()
        self.show_messages()
        self.show_people()
        self._show_status()

    def show_rooms(self) -> None:
        if not self.is_running or not self.screen.query("#rooms"):
            return
        rooms = self.query_one("#rooms", OptionList)
        names = sorted(self.models)
        options = [Option(self._room_label(self.models[name]), id=name) for name in names]
        if [str(rooms.get_option_at_index(index).prompt) for index in range(rooms.option_count)] != [
            str(option.prompt) for option in options
        ]:
            rooms.clear_options()
            rooms.add_options(options)
        if self.current in names:
            rooms.highlighted = names.index(self.current)

    @staticmethod
    def _room_label(model: RoomModel) -> Text:
        name = printable(model.name, limit=12)
        style = "" if model.joined else "dim"
        return Text(
            f"{name} {min(model.unread, 999)}" if model.unread else name, style="bold" if model.unread else style
        )

    def show_messages(self) -> None:
        if not self.is_running or self.current not in self.models:
            return
        model = self.model
        notes = list(self._own_notes.get(self.current, ()))[::-1]
        blocks: list[Block] = []

        def notes_upto(seq: float) -> None:
            while notes and notes[-1][0] < seq:
                _, number, text = notes.pop()
                blocks.append((("note", number), partial(note_text, text)))

        for row in model.rows:
            if notes:
                notes_upto(row.seq)
            blocks.append(
                ((self.current, row.seq, row.item.kind, row.version, row.mark), partial(row_text, row, self.me))
            )
        notes_upto(float("inf"))
        blocks += [
            ((pending.id, pending.seq, pending.error), partial(pending_text, pending, self.me))
            for pending in model.pending.values()
        ]
        self.query_one(MessageView).show(blocks)
        topic = f"{printable(model.name)}  {printable(model.topic)}"
        self.query_one("#topic", Static).update(Text(topic, no_wrap=True, overflow="ellipsis"))

    def show_people(self) -> None:
        if not self.is_running or self.current not in self.models:
            return
        text = Text(no_wrap=True, overflow="ellipsis")
        for name in sorted(self.model.people):
            away = self.model.people[name].get("state") == "away"
            text.append(f"{'○' if away else '●'} {printable(name, limit=11)}\n", "dim" if away else "")
        self.query_one("#people", Static).update(text)

    def _show_status(self) -> None:
        if not self.is_running or not self.screen.query("#status"):
            return
        parts = [self._link]
        if self.line.mailing.pending:
            parts.append(f"{self.line.mailing.pending} pending")
        if self.current in self.models and (typing := self.model.who_types()):
            parts.append(f"{', '.join(printable(name, limit=20) for name in typing[:3])} writing …")
        if self._activity:
            parts.append(self._activity)
        self.query_one("#status", Static).update(Text("  ".join(parts), no_wrap=True, overflow="ellipsis"))
