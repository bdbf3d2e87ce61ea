"""The list of messages: wrapped once for a width, drawn a line at a time, kept at the end unless scrolled away."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from typing import TypeAlias

from rich.console import Console
from rich.text import Text
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

Block: TypeAlias = tuple[object, Callable[[], Text]]  # its key, and how to make it; only when it is not known


class MessageView(ScrollView, can_focus=False):
    """Blocks of text, each with a key; a block with the same key and version is not wrapped again."""

    # The bar has its place from the start: words that are wrapped before it comes would end behind it.
    DEFAULT_CSS = "MessageView { height: 1fr; width: 1fr; scrollbar-size-vertical: 1; scrollbar-gutter: stable; }"

    class AtTop(Message):
        """Somebody scrolled up to the oldest message."""

    def __init__(self, id: str) -> None:  # noqa: A002
        super().__init__(id=id)
        self._blocks: list[Block] = []
        self._wrapped: dict[object, list[Strip]] = {}
        self._keys: list[object] = []  # of the blocks that are laid out
        self._starts: list[int] = []  # the first line of each
        self._lines: list[Strip] = []
        self._width = 0
        self._stick = True  # the newest line stays in sight; until somebody scrolls up
        self._held: tuple[object, int] | None = None  # the place to go back to once the lines are laid out anew
        self._wrapper = Console(width=80, color_system="truecolor", force_terminal=True)

    @property
    def at_end(self) -> bool:
        """Whether the newest line is in sight."""
        return self.scroll_offset.y >= self.max_scroll_y - 1

    @property
    def sticks(self) -> bool:
        """Whether the newest line stays in sight, whatever comes."""
        return self._stick

    def show(self, blocks: list[Block]) -> None:
        """Show these. What is in sight stays in sight, whatever comes or goes before it; or it is the newest line."""
        place = None if self._stick else self._place()
        self._blocks = blocks
        self._layout()
        self._go_on(place)
        self.refresh()

    def _go_on(self, place: tuple[object, int] | None) -> None:
        if self._stick:
            self.to_end()
        elif place is not None:
            self._held = place
            self.call_after_refresh(self._return)

    def _return(self) -> None:
        place, self._held = self._held, None
        if place is not None and (line := self._line_of(*place)) is not None:
            self.scroll_to(y=line, animate=False, immediate=True)

    def _place(self) -> tuple[object, int] | None:
        """The block whose line is the uppermost in sight, and which of its lines that is."""
        if self._held is not None:
            return self._held
        at = bisect_right(self._starts, int(self.scroll_offset.y)) - 1
        return (self._blocks[at][0], int(self.scroll_offset.y) - self._starts[at]) if at >= 0 else None

    def _line_of(self, key: object, line: int) -> int | None:
        for (each, _), start in zip(self._blocks, self._starts, strict=True):
            if each == key:
                return min(start + line, start + len(self._wrapped[key]) - 1)
        return None

    def to_end(self) -> None:
        """Show the newest line, and go on doing so."""
        self._stick = True
        self.call_after_refresh(lambda: self.scroll_end(animate=False, immediate=True) if self._stick else None)

    def _layout(self) -> None:
        """Lay out from the first block that is another one than before: mostly that is the last."""
        width = max(self.scrollable_content_region.width, 10)
        if width != self._width:
            self._width = width
            for each in (self._wrapped, self._keys, self._starts, self._lines):
                each.clear()
        keys = [key for key, _ in self._blocks]
        same = next((at for at, (new, old) in enumerate(zip(keys, self._keys, strict=False)) if new != old), None)
        if same is None:
            same = min(len(keys), len(self._keys))
        gone = self._keys[same:]
        if same < len(self._keys):
            del self._lines[self._starts[same] :], self._starts[same:]
        self._keys = keys
        for key, text_of in self._blocks[same:]:
            if (strips := self._wrapped.get(key)) is None:
                strips = self._wrapped[key] = [
                    Strip(line.render(self._wrapper)).extend_cell_length(width)
                    for line in text_of().wrap(self._wrapper, width, tab_size=4)
                ]
            self._starts.append(len(self._lines))
            self._lines += strips
        for key in set(gone).difference(keys[same:]):
            self._wrapped.pop(key, None)
        self.virtual_size = Size(width, len(self._lines))

    def on_resize(self, event: events.Resize) -> None:
        place = None if self._stick else self._place()
        self._layout()
        self._go_on(place)

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
        if self._held is not None:
            return  # nobody scrolled: the lines are others now
        if new_value < old_value or self.at_end:
            self._stick = self.at_end
        if new_value <= 0 < old_value:
            self.post_message(self.AtTop())
