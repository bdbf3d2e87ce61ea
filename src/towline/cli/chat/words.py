"""The line to write in: what is typed and pasted arrives in the order in which it came, and all of it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding
from textual.widgets import Input

_COPYING = "copy"  # without a selection ctrl+c is the app's


class Words(Input):
    """One line. Enter hands it over and begins the next one."""

    _ACTIONS: ClassVar[dict[str, str]] = {
        binding.key: binding.action for binding in Binding.make_bindings(Input.BINDINGS) if binding.action != _COPYING
    }

    async def on_key(self, event: events.Key) -> None:
        """Enter, backspace and their kin at once, like letters.

        Otherwise they go up to the app and come back, and letters that were typed meanwhile overtake them: on a slow
        line two messages become one, twice.
        """
        action = self._ACTIONS.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)

    async def action_submit(self) -> None:
        """Hand over what is there, and empty the line before the next key. Not by way of our own queue, where keys
        may be waiting: another room is chosen by one of them."""
        text, self.value = self.value, ""
        self.screen.post_message(self.Submitted(self, text))

    def on_paste(self, event: events.Paste) -> None:
        """All the lines, as one: a message that was cut off behind the first would look whole."""
        event.stop()
        event.prevent_default()
        self.replace(" ".join(event.text.splitlines()), *self.selection)
