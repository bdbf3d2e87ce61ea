"""The list of messages: wrapped once for a width, drawn a line at a time, kept at the end unless scrolled away."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip


class MessageView(ScrollView, can_focus=False):
    """Blocks of text, each with a key; a block with the same key and version is not wrapped again."""

    # The bar has its place from the start: words that are wrapped before it comes would end behind it.
    DEFAULT_CSS = "MessageView { height: 1fr; width: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }"

    class AtTop(Message):
        """Somebody scrolled up to the oldest message."""

    def __init__(self, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._blocks: list[tuple[object, Text]] = []
        self._wrapped: dict[object, list[Strip]] = {}
        self._lines: list[Strip] = []
        self._width = 0
        self._stick = True  # the newest line stays in sight; until somebody scrolls up
        self._wrapper = Console(width=80, color_system="truecolor", force_terminal=True)

    @property
    def at_end(self) -> bool:
        """Whether the newest line is in sight."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    def show(self, blocks: list[tuple[object, Text]], *, keep_place: bool = False) -> None:
        """Show these. With `keep_place` what is in sight stays in sight although something comes before it."""
        before = len(self._lines)
        self._blocks = blocks
        self._layout()
        if keep_place:
            place = self.scroll_offset.y + len(self._lines) - before
            self.call_after_refresh(lambda: self.scroll_to(y=place, animate=False, immediate=True))
        elif self._stick:
            self.to_end()
        self.refresh()

    def to_end(self) -> None:
        """Show the newest line, and go on doing so."""
        self._stick = True
        self.call_after_refresh(lambda: self.scroll_end(animate=False, immediate=True) if self._stick else None)

    def _layout(self) -> None:
        width = max(self.scrollable_content_region.width, 10)
        if width != self._width:
            self._width = width
            self._wrapped.clear()
        known, self._wrapped = self._wrapped, {}
        self._lines = []
        for key, text in self._blocks:
            strips = known.get(key)
            if strips is None:
                strips = [
                    Strip(line.render(self._wrapper)).extend_cell_length(width)
                    for line in text.wrap(self._wrapper, width, tab_size=4)
                ]
            self._wrapped[key] = strips
            self._lines += strips
        self.virtual_size = Size(width, len(self._lines))

    def on_resize(self, event: events.Resize) -> None:
        self._layout()
        if self._stick:
            self.to_end()

    def render_line(self, y: int) -> Strip:
        """One line of the screen."""
        index = self.scroll_offset.y + y
        # Few messages stand at the bottom, near the line of input, as in any chat.
        index -= max(self.size.height - len(self._lines), 0)
        width = self.scrollable_content_region.width
        line = self._lines[index] if 0 <= index < len(self._lines) else Strip.blank(width)
        return line.crop(0, width).apply_style(self.rich_style)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if new_value < old_value or self.at_end:
            self._stick = self.at_end
        if new_value <= 0 < old_value:
            self.post_message(self.AtTop())
